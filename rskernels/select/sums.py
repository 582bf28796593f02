"""Sums over rows, of each group and of all: counts, acceptance, bias, divergence, sample size."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Sums(NamedTuple):
    """Sums of each group, float64 ``[G]``; NaN of a group in which no row has a weight."""

    expected_acceptance: Tensor
    """Mean of min(1, w/M)."""
    delta: Tensor
    """Excess mass: sum of (w/M - 1)+ over sum of w/M."""
    kl: Tensor
    """KL of the tilted law from that of the rows: E*[log w] - log E[w], nats; E* is tilted."""
    ess: Tensor
    """Effective sample size of importance weights, (sum w)^2 / sum w^2, in rows."""


def sums_of(log_ratio: Tensor, group: Tensor, groups: int) -> Sums:
    """Return sums over the rows of each group.

    Parameters
    ----------
    log_ratio : Tensor
        float64 ``[N]``, log w - log M; rows of NaN are left out.
    group : Tensor
        int64 ``[N]``, in ``[0, groups)``.
    groups : int
        G.
    """
    has = ~log_ratio.isnan()
    count = added(has.double(), group, groups)
    ratio = torch.where(has, log_ratio, -math.inf)
    # Relative to the largest of its group, so that no sum overflows and none is 0 by underflow.
    top = largest(ratio, group, groups)
    shift = torch.where(top > -math.inf, top, 0.0)
    relative = ratio - shift[group]
    w = relative.exp()
    total, squares = added(w, group, groups), added(w * w, group, groups)
    tilted_mean = added(torch.where(w > 0.0, w * relative, 0.0), group, groups) / total
    kl = tilted_mean - (total / count).log()
    accepted = added(ratio.clamp(max=0.0).exp(), group, groups) / count
    # (w/M - 1)+ in the same units: w - exp(-shift), where there is a violation.
    over = torch.where(ratio > 0.0, w * -torch.expm1(-ratio), 0.0)
    excess = added(over, group, groups) / total
    return Sums(accepted, excess, kl.clamp(min=0.0), total.square() / squares)


def added(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return the sum of values ``[N]`` over each group, ``[groups]``."""
    return torch.zeros(groups, dtype=values.dtype, device=values.device).index_add_(
        0, group, values
    )


def largest(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return the largest of values ``[N]`` in each group, ``[groups]``; -inf of none."""
    lowest = torch.full((groups,), -math.inf, dtype=values.dtype, device=values.device)
    return lowest.scatter_reduce(0, group, values, "amax")


def weighted_mean(values: Tensor, weights: Tensor) -> float:
    """Return the mean of values ``[G]``, without those that are NaN; NaN of none."""
    has = ~values.isnan()
    total = weights.double()[has].sum()
    return float((values[has] * weights.double()[has]).sum() / total) if total > 0 else math.nan
