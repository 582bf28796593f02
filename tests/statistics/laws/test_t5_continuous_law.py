"""T5: accepted draws of a continuous proposal have the target's distribution function."""

import functools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from ..intervals import assert_inside, distance, waiting

LAWS = {
    # name: (target, proposal, M)
    "beta-uniform": (stats.beta(2.7, 6.3), stats.uniform(), 2.669744),
    "beta-beta": (stats.beta(2.7, 6.3), stats.beta(2, 6), 1.671808),
    "normal-cauchy": (stats.norm(), stats.cauchy(), math.sqrt(2 * math.pi / math.e)),
    "normal-laplace": (stats.norm(), stats.laplace(), math.sqrt(2 * math.e / math.pi)),
    "halved-acceptance": (stats.beta(2.7, 6.3), stats.uniform(), 2 * 2.669744),
}


@functools.cache
def propose(name, requested, seed):
    """Return enough draws of the proposal for ``requested`` acceptances, and their log ratios."""
    target, proposal, M = LAWS[name]
    rows = waiting(requested, 1 / M)[1]
    x = proposal.rvs(rows, random_state=np.random.default_rng(seed))
    return x, torch.from_numpy(target.logpdf(x) - proposal.logpdf(x))


def distance_from(law, draws):
    """Return the Kolmogorov-Smirnov distance of draws from a law."""
    return float(stats.ks_1samp(draws, law.cdf, method="asymp").statistic)


def check_law(subject, seed, name="beta-uniform", requested=20_000):
    """Sensitive to the shape of the accepted law, wherever the error lies."""
    target, _, M = LAWS[name]
    x, log_ratio = propose(name, requested, seed)
    accepted = x[subject.bernoulli(log_ratio, M, seed=seed).numpy()][:requested]
    assert len(accepted) == requested, f"T5: {len(accepted)} accepted of {len(x)} proposed"
    limit = distance(requested, tests=len(LAWS))
    assert_inside("T5", distance_from(target, accepted), (0.0, limit))


@pytest.mark.parametrize("name", LAWS)
def test_t5_continuous_law(subject, size, seed, name):
    requested = size(1_000_000, reference=50_000, interpreted=10_000)
    check_law(subject, seed, name, requested)
