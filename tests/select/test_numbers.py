"""The numbers that a selection tells, against enumeration and closed forms."""

import json
import math

import pytest
import torch

from rskernels import Envelope, uniforms
from rskernels.law.streams import Stream
from rskernels.select import tilt
from rskernels.select.forms import of_best
from rskernels.select.pilot import Standing

from . import pool

NAN, INF = math.nan, math.inf
# The rows are the base law itself, each answer as often as it is given.
WHOLE = torch.arange(pool.OUTPUTS).repeat_interleave(pool.COUNTS)


@pytest.mark.parametrize("form", ["verifier", "bounded", "quantile", "best_of", "learnt"])
def test_divergence_and_acceptance_by_enumeration(form):
    kept = pool.select(form, WHOLE, torch.arange(len(WHOLE)))
    law = pool.law_of(form)
    assert kept.overall["kl"] == pytest.approx(pool.divergence(law), rel=1e-12)
    assert kept.kl_is == ("of pilot" if form in ("quantile", "best_of") else "of rows")
    # Of a law that is accepted from the base law by w/M, w is law/base and M its size.
    w = (law / pool.BASE)[WHOLE]
    log_M = (w.log() - kept.log_ratio).mean()
    torch.testing.assert_close(kept.log_ratio, w.log() - log_M, rtol=0, atol=1e-12)
    assert kept.overall["expected_acceptance"] == pytest.approx(math.exp(-log_M), rel=1e-12)
    assert kept.overall["ess"] == pytest.approx((w.sum() ** 2 / (w * w).sum()).item(), rel=1e-12)
    assert kept.overall["delta"] == 0.0
    u = uniforms(len(WHOLE), seed=5, stream=Stream.SELECT)
    assert torch.equal(kept.mask, kept.log_ratio >= u.log())


@pytest.mark.parametrize("right", [1, 3, 9])
@pytest.mark.parametrize("beta", [0.0, 0.2, 1.0])
def test_a_verifier_in_closed_form(beta, right):
    p, rewards = right / 10, [1] * right + [0] * (10 - right)
    kept = tilt(rewards, beta, form="verifier", seed=0).overall
    wrong = math.exp(-1 / beta) if beta else 0.0
    acceptance = p + (1 - p) * wrong
    tilted = p / acceptance
    lost = (1 - tilted) / beta if beta else 0.0
    assert kept["expected_acceptance"] == pytest.approx(acceptance, rel=1e-12)
    assert kept["kl"] == pytest.approx(-math.log(acceptance) - lost, rel=1e-12)
    assert kept["right"] == right


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_divergence_of_few_rows_is_that_of_the_rows_and_not_of_the_policy(beta):
    generator = torch.Generator().manual_seed(0)
    rewards = (torch.rand(40_000, generator=generator) < 0.3).double()
    kept = tilt(rewards, beta, form="verifier", groups=torch.arange(40_000) // 4, seed=0)
    wrong = math.exp(-1 / beta) if beta else 0.0

    def divergence(p):
        acceptance = p + (1 - p) * wrong
        return -math.log(acceptance) - ((1 - p / acceptance) / beta if beta else 0.0)

    rights = range(0 if beta else 1, 5)
    chances = [math.comb(4, right) * 0.3**right * 0.7 ** (4 - right) for right in rights]
    each = [divergence(right / 4) for right in rights]
    mean = sum(c * d for c, d in zip(chances, each, strict=True)) / sum(chances)
    assert kept.overall["kl"] == pytest.approx(mean, abs=0.02)
    assert kept.kl_is == "of rows"
    assert mean < divergence(0.3) - 0.08  # what a policy that is right at 3 in 10 has


def test_star_keeps_the_right_answers_and_counts_prompts_without_one():
    rewards = [1.0, 0.0, NAN, 0.0, 0.0, 2.0, 1.0, 1.0]
    kept = tilt(rewards, 0, form="verifier", groups=[9, 9, 9, -4, -4, -4, 30, 30], seed=3)
    assert kept.mask.tolist() == [True, *[False] * 5, True, True]
    assert kept.group_ids.tolist() == [-4, 9, 30]
    assert kept.groups["seen"].tolist() == [3, 3, 2]
    assert kept.groups["invalid"].tolist() == [1, 1, 0]
    assert kept.groups["right"].tolist() == [0, 1, 2]
    assert kept.groups["acceptance"].tolist() == [0.0, 0.5, 1.0]
    assert kept.groups["kl"].isnan().tolist() == [True, False, False]
    torch.testing.assert_close(kept.groups["kl"][1:], torch.tensor([math.log(2), 0.0]).double())
    assert kept.overall["groups_without_right"] == kept.overall["groups_without_accepted"] == 1
    assert kept.overall["kl"] == pytest.approx(math.log(2) / 2)
    assert kept.is_exact
    record = json.loads(json.dumps(kept.to_dict()))
    assert record["groups"]["kl"][0] is None
    assert "groups" not in kept.to_dict(groups=False)


@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0])
def test_a_quantile_has_the_same_acceptance_for_every_prompt(beta):
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(3).repeat_interleave(4000)
    rewards = torch.randn(12_000, generator=generator).exp() * 10.0**groups - groups
    kept = tilt(
        rewards, beta, form="quantile", groups=groups, pilot=rewards, pilot_groups=groups, seed=0
    )
    want = beta * -math.expm1(-1 / beta)
    assert (kept.groups["expected_acceptance"] - want).abs().max() < 1e-3 * want


def test_mid_ranks_of_a_pilot():
    rewards = [-INF, 0.0, 1.0, 1.5, 2.0, 5.0, NAN, INF]
    kept = tilt(rewards, 1.0, form="quantile", pilot=[2.0, 1.0, 1.0, 0.0], seed=0)
    assert (1.0 + kept.log_ratio[:6]).tolist() == [0.0, 0.125, 0.5, 0.75, 0.875, 1.0]
    assert kept.log_ratio[6:].isnan().all()
    assert kept.overall["invalid"] == 2


@pytest.mark.parametrize("n", [1, 2, 5, 64])
def test_the_best_of_n(n):
    pilot = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    kept = tilt(pilot, form="best_of", n=n, pilot=pilot, seed=0).overall
    bound = math.log(n) - (n - 1) / n
    assert kept["expected_acceptance"] == pytest.approx(1 / n)
    assert kept["kl_bound"] == bound
    assert kept["kl"] == pytest.approx(bound, rel=1e-3, abs=1e-12)
    # With a verifier the bound is far too large.
    p = 0.3
    verdicts = torch.tensor([1.0] * 3 + [0.0] * 7)
    of_verifier = tilt(verdicts, form="best_of", n=n, pilot=verdicts, seed=0).overall
    best = 1 - (1 - p) ** n
    want = best * math.log(best / p)
    want += (1 - best) * math.log((1 - best) / (1 - p)) if best < 1 else 0.0
    assert of_verifier["kl"] == pytest.approx(want, abs=1e-12)
    assert n < 64 or of_verifier["kl"] < bound / 2


def test_ties_of_the_best_of_n():
    a = torch.tensor([0.0, 0.0, 0.25, 0.5, 1 - 1e-12, 0.0, 1.0], dtype=torch.float64)
    b = torch.tensor([0.5, 1.0, 0.25, 0.75, 1.0, 0.0, 1.0], dtype=torch.float64)
    want = [0.5**3 / 4, 1 / 4, 0.25**3, (0.75**4 - 0.5**4) / 4 / 0.25, 1.0, 0.0, 1.0]
    got = of_best(Standing(a, b), 4).exp()
    torch.testing.assert_close(got, torch.tensor(want).double(), rtol=1e-11, atol=0)
    assert of_best(Standing(a, b), 1).tolist() == [0.0] * 7


def test_violations_of_a_bound_and_their_weights():
    rewards = torch.tensor([0.0, 1.0, 2.0, NAN, INF, -INF])
    kept = tilt(rewards, 1.0, form="bounded", bound=1.0, control=True, seed=0)
    w = torch.tensor([math.exp(-1), 1.0, math.e]).double()
    assert kept.overall["violations"] == 1
    assert kept.overall["invalid"] == 2
    assert kept.overall["delta"] == pytest.approx(((w - 1).clamp(min=0).sum() / w.sum()).item())
    assert (kept.M_is, kept.delta_is, kept.is_exact) == ("given", "bound", False)
    assert kept.mask[1:].tolist() == [True, True, False, False, False]
    torch.testing.assert_close(kept.log_weights[1:3], torch.tensor([0.0, 1.0]).double())
    plain = tilt(rewards, 1.0, form="bounded", bound=1.0, seed=0)
    assert torch.equal(plain.mask, kept.mask)
    assert plain.log_weights[1:3].tolist() == [0.0, 0.0]
    # In the mean over draws the weights put right what a bound that is too small gets wrong.
    rows, generator = torch.tensor([0.0, 2.0]).repeat(100_000), torch.Generator().manual_seed(1)
    ids = torch.randperm(len(rows), generator=generator)
    seen = tilt(rows, 1.0, form="bounded", bound=1.0, control=True, ids=ids, seed=0)
    share = seen.log_weights[rows == 2.0].exp().sum() / seen.log_weights.exp().sum()
    assert share.item() == pytest.approx(math.exp(2) / (1 + math.exp(2)), abs=5e-3)


def test_an_envelope_with_a_group_a_prompt():
    envelope = Envelope("max", groups=3)
    envelope.update(torch.tensor([1.0, 3.0]) / 0.5, torch.tensor([0, 1]))
    before = envelope.report().to_dict()
    rewards, groups = torch.tensor([1.0, 1.5, 3.0, 0.0]), torch.tensor([0, 0, 1, 2])
    kept = tilt(rewards, 0.5, form="learnt", envelope=envelope, groups=groups, seed=0)
    assert kept.log_ratio[:3].tolist() == [0.0, 1.0, 0.0]
    assert kept.mask.tolist() == [True, True, True, False]
    assert kept.groups["violations"].tolist() == [1, 0, 0]
    assert kept.groups["unknown"].tolist() == [0, 0, 1]
    assert (kept.M_is, kept.delta_is, kept.kl_is) == ("learnt", "estimate", "of rows")
    # It learns nothing from the rows that it decides.
    assert envelope.report().to_dict() == before
    fixed = tilt(rewards, 0.5, form="learnt", envelope=Envelope("fixed", M=2.0), seed=0)
    assert (fixed.M_is, fixed.delta_is) == ("given", "bound")


def test_a_prompt_without_a_pilot():
    kept = tilt(
        [1.0, 1.0], 1.0, form="quantile", groups=[3, 4], pilot=[0.0], pilot_groups=[4], seed=0
    )
    assert kept.groups["unknown"].tolist() == [1, 0]
    assert kept.mask.tolist() == [False, True]
    assert kept.groups["kl"].isnan().tolist() == [True, False]


def test_sums_of_far_away_ratios_are_finite():
    rewards = torch.tensor([-1e6, -1e6 + 1, 1e6, 1e6 - 1])
    kept = tilt(rewards, 1.0, form="bounded", bound=0.0, groups=[0, 0, 1, 1], seed=0)
    p = torch.tensor([1.0, math.e]).double() / (1 + math.e)
    kl = (p * (2 * p).log()).sum().expand(2)
    torch.testing.assert_close(kept.groups["kl"], kl, rtol=1e-6, atol=0)
    assert kept.groups["delta"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("form", ["verifier", "quantile"])
def test_no_rows(form):
    options = {"pilot": [1.0]} if form == "quantile" else {}
    kept = tilt([], 1.0, form=form, seed=0, **options)
    assert kept.mask.shape == (0,)
    assert kept.overall["seen"] == kept.overall["groups"] == 0
    assert math.isnan(kept.overall["kl"])
