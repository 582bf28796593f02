"""What ``rejection_sample`` draws: rates, waiting times and laws against exact references.

Every interval fails by chance with probability 5e-8 or, of 5σ, 6e-7.
"""

import functools
import math
import os

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import (
    Beta,
    Categorical,
    Cauchy,
    Geometric,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    Poisson,
    StudentT,
    Uniform,
)

from rskernels import Envelope, rejection_sample
from rskernels.envelope import EnvelopeViolation

SEED = int(os.environ.get("RSKERNELS_TEST_SEED", "0"))

# T4: proposals used up to the 100,000th acceptance at M = 4.
WAITED = 100_000
PROPOSALS_RANGE = (394_062, 406_005)
# T5: distance of the distribution function of 10**6 draws, for each of five laws, and for n draws.
DRAWS = 1_000_000
DISTANCE_LIMIT = 0.0030912
# T8: heavy cells among the first 10**6 accepted.
HEAVY_RANGE = (568_730, 574_126)

# name: (target, proposal, M, acceptance, the target's law)
REFERENCES = {
    "beta-uniform": (Beta(2.7, 6.3), Uniform(0.0, 1.0), 2.669744, 0.374568, stats.beta(2.7, 6.3)),
    "beta-beta": (Beta(2.7, 6.3), Beta(2.0, 6.0), 1.671808, 0.598155, stats.beta(2.7, 6.3)),
    "normal-cauchy": (
        Normal(0.0, 1.0),
        Cauchy(0.0, 1.0),
        math.sqrt(2 * math.pi / math.e),
        0.657745,
        stats.norm(),
    ),
    "normal-laplace": (
        Normal(0.0, 1.0),
        Laplace(0.0, 1.0),
        math.sqrt(2 * math.e / math.pi),
        0.760173,
        stats.norm(),
    ),
}


def distance(draws, law):
    """Return the Kolmogorov-Smirnov distance of draws [n] from a law."""
    below = law.cdf(np.sort(draws.double().numpy()))
    steps = np.arange(len(below) + 1) / len(below)
    return max((steps[1:] - below).max(), (below - steps[:-1]).max())


def limit(n):
    return DISTANCE_LIMIT * math.sqrt(DRAWS / n)


def within(share, expected, rows):
    return abs(share - expected) <= 5 * math.sqrt(expected * (1 - expected) / rows)


@functools.cache
def draw_reference(name):
    target, proposal, M, *_ = REFERENCES[name]
    return rejection_sample(target, proposal, DRAWS, log_M=math.log(M), seed=SEED + 21)


@pytest.mark.parametrize("name", REFERENCES)
def test_acceptance(name):
    result = draw_reference(name)
    # M and the densities are rounded to float32, so that a few ratios are above it by that.
    assert result.report.log_M == pytest.approx(math.log(REFERENCES[name][2]), abs=1e-6)
    assert within(DRAWS / result.proposals, REFERENCES[name][3], result.proposals)


@pytest.mark.parametrize("name", REFERENCES)
def test_t4_waiting_time(name):
    # Sensitive to uniforms that repeat from batch to batch and to acceptances lost between them.
    target, proposal, *_ = REFERENCES[name]
    result = rejection_sample(target, proposal, WAITED, log_M=math.log(4.0), seed=SEED + 22)
    assert PROPOSALS_RANGE[0] <= result.proposals <= PROPOSALS_RANGE[1]
    assert result.report.violations == 0


@pytest.mark.parametrize("name", REFERENCES)
def test_t5_law(name):
    assert distance(draw_reference(name).samples, REFERENCES[name][4]) <= DISTANCE_LIMIT


@pytest.mark.parametrize("policy", ["max", "tail", "decayed"])
def test_a_learnt_M_gives_the_law_too(policy):
    target, proposal, M, acceptance, law = REFERENCES["beta-uniform"]
    options = {"half_life": 1e5} if policy == "decayed" else {}
    envelope = Envelope(policy, on_violation="thin", **options)
    result = rejection_sample(target, proposal, 200_000, log_M=envelope, seed=SEED + 23)
    assert math.exp(result.report.log_M) == pytest.approx(M, rel=2e-3)
    assert result.acceptance_rate == pytest.approx(acceptance, rel=0.02)
    assert distance(result.samples, law) <= limit(200_000)


# T8: w is 2.5 on 16 of 64 equal cells and 0.5 on 48, M = 2.
CELLS = Categorical(torch.ones(64))
LOG_P = torch.where(torch.arange(64) < 16, 2.5, 0.5).log() - math.log(64)


def draw_cells(reaction, **options):
    options = {"log_M": math.log(2.0), "on_violation": reaction, "seed": SEED + 24, **options}
    result = rejection_sample(lambda cell: LOG_P[cell], CELLS, DRAWS, **options)
    return result, (result.samples < 16).double()


def test_t8_cap_is_biased_and_says_so():
    result, heavy = draw_cells("cap")
    assert HEAVY_RANGE[0] <= heavy.sum() <= HEAVY_RANGE[1]
    assert within(DRAWS / result.proposals, 7 / 16, result.proposals)
    assert within(result.report.violations / result.proposals, 1 / 4, result.proposals)
    assert result.report.delta == pytest.approx(1 / 8, rel=0.01)
    assert not within(heavy.mean().item(), 0.625, DRAWS)


@pytest.mark.parametrize("options", [{}, {"log_M": Envelope("fixed", M=2.0, on_violation="thin")}])
def test_t8_thin_removes_the_bias(options):
    result, heavy = draw_cells(None if options else "thin", **options)
    assert within(heavy.mean().item(), 0.625, DRAWS)
    assert math.exp(result.report.log_M) == pytest.approx(2.5)
    assert within(DRAWS / result.proposals, 1 / 2.5, result.proposals)
    assert result.report.delta == 0.0
    assert within(result.report.violations / result.proposals, 1 / 4, result.proposals)


def test_t8_control_weights_remove_the_bias():
    result, heavy = draw_cells("control")
    assert HEAVY_RANGE[0] <= heavy.sum() <= HEAVY_RANGE[1]
    w = result.log_weights.double().exp()
    assert w.unique().numpy() == pytest.approx([1.0, 1.25])
    share = (w * heavy).sum() / w.sum()
    sigma = (w * (heavy - 0.625)).square().sum().sqrt() / w.sum()
    assert abs(share - 0.625) <= 5 * sigma
    assert sigma < 0.0006
    assert result.report.delta == 0.0


def test_t8_raise():
    with pytest.raises(EnvelopeViolation, match=r"log ratio 0.91629\d+, above log M = 0.693147181"):
        draw_cells("raise")


@pytest.mark.parametrize("reaction", ["thin", "cap", "control"])
def test_a_pilot_too_small_is_made_up_for(reaction):
    # One pilot draw: M rises from an ordinary ratio to the largest.
    target, proposal, M, _, law = REFERENCES["beta-uniform"]
    n = 100_000
    envelope = Envelope(on_violation=reaction)
    result = rejection_sample(target, proposal, n, log_M=envelope, pilot=1, seed=SEED + 26)
    assert math.exp(result.report.log_M) == pytest.approx(M, rel=1e-3)
    weights = result.log_weights.exp()
    draws = result.samples
    if reaction == "control":
        draws = draws[torch.multinomial(weights, n, replacement=True)]
    # Too few were accepted by a small M to be seen; drawing by weight doubles the variance.
    assert distance(draws, law) <= (1.5 if reaction == "control" else 1.0) * limit(n)


def test_counts_from_counts():
    # Geometric(p) counts failures: its tail is heavier than Poisson's.
    n, target = 400_000, Poisson(3.0)
    result = rejection_sample(target, Geometric(0.2), n, seed=SEED + 27)
    seen = result.samples.long().bincount(minlength=15)[:15].double().numpy()
    expected = stats.poisson(3.0).pmf(np.arange(14))
    expected = np.append(expected, 1 - expected.sum()) * n
    seen[14] = n - seen[:14].sum()
    assert ((seen - expected) ** 2 / expected).sum() <= stats.chi2(14).isf(5e-8)


def test_a_correlated_normal_from_a_wide_one():
    n = 100_000
    covariance = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 1.0]])
    target = MultivariateNormal(torch.tensor([0.5, 0.0, -0.5]), covariance)
    proposal = Independent(StudentT(torch.full((3,), 5.0), target.mean, 1.5), 1)
    result = rejection_sample(target, proposal, n, seed=SEED + 28)
    for axis in range(3):
        assert distance(result.samples[:, axis], stats.norm(target.mean[axis])) <= limit(n)
    # Along (1, 1, 1)/√3 the correlations show.
    along = result.samples.sum(-1)
    assert distance(along, stats.norm(0.0, covariance.sum().sqrt())) <= limit(n)


def test_matrices():
    n = 50_000
    scale = 1.0 + torch.arange(6.0).view(2, 3) / 10
    target = Independent(Normal(torch.zeros(2, 3), scale), 2)
    result = rejection_sample(target, Independent(Normal(scale * 0, scale * 1.3), 2), n, seed=SEED)
    for i in range(2):
        for j in range(3):
            assert distance(result.samples[:, i, j], stats.norm(0, scale[i, j])) <= limit(n)


def test_draws_are_independent_of_their_neighbours():
    draws = draw_reference("normal-laplace").samples.double()
    for lag in (1, 2, 64, 1 << 14, 1 << 17):
        one, other = draws[lag:], draws[:-lag]
        assert abs((one * other).mean()) <= 5 / math.sqrt(len(one))
        assert abs(((one**2 - 1) * (other**2 - 1)).mean() / 2) <= 5 / math.sqrt(len(one))
