"""The log density of a ``torch.distributions`` object, -inf outside of its support.

Without ``validate_args`` many log_prob give a finite number there, with it they raise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, TypeGuard, TypeVar

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
from torch.distributions.transforms import ComposeTransform, Transform

D = TypeVar("D", bound=Distribution)

Check = Callable[[Tensor], Tensor]


def density(distribution: Distribution) -> Callable[[Tensor], Tensor]:
    """Return the log density of a distribution without batch shape, ``[n, *event]`` to ``[n]``.

    NaN for draws that hold a NaN. The distribution's ``validate_args`` changes nothing. One whose
    support torch does not know is taken to be right everywhere, but what it is made of is not.
    """
    distribution = _guarded(distribution)
    log_prob = distribution.log_prob
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
        result[_has_nan(x, 1)] = math.nan
        return result.index_copy(0, rows, values)

    return log_density


def _guarded(distribution: Distribution) -> Distribution:
    """Return a copy that checks no values, and whose parts are -inf outside of their supports."""
    result = copy.copy(distribution)
    is_bounding = not _is_inside_of_parts(distribution)
    for name, value in vars(distribution).items():
        vars(result)[name] = _guarded_part(value, is_bounding)
    vars(result)["_validate_args"] = False
    return result


def _guarded_part(value: Any, is_bounding: bool) -> Any:
    """Return an attribute with the distributions in it guarded, and bounded where asked for."""
    if isinstance(value, Distribution):
        part = _guarded(value)
        if is_bounding:
            # Found before the method of its class.
            vars(part)["log_prob"] = _bounded(part)
        return part
    if type(value) in (list, tuple):
        return type(value)(_guarded_part(item, is_bounding) for item in value)
    if type(value) is dict:
        return {key: _guarded_part(item, is_bounding) for key, item in value.items()}
    return value


def _is_inside_of_parts(distribution: Distribution) -> bool:
    """Return whether what is in the support is in that of each part, as far as it is asked for."""
    if isinstance(distribution, MixtureSameFamily):
        return False
    if _keeps(distribution, Independent, "support", "log_prob"):
        return True
    if _keeps(distribution, TransformedDistribution, "support", "log_prob"):
        return True
    # torch's own say their support themselves; of a user's the parts may bound it.
    return type(distribution).__module__.startswith("torch.distributions.")


def _bounded(part: Distribution) -> Callable[[Tensor], Tensor]:
    """Return the log density of a part, which may have a batch shape."""
    log_prob, check, event = part.log_prob, _check(part), len(part.event_shape)
    if check is None:
        return log_prob

    def log_density(x: Tensor) -> Tensor:
        inside, values = check(x), log_prob(x)
        if inside.all():
            return values
        outside = torch.where(_has_nan(x, x.dim() - event), math.nan, -math.inf)
        return values.where(inside, outside.to(values))

    return log_density


def _keeps(distribution: Distribution, kind: type[D], *names: str) -> TypeGuard[D]:
    """Return whether a distribution is of a kind, of which its class overrides none of these."""
    own = type(distribution)
    return issubclass(own, kind) and all(getattr(own, n) is getattr(kind, n) for n in names)


def _check(distribution: Distribution) -> Check | None:
    """Return what says whether values ``[..., *batch, *event]`` are inside, ``[..., *batch]``.

    None where all are.
    """
    rule = _rule(distribution)
    if rule is None:
        return None
    event = len(distribution.event_shape)
    # A support may speak of each number of an event, and torch takes any shape.
    return lambda x: _all(rule(x), x.dim() - event)


def _rule(distribution: Distribution) -> Check | None:
    """Return a check whose result may have dimensions of the event left."""
    if _keeps(distribution, MixtureSameFamily, "support"):
        # torch's own asks that a value be in the support of every component.
        inner = _check(distribution.component_distribution)
        axis = -1 - len(distribution.event_shape)
        return None if inner is None else _in_any(inner, axis)
    if _keeps(distribution, Independent, "support"):
        return _check(distribution.base_dist)
    # One with a log_prob of its own may reach further than its base.
    if _keeps(distribution, TransformedDistribution, "support", "log_prob"):
        return _check_transformed(distribution)
    try:
        support = distribution.support
    except NotImplementedError:
        return None
    return None if support is None else _check_constraint(support)


def _check_transformed(distribution: TransformedDistribution) -> Check | None:
    """Check the value and what it is transformed from: the codomain knows no parameters."""
    transforms = _steps(distribution.transforms)
    checks = [_check_constraint(transform.codomain) for transform in transforms]
    base = _check(distribution.base_dist)
    if base is None and not any(checks):
        return None
    event = len(distribution.event_shape)

    def check(x: Tensor) -> Tensor:
        dimensions = x.dim() - event
        results = []
        for transform, inside in zip(reversed(transforms), reversed(checks), strict=True):
            if inside is not None:
                results.append(_all(inside(x), dimensions))
            x = transform.inv(x)
        if base is not None:
            results.append(_all(base(x), dimensions))
        return reduce(torch.logical_and, results)

    return check


def _steps(transforms: Iterable[Transform]) -> list[Transform]:
    """Return transforms of which none is composed of others: each has a codomain of its own."""
    steps: list[Transform] = []
    for transform in transforms:
        if isinstance(transform, ComposeTransform):
            steps += _steps(transform.parts)
        else:
            steps.append(transform)
    return steps


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


def _all(inside: Tensor, dimensions: int) -> Tensor:
    """Return whether all are inside, over the dimensions after the first so many."""
    return inside.flatten(dimensions).all(-1) if inside.dim() > dimensions else inside


def _has_nan(x: Tensor, dimensions: int) -> Tensor:
    return _all(x == x, dimensions).logical_not()
