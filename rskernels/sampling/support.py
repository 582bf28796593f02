"""The log density of a ``torch.distributions`` object, -inf outside of its support.

Without ``validate_args`` many log_prob give a finite number there, with it they raise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    TransformedDistribution,
    constraints,
)
from torch.distributions.constraints import Constraint

Check = Callable[[Tensor], Tensor]


def density(distribution: Distribution) -> Callable[[Tensor], Tensor]:
    """Return the log density of a distribution without batch shape, ``[n, *event]`` to ``[n]``.

    NaN for draws that hold a NaN. The distribution's ``validate_args`` changes nothing. One whose
    support torch does not know is taken to be right everywhere.
    """
    distribution = _unvalidated(distribution)
    log_prob = _mixture(distribution) or distribution.log_prob
    check = _check(distribution)
    if check is None:
        return log_prob

    def log_density(x: Tensor) -> Tensor:
        inside = check(x)
        if inside.all():
            return log_prob(x)
        # What lies outside may be no index, or otherwise nothing to compute with.
        rows = inside.nonzero()[:, 0]
        values = log_prob(x[rows])
        result = values.new_full((len(x),), -math.inf)
        is_nan = (x != x).flatten(1).any(1) if x.dim() > 1 else x != x
        result[is_nan] = math.nan
        return result.index_copy(0, rows, values)

    return log_density


def _unvalidated(distribution: Distribution) -> Distribution:
    """Return a copy that checks no values, and neither do the distributions it is made of."""
    result = copy.copy(distribution)
    for name, value in vars(distribution).items():
        if isinstance(value, Distribution):
            vars(result)[name] = _unvalidated(value)
    vars(result)["_validate_args"] = False
    return result


def _mixture(distribution: Distribution) -> Callable[[Tensor], Tensor] | None:
    """Return the log density of a mixture whose components may have supports of their own."""
    if type(distribution) is not MixtureSameFamily:
        return None
    components = distribution.component_distribution
    check = _check(components)
    if check is None:
        return None
    shares = distribution.mixture_distribution.logits.log_softmax(-1)
    axis = -1 - len(distribution.event_shape)

    def log_prob(x: Tensor) -> Tensor:  # [n, *event]
        x = x.unsqueeze(axis)
        values = components.log_prob(x)  # [n, k]
        return (values.where(check(x), -math.inf) + shares).logsumexp(-1)

    return log_prob


def _check(distribution: Distribution) -> Check | None:
    """Return what says of each value whether it is in the support; None where all are."""
    if type(distribution) is MixtureSameFamily:
        # torch's own asks that a value be in the support of every component.
        inner = _check(distribution.component_distribution)
        axis = -1 - len(distribution.event_shape)
        return None if inner is None else _in_any(inner, axis)
    if type(distribution) is Independent:
        inner = _check(distribution.base_dist)
        return None if inner is None else _over(inner, distribution.reinterpreted_batch_ndims)
    if type(distribution) is TransformedDistribution and distribution.transforms:
        return _check_transformed(distribution)
    try:
        support = distribution.support
    except NotImplementedError:
        return None
    return None if support is None else _check_constraint(support)


def _check_transformed(distribution: TransformedDistribution) -> Check | None:
    """Check the value and what it is transformed from: the codomain knows no parameters."""
    checks = [_check_constraint(transform.codomain) for transform in distribution.transforms]
    base = _check(distribution.base_dist)
    if base is not None:
        own = len(distribution.event_shape) - len(distribution.base_dist.event_shape)
        base = _over(base, max(own, 0)) if own > 0 else base
    if base is None and not any(checks):
        return None
    event = len(distribution.event_shape)

    def check(x: Tensor) -> Tensor:
        leading = x.shape[: x.dim() - event]
        results = []
        for transform, inside in zip(
            reversed(distribution.transforms), reversed(checks), strict=True
        ):
            if inside is not None:
                results.append(inside(x))
            x = transform.inv(x)
        if base is not None:
            results.append(base(x))
        flat = [r.reshape(*leading, -1).all(-1) for r in results]
        return reduce(torch.logical_and, flat)

    return check


def _check_constraint(constraint: Constraint) -> Check | None:
    if constraint is constraints.real or constraint is constraints.real_vector:
        return None
    if constraints.is_dependent(constraint):
        return None
    if isinstance(constraint, constraints.independent):
        inner = _check_constraint(constraint.base_constraint)
        return None if inner is None else _over(inner, constraint.reinterpreted_batch_ndims)
    if constraint is constraints.simplex:
        return _is_on_simplex
    if isinstance(constraint, constraints.multinomial):
        # torch's own lets fewer than all through.
        total = constraint.upper_bound
        return lambda x: constraint.check(x) & (x == x.floor()).all(-1) & (x.sum(-1) == total)
    return constraint.check


def _in_any(check: Check, axis: int) -> Check:
    """Return whether a value passes the check of any component."""
    return lambda x: check(x.unsqueeze(axis)).any(-1)


def _over(check: Check, dimensions: int) -> Check:
    """Return whether all values of the last dimensions pass a check."""
    if dimensions == 0:
        return check
    return lambda x: (inside := check(x)).reshape(*inside.shape[:-dimensions], -1).all(-1)


def _is_on_simplex(x: Tensor) -> Tensor:
    # torch allows 1e-6 however many numbers have been rounded.
    rounding = max(1e-6, torch.finfo(x.dtype).eps * x.shape[-1]) if x.is_floating_point() else 0.0
    return (x >= 0).all(-1) & ((x.sum(-1) - 1).abs() <= rounding)
