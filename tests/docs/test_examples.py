"""The examples run, and print what is known to be right."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal, StudentT

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def numbers(capsys):
    """Run an example and return the numbers that it prints, without their thousands' commas."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(name):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        printed = capsys.readouterr().out.replace(",", "")
        return [float(number) for number in re.findall(r"(?<!\w)-?\d+(?:\.\d+)?", printed)]

    yield run
    torch.set_num_threads(threads)


def test_balancing_classes_takes_half_of_the_gradient_samples(numbers):
    plain, all_rows, accepted, used = numbers("balance_classes.py")
    assert 0.4 < used / all_rows < 0.6
    assert accepted > plain - 0.02
    assert accepted > 0.8


def test_the_posterior_is_that_of_numerical_integration(numbers):
    mean, _percent, low, high, acceptance = numbers("sample_posterior.py")[:5]
    location = torch.linspace(-5.0, 6.0, 20_001).double()
    data = torch.tensor([1.1, 0.7, 1.9, 1.4, 0.9, 1.6, 1.2, 9.5, -6.0, 1.3]).double()
    log_density = StudentT(2.0, location[:, None], 0.5).log_prob(data).sum(-1)
    law = (log_density + Normal(0.0, 5.0).log_prob(location)).softmax(0)
    quantiles = location[torch.searchsorted(law.cumsum(0), torch.tensor([0.05, 0.95]).double())]
    assert mean == pytest.approx((law * location).sum().item(), abs=0.008)
    assert [low, high] == pytest.approx(quantiles.tolist(), abs=0.02)
    assert 0.2 < acceptance < 0.6


def test_draft_tokens_are_kept_as_often_as_the_two_models_agree(numbers):
    kept, expected, tokens = numbers("verify_draft.py")[:3]
    # 500 decisions: four standard deviations.
    assert kept == pytest.approx(expected, abs=4 * (0.25 / 500) ** 0.5)
    assert 2.0 < tokens < 4.0


def test_a_step_without_stored_logits_has_the_same_losses(numbers):
    (_, memory, *losses), (_, stored, *wanted) = torch.tensor(
        numbers("train_from_hidden_states.py")
    ).view(2, -1).tolist()  # fmt: skip
    assert losses == pytest.approx(wanted, abs=1e-4)
    assert wanted[0] - 0.1 > wanted[-1] > 10.0
    if sys.platform == "linux":
        assert stored > 3 * memory


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
