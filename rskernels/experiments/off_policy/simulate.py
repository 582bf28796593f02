"""Estimators on batches of drawn rollouts, by the library's own calls."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rskernels.envelope import Envelope
from rskernels.experiments.off_policy.estimators import (
    Estimator,
    Rollouts,
    groups_of,
)
from rskernels.experiments.off_policy.exact import Laws, Moments
from rskernels.experiments.off_policy.policy import LENGTH, gradient

CHUNK = 512
"""Batches at a time, for the memory."""


class Simulation(NamedTuple):
    """What came of R batches."""

    moments: Moments
    along: float
    """The mean of ⟨estimate, true⟩/‖true‖², 1 without bias."""
    along_error: float
    """Its standard error."""
    reward_error: float
    """The standard error of the mean estimate of the reward."""
    log_M: Tensor
    """Of each batch, NaN without; ``[R]``. Empty without an envelope."""


def simulate(
    estimator: Estimator, laws: Laws, *, n: int, batches: int, pilot: int, seed: int
) -> Simulation:
    """Draw batches of n rollouts and estimate from each.

    An estimator with an envelope has one for each batch, which has seen ``pilot`` other rollouts.
    The rollouts of a seed are the same for every estimator.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = laws.q.cumsum(0)
    gradients, rewards, known = [], [], []
    kept = 0
    for start in range(0, batches, CHUNK):
        size = min(CHUNK, batches - start)
        drawn = _draw(steps, size * (n + pilot), generator).reshape(size, n + pilot)
        chosen, before = drawn[:, :n], drawn[:, n:]
        envelope = _envelope(estimator, laws, before)
        if envelope is not None:
            known.append(envelope.known_log_M().expand(size).clone())
        rollouts = Rollouts(
            laws.log_ratio[chosen], laws.advantage[chosen], seed * 1_000_003 + start, envelope
        )
        weights = estimator.weigh(rollouts)
        kept += int(weights.kept.sum())
        # Where nothing is kept the estimate is 0.
        total = torch.where(weights.total > 0, weights.total, 1.0)
        scaled = weights.token / total[:, None, None]
        gradients.append(
            gradient(laws.pair.new, laws.cells[chosen], scaled * laws.advantage[chosen][..., None])
        )
        rewards.append((scaled.mean(-1) * laws.pair.reward[chosen]).sum(1))
    return _summary(laws, torch.cat(gradients), torch.cat(rewards), known, kept / (batches * n))


def _summary(
    laws: Laws, gradients: Tensor, rewards: Tensor, known: list[Tensor], kept: float
) -> Simulation:
    along = gradients @ laws.gradient / laws.gradient.square().sum()
    root = math.sqrt(len(along))
    moments = Moments(
        gradients.mean(0),
        float(gradients.var(0).sum()),
        float(rewards.mean()),
        float(rewards.var()),
        kept / LENGTH,
    )
    log_M = torch.cat(known) if known else torch.empty(0, dtype=torch.float64)
    errors = float(along.std()) / root, float(rewards.std()) / root
    return Simulation(moments, float(along.mean()), *errors, log_M)


def _envelope(estimator: Estimator, laws: Laws, pilot: Tensor) -> Envelope | None:
    """Return an envelope that has seen the pilot's rollouts ``[R, pilot]``."""
    if estimator.policy is None:
        return None
    groups, reaction = len(pilot), estimator.on_violation
    if estimator.policy == "true":
        # Rounded up, so that the largest is no violation.
        return Envelope("fixed", M=float(laws.w.max()) * (1.0 + 1e-12), groups=groups)
    envelope = Envelope.parse(estimator.policy, groups=groups, on_violation=reaction)
    ratios = laws.log_ratio[pilot]
    envelope.update(ratios.sum(-1).flatten(), groups_of(ratios))
    return envelope


def _draw(steps: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw the numbers of sequences, given the sums of their probabilities."""
    u = torch.rand(count, generator=generator, dtype=torch.float64) * steps[-1]
    return torch.searchsorted(steps, u, right=True).clamp(max=len(steps) - 1)
