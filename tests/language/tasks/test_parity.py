"""Parity: the verifier, the closed form of a round, and policies that keep to it."""

import pytest
import torch

from rskernels.language import LanguageConfig, fine_tune
from rskernels.language.scratch.start import starting_policy
from rskernels.language.tasks import demonstrations_of, parity, task_of
from rskernels.rsft.run import read_metrics
from rskernels.select import tilt


def test_an_answer_is_right_by_its_last_bit():
    answers = ["0100", "0", "1", "1110", "01x0", "", "0101"]
    assert parity.reward(["0110="] * 7, answers) == [1, 1, 0, 1, 0, 0, 0]
    assert parity.long_answer("0110=") == "0100"
    assert [parity.kind_of(a) for a in ("0100", "0")] == ["long", "short"]


def test_the_odds_double_in_a_round():
    for share in (0.01, 0.1, 0.3, 0.9):
        once = parity.share_after(share)
        assert once == pytest.approx(2 * share / (1 + share))
        assert once / (1 - once) == pytest.approx(2 * share / (1 - share))
        assert parity.share_after(share, 4) == pytest.approx(parity.share_after(once, 3))
    assert parity.share_after(1 / 3) == pytest.approx(0.5)  # the threshold
    assert parity.share_after(0.0) == 0.0
    assert parity.share_after(1.0) == 1.0


def rounds(share, count, right_short=0.5):
    """Return the shares after four rounds of a policy that is a table, and what each kept."""
    shares, kept = [], []
    for number in range(4):
        generator = torch.Generator().manual_seed(number)
        u = torch.rand(2, count, generator=generator, dtype=torch.float64)
        is_long = u[0] < share
        rewards = (is_long | (u[1] < right_short)).double()
        ids = torch.arange(count) + (number << 40)
        mask = tilt(rewards, 0.0, form="verifier", ids=ids, seed=3).mask
        share = is_long[mask].double().mean().item()
        shares.append(share)
        kept.append(int(mask.sum()))
    return shares, kept


@pytest.mark.parametrize("share", [0.02, 0.1, 0.4])
def test_a_table_has_the_share_of_the_closed_form_after_each_round(share):
    shares, kept = rounds(share, 400_000)
    errors = parity.errors_after(share, kept)
    for number, (seen, error) in enumerate(zip(shares, errors, strict=True), 1):
        assert abs(seen - parity.share_after(share, number)) < 3 * error
    # Who guesses better than by a coin has other shares.
    others, _ = rounds(share, 400_000, right_short=0.55)
    assert abs(others[-1] - parity.share_after(share, 4)) > 3 * errors[-1]


def test_errors_of_the_shares_are_those_of_repeated_rounds():
    seen = torch.tensor([rounds_fast(0.1, 2000, number) for number in range(400)])
    errors = parity.errors_after(0.1, [1100, 1182, 1310, 1471])
    spread = seen.std(0)
    assert torch.allclose(spread, torch.tensor(errors), rtol=0.15)
    # Estimated from 500 answers, the first share too.
    generator = torch.Generator().manual_seed(1)
    estimated = torch.binomial(torch.full_like(seen, 500.0), seen, generator=generator) / 500
    first = torch.binomial(torch.full((400,), 500.0), torch.tensor(0.1), generator=generator) / 500
    errors = torch.tensor(parity.errors_after(0.1, [1100, 1182, 1310, 1471], answers=500))
    expected = [[parity.share_after(float(p), t) for t in range(1, 5)] for p in first]
    assert torch.allclose((estimated - torch.tensor(expected)).std(0), errors, rtol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "seed"), [(0.12, 0), (0.2, 1), (0.4, 2)])
def test_a_transformer_has_the_share_of_the_closed_form_after_each_round(share, seed, tmp_path):
    task = task_of("parity", seed, **parity.SIZES)
    policy = starting_policy("parity", task, seed=seed, long=share)
    config = LanguageConfig(seed=seed, device="cpu", eval_samples=8, **parity.SETTINGS)
    fine_tune(config, tmp_path, task=task, policy=policy, progress=False)
    records = [record for record in read_metrics(tmp_path) if record["kind"] == "round"]
    start, *shares = [record["mean_long"] for record in records]
    kept = [record["accepted"] for record in records[1:]]
    errors = parity.errors_after(start, kept, answers=8 * len(task.test))
    print([start, *shares], errors)
    assert len(shares) == 4
    for number, (seen, error) in enumerate(zip(shares, errors, strict=True), 1):
        assert abs(seen - parity.share_after(start, number)) < 3 * error
        assert seen - parity.share_after(start, number - 1) > 3 * error


def rounds_fast(share, count, seed):
    generator, shares = torch.Generator().manual_seed(seed), []
    for _ in range(4):
        u = torch.rand(2, count, generator=generator)
        is_long = u[0] < share
        share = is_long[is_long | (u[1] < 0.5)].float().mean().item()
        shares.append(share)
    return shares


def test_demonstrations_have_the_share_and_fresh_prompts():
    task = task_of("parity", 0, train=50, test=50, bits=8)
    pairs = demonstrations_of("parity", task, 2000, 0, long=0.25)
    long = sum(parity.is_long(answer) for _, answer in pairs) / len(pairs)
    assert abs(long - 0.25) < 5 * (0.25 * 0.75 / 2000) ** 0.5
    assert sum(task.reward(*map(list, zip(*pairs, strict=True)))) == len(pairs)
    assert not {p for p, _ in pairs} & {row["prompt"] for row in [*task.train, *task.test]}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: task_of("parity", 0, bits=8),
            "at most 2\\^bits, got bits=8, train=2000, test=500",
        ),
        (lambda: parity.share_after(1.5), "share must be in"),
        (lambda: parity.long_answer("01"), "must be bits"),
    ],
)
def test_what_cannot_be_asked_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
