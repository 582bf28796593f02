"""T9: an M from earlier ratios is exceeded once in n + 1, and does not bias what is accepted."""

import math

import numpy as np
import pytest
import torch

import rskernels

from ..intervals import assert_inside, binomial, distance
from .test_t5_continuous_law import distance_from

PILOTS = 99
TESTS = 2  # the envelope and the estimate


def check_exceedances(exceeds, seed, replicates=200_000):
    """Sensitive to an M that has seen the ratio it is held against, or not all before it."""
    generator = np.random.default_rng(seed)
    # Of any continuous law; the last ratio of each replicate is the fresh one.
    ratios = torch.from_numpy(generator.standard_normal((replicates, PILOTS + 1)))
    exceeded = exceeds(ratios[:, :PILOTS], ratios[:, PILOTS])
    assert_inside("T9", exceeded, binomial(replicates, 1 / (PILOTS + 1), TESTS))


def envelope_exceeded(pilot, fresh):
    """Count the fresh log ratios that an Envelope of the pilots calls violations."""
    envelope = rskernels.Envelope("max", groups=len(fresh))
    ids = torch.arange(len(fresh))
    envelope.update(pilot, ids[:, None].expand_as(pilot))
    before = envelope.violations.sum()
    envelope.update(fresh, ids)
    return envelope.violations.sum() - before


def estimate_exceeded(pilot, fresh):
    """Count the fresh log ratios above the M that estimate_M takes from the pilots."""
    # One class: log q is 0 and log p is the log ratio.
    logits, targets = torch.zeros(PILOTS, 1), torch.zeros(PILOTS, dtype=torch.int64)
    log_M = [rskernels.estimate_M(logits, row, targets=targets, log_space=True) for row in pilot]
    return (fresh > torch.tensor(log_M, dtype=torch.float64)).sum()


def accept_by_pilot(subject, pilot, batch, seed):
    """Decide each batch, a row, by the M of its pilots; both are log ratios [batches, ...]."""
    envelope = rskernels.Envelope("max", groups=len(batch))
    ids = torch.arange(len(batch))
    envelope.update(pilot, ids[:, None].expand_as(pilot))
    log_M = envelope.log_M(ids)[:, None]
    return subject.bernoulli(batch, log_M, log_space=True, seed=seed)


class Square:
    """The law of density 2x on (0, 1)."""

    @staticmethod
    def cdf(x):
        return x**2


def check_law_of_batches(subject, seed, batches=20_000, *, of=4, accept=accept_by_pilot):
    """Sensitive to M taken from the batch that it decides: with q = U(0, 1), p = 2x, 5 % of TV.

    M of 99 pilots itself leaves a total variation of at most 2/(101 * 102).
    """
    x = torch.from_numpy(np.random.default_rng(seed).random((batches, PILOTS + of)))
    log_ratio = math.log(2.0) + x.log()
    mask = accept(subject, log_ratio[:, :PILOTS], log_ratio[:, PILOTS:], seed)
    accepted = x[:, PILOTS:][mask].numpy()
    limit = distance(len(accepted)) + 2 / ((PILOTS + 2) * (PILOTS + 3))
    assert_inside("T9", distance_from(Square, accepted), (0.0, limit))


@pytest.mark.parametrize(
    ("exceeds", "replicates"),
    [
        (envelope_exceeded, 200_000),
        (estimate_exceeded, 20_000),
        pytest.param(estimate_exceeded, 200_000, marks=pytest.mark.slow),
    ],
)
def test_t9_fresh_ratio(seed, exceeds, replicates):
    check_exceedances(exceeds, seed, replicates)


def test_t9_batches_decided_by_their_pilots(subject, size, seed):
    check_law_of_batches(subject, seed, size(50_000, reference=50_000, interpreted=20_000))
