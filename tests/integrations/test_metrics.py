"""The metrics tensor: its numbers, over valid rows only, and how batches and ranks add up."""

import math

import pytest
import torch

import rskernels
from rskernels._python.extras import framework
from rskernels.envelope import NoFiniteM
from rskernels.integrations import metrics

from .waits import NoWait

RATIOS = torch.tensor([0.3, -1.0, 2.5, math.nan, -math.inf, 0.0, 7.0], dtype=torch.float64)


def by_hand(ratios, seen, log_M):
    """Return what the docstring says, in plain float64."""
    valid = ratios[~ratios.isnan()]
    w = valid.exp()
    over = (w / math.exp(log_M) - 1).clamp(min=0)
    return {
        "acceptance": seen.mask.sum().item() / len(valid),
        "violations": (valid > log_M).sum().item(),
        "excess": over.mean().item(),
        "tv_bound": (over.sum() / (w / math.exp(log_M)).sum()).item(),
        "log_M": log_M,
        "ess": (w.sum() ** 2 / w.square().sum()).item(),
    }


def test_the_numbers_are_those_of_their_definition():
    mask = torch.ones(7, dtype=torch.bool)
    mask[6] = False  # padding, of the largest ratio
    seen = rskernels.bernoulli(RATIOS, 1.0, log_space=True, mask=mask, seed=3)
    found = metrics.decision_metrics(seen, 1.0)
    assert found.values.dtype == torch.float64
    wanted = {**by_hand(RATIOS[:6], seen, 1.0), "invalid": 1}
    assert found.to_dict() == pytest.approx(wanted, rel=1e-12)
    assert list(found.to_dict("r/")) == [f"r/{name}" for name in metrics.NAMES]


def test_sequences_are_rows_and_empty_ones_are_in_no_number():
    ratios = [torch.tensor([0.5, 0.5]), torch.tensor([]), torch.tensor([2.0])]
    seen = rskernels.accept_sequences(ratios, 1.5, log_space=True, seed=0)
    found = metrics.decision_metrics(seen, 1.5).to_dict()
    rows = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert found == pytest.approx({**by_hand(rows, seen, 1.5), "invalid": 0}, rel=1e-12)


@pytest.mark.parametrize("cuts", [[7], [1, 2, 4], [3, 0, 4]])
def test_batches_add_up_to_the_whole(cuts):
    seen = rskernels.bernoulli(RATIOS * 200, 1.0, log_space=True, seed=3)
    parts, row = [], 0
    for part in (RATIOS * 200).split(cuts):
        parts += [rskernels.bernoulli(part, 1.0, log_space=True, seed=3, row_offset=row)]
        row += len(part)
    whole = metrics.decision_metrics(seen, 1.0).to_dict()
    assert metrics.decision_metrics(parts, 1.0).to_dict() == pytest.approx(whole, nan_ok=True)


def test_nothing_to_tell_is_nan_and_changes_nothing():
    none = metrics.metrics_of(metrics.no_sums()).to_dict()
    assert none.pop("violations") == none.pop("invalid") == 0
    assert all(math.isnan(value) for value in none.values())
    sums = metrics.decision_sums(rskernels.bernoulli(RATIOS, 2.0, seed=0), 0.5)
    both = metrics.combine([metrics.no_sums(), sums, metrics.no_sums()])
    torch.testing.assert_close(both, sums, rtol=0, atol=0)


def test_log_m_is_the_largest_of_the_groups_that_have_one():
    envelope = rskernels.Envelope("max", groups=3)
    envelope.update(torch.tensor([0.5, 2.0]), torch.tensor([0, 2]))
    seen = rskernels.bernoulli(RATIOS, 2.0, seed=0)
    assert metrics.decision_metrics(seen, envelope).to_dict()["log_M"] == 2.0
    assert math.isnan(metrics.decision_metrics(seen).to_dict()["log_M"])


def test_what_is_no_decision_or_no_m_is_refused():
    seen = rskernels.bernoulli(RATIOS, 2.0, seed=0)
    with pytest.raises(TypeError, match="seen must be an Acceptance"):
        metrics.decision_metrics([seen, seen.mask])
    with pytest.raises(TypeError, match="envelope must be an Envelope"):
        metrics.decision_metrics(seen, "max")


def test_a_framework_that_is_missing_is_named_with_what_installs_it():
    with (
        pytest.raises(ModuleNotFoundError, match=r"A hook needs nowhere, .*: pip install it"),
        framework("A hook", "pip install it"),
    ):
        import nowhere.to.be.found  # noqa: F401


def test_no_number_is_read_on_the_host():
    seen = rskernels.bernoulli(RATIOS, 2.0, seed=0)
    with NoWait():
        found = metrics.decision_metrics([seen, seen], 0.5)
    assert found.to_dict()["log_M"] == 0.5
    assert metrics.combine(torch.zeros(2, metrics.SIZE, device="meta")).shape == (metrics.SIZE,)
    with pytest.raises(AssertionError, match="waits for a device"), NoWait():
        found.values[0].item()


def test_a_group_without_a_finite_m_hides_no_other():
    heavy = torch.empty(512).cauchy_(generator=torch.Generator().manual_seed(0))
    light = torch.linspace(-1, 0, 512).repeat(2)
    envelope = rskernels.Envelope("tail", groups=2)
    envelope.update(heavy, torch.zeros(512, dtype=torch.int64))
    seen = rskernels.bernoulli(RATIOS, 2.0, seed=0)
    with pytest.raises(NoFiniteM):
        envelope.log_M()
    assert math.isnan(metrics.decision_metrics(seen, envelope).to_dict()["log_M"])
    envelope.update(light, torch.ones(1024, dtype=torch.int64))
    expected = envelope.log_M(torch.tensor([1])).item()
    assert metrics.decision_metrics(seen, envelope).to_dict()["log_M"] == expected
