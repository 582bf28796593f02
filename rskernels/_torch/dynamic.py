"""The operators inside a traced graph, where M, a density or the temperature may be dynamic.

An operator's number is part of the graph, which is compiled anew for every value of it. So dynamic
numbers go in as a float64 tensor on the CPU, where they are read without waiting for a device.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels._torch.library import no_second_derivative, no_vmap

NUMBERS = ("M_value", "density_value", "temperature")

_library = torch.library.Library("rskernels", "FRAGMENT")


class _Operator(NamedTuple):
    static: Any
    dynamic: Any  # takes the numbers as its first argument, and ignores those at their places
    defaults: tuple[Any, ...]
    places: tuple[int, ...]


def mask(*given: Any) -> Tensor:
    """Call the operator of this name."""
    result: Tensor = _call(_mask, given)
    return result


def decide(*given: Any) -> tuple[Tensor, ...]:
    """Call the operator of this name."""
    result: tuple[Tensor, ...] = _call(_decide, given)
    return result


def bernoulli(*given: Any) -> Tensor:
    """Call the operator of this name."""
    result: Tensor = _call(_bernoulli, given)
    return result


def target_log_prob(*given: Any) -> tuple[Tensor, Tensor]:
    """Call the operator of this name."""
    result: tuple[Tensor, Tensor] = _call(_log_prob, given)
    return result


def _lift(*numbers: float) -> Tensor | None:
    """Return numbers as a tensor [len(numbers)] where one of them is dynamic, else None."""
    from torch.fx.experimental.symbolic_shapes import has_static_value

    if all(has_static_value(number) for number in numbers):
        return None
    # torch.compile lifts a number out of a product, and out of few other operations.
    one = torch.ones((), dtype=torch.float64, device="cpu")
    return torch.stack([one * number for number in numbers])


def _call(operator: _Operator, given: tuple[Any, ...]) -> Any:
    arguments = [*given, *operator.defaults[len(given) :]]
    numbers = _lift(*(arguments[place] for place in operator.places))
    if numbers is None:
        return operator.static(*arguments)
    for place in operator.places:
        arguments[place] = 1.0
    return operator.dynamic(numbers, *arguments)


def _define(name: str) -> _Operator:
    static = getattr(torch.ops.rskernels, name).default
    arguments = static._schema.arguments
    places = tuple(at for at, argument in enumerate(arguments) if argument.name in NUMBERS)

    def run(numbers: Tensor, *given: Any) -> Any:
        filled = list(given)
        for place, number in zip(places, numbers.tolist(), strict=True):
            filled[place] = number
        return static(*filled)

    def fake(numbers: Tensor, *given: Any) -> Any:
        return static(*given)

    # Without defaults, so that none is left out of what an implementation is given.
    schema = re.sub(r"=[^,)]+", "", str(static._schema))
    _library.define(schema.replace(f"rskernels::{name}(", f"dynamic_{name}(Tensor numbers, "))
    _library.impl(f"dynamic_{name}", run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"rskernels::dynamic_{name}", fake, lib=_library)
    torch.library.register_vmap(f"rskernels::dynamic_{name}", no_vmap, lib=_library)
    dynamic = getattr(torch.ops.rskernels, f"dynamic_{name}").default
    defaults = tuple(argument.default_value for argument in arguments)
    return _Operator(static, dynamic, defaults, places)


_mask, _decide, _bernoulli = _define("mask"), _define("decide"), _define("bernoulli")
_log_prob, _gradient = _define("target_log_prob"), _define("target_log_prob_backward")


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    numbers, logits, targets, _, ctx.ignore_index = inputs
    ctx.save_for_backward(numbers, logits, targets, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    numbers, *kept = ctx.saved_tensors
    gradient = _gradient.dynamic(numbers, upstream, *kept, 1.0, ctx.ignore_index)
    return None, gradient, None, None, None


torch.library.register_autograd(
    "rskernels::dynamic_target_log_prob",
    _backward,
    setup_context=_keep_for_backward,
    lib=_library,
)
torch.library.register_autograd(
    "rskernels::dynamic_target_log_prob_backward", no_second_derivative, lib=_library
)
