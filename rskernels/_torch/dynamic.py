"""The operators inside a traced graph, where M, a density or the temperature may be dynamic.

An operator's number is part of the graph, which is compiled anew for every value of it. So dynamic
numbers go in as a float64 tensor on the CPU, where they are read without waiting for a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rskernels._torch.schemas import LIBRARY, SCHEMAS, operator


@dataclass(frozen=True)
class Dynamic:
    """An operation as a traced graph calls it: with its numbers in the graph or in a tensor."""

    static: Any
    dynamic: Any
    """Takes the numbers as its first argument, and ignores those at their places."""
    places: tuple[int, ...]
    defaults: tuple[Any, ...]

    def __call__(self, *arguments: Any) -> Any:
        """Call the operator that serves these arguments; trailing defaults may be left out."""
        values = [*arguments, *self.defaults[len(arguments) :]]
        numbers = _lift(*(values[place] for place in self.places))
        if numbers is None:
            return self.static(*values)
        for place in self.places:
            values[place] = 1.0
        return self.dynamic(numbers, *values)


def _lift(*numbers: float) -> Tensor | None:
    """Return numbers as a tensor [len(numbers)] where one of them is dynamic, else None."""
    # Loaded by whoever traces, and slow to load.
    from torch.fx.experimental.symbolic_shapes import has_static_value

    if all(has_static_value(number) for number in numbers):
        return None
    # torch.compile lifts a number out of a product, and out of few other operations.
    one = torch.ones((), dtype=torch.float64, device="cpu")
    return torch.stack([one * number for number in numbers])


def _implement(name: str) -> Dynamic:
    """Implement ``dynamic_name`` by the operator of that name."""
    schema, static = SCHEMAS[name], operator(name)

    def run(numbers: Tensor, *arguments: Any) -> Any:
        values = list(arguments)
        for place, number in zip(schema.number_places, numbers.tolist(), strict=True):
            values[place] = number
        return static(*values)

    def fake(numbers: Tensor, *arguments: Any) -> Any:
        return static(*arguments)

    LIBRARY.impl(f"dynamic_{name}", run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"rskernels::dynamic_{name}", fake, lib=LIBRARY)
    defaults = tuple(field.default for field in schema.fields)
    return Dynamic(static, operator(f"dynamic_{name}"), schema.number_places, defaults)


DYNAMIC = {name: _implement(name) for name in SCHEMAS}
