"""The policies of M held to the numbers: what M they find, what they accept, how sure they are."""

import functools
import math
import os

import numpy as np
import pytest
import torch
from scipy import stats

import rskernels
from rskernels import Envelope

SEED = int(os.environ.get("RSKERNELS_TEST_SEED", "0"))
ROWS = 1 << 18

# name: (target, proposal, M, acceptance)
REFERENCES = {
    "beta-uniform": (stats.beta(2.7, 6.3), stats.uniform(), 2.669744, 0.374568),
    "beta-beta": (stats.beta(2.7, 6.3), stats.beta(2, 6), 1.671808, 0.598155),
    "normal-cauchy": (stats.norm(), stats.cauchy(), math.sqrt(2 * math.pi / math.e), 0.657745),
    "normal-laplace": (stats.norm(), stats.laplace(), math.sqrt(2 * math.e / math.pi), 0.760173),
}


@functools.cache
def draw_ratios(name, rows, seed):
    target, proposal, *_ = REFERENCES[name]
    u = np.random.default_rng(seed).random(rows)
    x = proposal.ppf(u)
    return torch.from_numpy(target.logpdf(x) - proposal.logpdf(x))


def within(share, expected, rows):
    """Say whether a share of so many rows is within 5σ of its expectation."""
    return abs(share - expected) <= 5 * math.sqrt(expected * (1 - expected) / rows)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize(
    "options",
    [
        {"policy": "fixed"},
        {"policy": "max"},
        {"policy": "leave_one_out"},
        {"policy": "decayed", "half_life": ROWS / 4},
        {"policy": "tail"},
        {"policy": "quantile", "level": 0.999, "confidence": 0.99},
    ],
    ids=lambda options: options["policy"],
)
def test_exact_references(name, options):
    *_, M, acceptance = REFERENCES[name]
    pilot, fresh = draw_ratios(name, 2 * ROWS, SEED + 11).split(ROWS)
    options = {**options, "M": M} if options["policy"] == "fixed" else options
    envelope = Envelope(**options)
    envelope.update(pilot)
    learnt_M = envelope.M().item()
    if options["policy"] == "decayed":
        # The largest of the newest rows has lost little.
        assert 0.99 * M < learnt_M <= M * (1 + 1e-6)
    elif options["policy"] == "quantile":
        assert np.quantile(pilot.exp().numpy(), 0.999) <= learnt_M <= M * math.exp(1 / 256)
        assert (fresh.exp() > learnt_M).double().mean() <= 0.001
    else:
        assert learnt_M == pytest.approx(M, rel=1e-5)
    if options["policy"] == "tail":
        assert learnt_M >= M * (1 - 1e-9)
    mask = rskernels.bernoulli_mask(fresh, envelope.log_M(), log_space=True, seed=SEED)
    envelope.update(fresh, accepted=mask)
    overall = envelope.report().overall
    assert within(overall["observed_acceptance"], acceptance * M / learnt_M, ROWS)
    assert overall["expected_acceptance"] == pytest.approx(acceptance * M / learnt_M, rel=0.01)
    assert overall["delta"] < 0.01


@pytest.mark.parametrize("name", REFERENCES)
def test_budget_accepts_fresh_rows_at_its_rate(name):
    pilot, fresh = draw_ratios(name, 2 * ROWS, SEED + 11).split(ROWS)
    envelope = Envelope("budget", rate=0.8)
    envelope.update(pilot)
    mask = rskernels.bernoulli_mask(fresh, envelope.log_M(), log_space=True, seed=SEED)
    # The pilot's mean of min(1, c·w) varies by less than the mask's mean does.
    assert within(mask.double().mean().item(), 0.8, ROWS / 2)


def test_t8_is_reported():
    generator = np.random.default_rng(SEED + 12)
    rows = 1 << 22
    heavy = torch.from_numpy(generator.random(rows) < 0.25)
    log_ratio = torch.where(heavy, 2.5, 0.5).log()
    envelope = Envelope("fixed", M=2.0)
    mask = rskernels.bernoulli_mask(log_ratio, envelope.M(), seed=SEED + 12)
    envelope.update(log_ratio, accepted=mask)
    overall = envelope.report().overall
    assert 1_043_744 <= overall["violations"] <= 1_053_413
    assert 1_829_470 <= overall["observed_acceptance"] * rows <= 1_840_547
    assert within(overall["expected_acceptance"], 7 / 16, rows)
    assert overall["delta"] == pytest.approx(1 / 8, rel=0.01)
    assert overall["delta"] >= 3 / 56  # the distance itself


def test_t8_control_weights_make_the_law_exact():
    rows = 1 << 20
    heavy = torch.from_numpy(np.random.default_rng(SEED + 13).random(rows) < 0.25)
    log_ratio = torch.where(heavy, 2.5, 0.5).log()
    envelope = Envelope("fixed", M=2.0, on_violation="control")
    mask = rskernels.bernoulli_mask(log_ratio, envelope.M(), seed=SEED + 13)
    weights = envelope.update(log_ratio, accepted=mask)
    assert torch.equal(weights > 1.0, heavy)
    share = (weights * mask * heavy).sum() / (weights * mask).sum()
    assert share == pytest.approx(0.625, abs=0.005)
    # Without the weights it is 4/7.
    assert (mask & heavy).sum() / mask.sum() == pytest.approx(4 / 7, abs=0.005)
    # What the weights make up for.
    assert envelope.report().overall["delta"] == pytest.approx(1 / 8, rel=0.01)


def test_thinning_gives_the_law_of_the_larger_M():
    rows = 1 << 20
    heavy = torch.from_numpy(np.random.default_rng(SEED + 14).random(rows) < 0.25)
    log_ratio = torch.where(heavy, 2.5, 0.5).double().log()
    envelope = Envelope("max", on_violation="thin")
    envelope.update(torch.tensor([2.0]).log())
    before = envelope.log_M()
    accepted = rskernels.bernoulli_mask(log_ratio, before, log_space=True, seed=SEED + 14)
    envelope.update(log_ratio)
    kept = envelope.thin(log_ratio[accepted], before, seed=SEED + 14)
    chosen = heavy[accepted][kept]
    assert within(len(chosen) / rows, 1 / 2.5, rows)
    assert within(chosen.double().mean().item(), 0.625, len(chosen))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_budget_solves_its_equation(rate):
    log_ratio = draw_ratios("normal-cauchy", 200_000, SEED + 15)
    w = log_ratio.exp().numpy()
    envelope = Envelope("budget", rate=rate)
    envelope.update(log_ratio)
    c = 1 / math.exp(envelope.log_M().item())
    # c of the sample by bisection.
    low, high = 0.0, 1e12
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(1, middle * w).mean() < rate else (low, middle)
    assert c == pytest.approx(high, rel=1e-6)
    discrete = Envelope("budget", rate=rate)
    discrete.update(torch.tensor([2.5, 0.5, 0.5, 0.5]).double().log())
    exact = rate if rate <= 0.4 else (4 * rate - 1) / 1.5
    assert 1 / discrete.log_M().exp().item() == pytest.approx(exact, abs=1e-6)


def test_a_confident_quantile_is_above_the_true_one_as_often_as_it_says():
    repetitions, rows, level, confidence = 4000, 300, 0.9, 0.9
    envelope = Envelope("quantile", level=level, confidence=confidence, groups=repetitions)
    log_ratio = np.random.default_rng(SEED + 16).normal(size=(repetitions, rows)) * 20
    ids = np.arange(repetitions)[:, None].repeat(rows, 1)
    envelope.update(log_ratio, ids)
    above = (envelope.log_M().numpy() >= 20 * stats.norm.ppf(level)).mean()
    # Ranks are whole: the confidence is at least what was asked, and not much more.
    assert confidence - 5 * math.sqrt(0.09 / repetitions) <= above <= confidence + 0.04


def test_leave_one_out_does_not_bias_a_small_batch():
    """M of the batch itself would bias p = 2x from U(0, 1) by 5 % at batch 4."""
    batches, size = 200_000, 4
    x = torch.from_numpy(np.random.default_rng(SEED + 17).random((batches, size)))
    log_ratio = (2 * x).log()
    ids = torch.arange(batches)[:, None].expand(batches, size)
    envelope = Envelope("leave_one_out", groups=batches)
    log_M = envelope.log_M(ids, log_ratio=log_ratio)
    others = torch.stack([log_ratio.roll(i, 1) for i in range(1, size)]).amax(0)
    assert torch.equal(log_M, others)
    # A row's M is independent of the row: its mean chance of acceptance depends on x alone.
    low = x < 0.25
    chance = (log_ratio - log_M).clamp(max=0).exp()
    expected = np.mean([np.minimum(1, t / u) for t, u in [_pair(SEED)]])
    assert chance[low].mean().item() == pytest.approx(expected, rel=0.02)


def _pair(seed):
    generator = np.random.default_rng(seed + 18)
    return generator.random(1_000_000) / 4, generator.random((1_000_000, 3)).max(1)


def drift(rows, batch, seed, factor=10.0):
    """Batches of log ratios whose scale moves by a factor over the rows."""
    generator = np.random.default_rng(seed)
    scale = np.linspace(0.0, math.log(factor), rows)
    # Bounded ratios, of which many are near the top.
    log_ratio = np.log(generator.random(rows)) + scale
    return log_ratio.reshape(-1, batch), scale.reshape(-1, batch)


@pytest.mark.parametrize("direction", [1.0, -1.0], ids=["up", "down"])
def test_decayed_follows_a_drift_within_two_half_lives(direction):
    half_life = 2000
    batches, tops = drift(100_000, 100, SEED + 19, 10.0**direction)
    envelope = Envelope("decayed", half_life=half_life)
    for step, batch in enumerate(batches):
        envelope.update(batch)
        if step * 100 < 2 * half_life:
            continue
        recent = tops.reshape(-1)[max(0, step * 100 - 2 * half_life) : (step + 1) * 100]
        # Within what the top was over two half-lives, but for what a maximum decays between draws.
        assert recent.min() - 0.1 <= envelope.log_M().item() <= recent.max()


def test_decayed_recovers_from_an_outlier():
    envelope = Envelope("decayed", half_life=100)
    ordinary = torch.full((100,), 0.0)
    envelope.update(torch.tensor([math.log(1024.0)]))
    for _ in range(11):
        envelope.update(ordinary)
    assert envelope.log_M().item() == 0.0


@pytest.mark.parametrize("direction", [1.0, -1.0], ids=["up", "down"])
@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_budget_holds_its_rate_in_a_drift(direction, rate):
    batches, _ = drift(100_000, 1000, SEED + 20, 10.0**direction)
    envelope = Envelope("budget", rate=rate, half_life=2000)
    envelope.update(drift(1000, 1000, SEED + 21, 1.0)[0])
    for batch in batches:
        accepted = np.minimum(1.0, np.exp(batch - envelope.log_M().item())).mean()
        assert accepted == pytest.approx(rate, rel=0.1)
        envelope.update(batch)
