"""The gradient of the targets' log_prob: of ``target_log_prob``, and of decisions that return it.

Nothing else that these operators return has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from rskernels._torch.schemas import LIBRARY, SCHEMAS, operator

PARTS = ("hidden", "weight", "bias", "A", "B")
"""The fields of logits that are not stored that have a gradient, in its operator's order."""


class DifferentiableLogProb:
    """An operator that returns log_prob, what its gradient needs of each row, and any results.

    Parameters
    ----------
    name : str
        Of the operator.
    gradient : str
        Of the operator of its gradient, which takes (upstream, *fields of this one and totals).
    """

    def __init__(self, name: str, gradient: str) -> None:
        self.name, self.gradient, self.eager = name, gradient, operator(name)
        self.fields = tuple(field.name for field in SCHEMAS[name].fields)
        kept = [field for field in SCHEMAS[gradient].fields if field.name != "upstream"]
        self._order = tuple(field.name for field in kept)
        self._tensors = tuple(field.name for field in kept if field.type.startswith("Tensor"))
        self._others = tuple(n for n in self._order if n in self.fields and n not in self._tensors)
        # The numbers of the gradient's dynamic operator, among those of this one's.
        floats = [SCHEMAS[name].fields[place].name for place in SCHEMAS[name].number_places]
        places = SCHEMAS[gradient].number_places
        self._numbers = [floats.index(SCHEMAS[gradient].fields[place].name) for place in places]

    def keep(
        self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...], *numbers: Tensor
    ) -> None:
        """Keep what the gradient needs; ``numbers`` are those of a dynamic operator."""
        given = dict(zip(self.fields, inputs, strict=True), totals=output[1])
        ctx.save_for_backward(*numbers, *(given[name] for name in self._tensors))
        ctx.others = {name: given[name] for name in self._others}
        ctx.mark_non_differentiable(*output[1:])

    def keep_dynamic(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what the gradient of the dynamic operator needs, its numbers first."""
        self.keep(ctx, inputs[1:], output, inputs[0])

    def backward(self, ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the fields."""
        return self.derive(operator(self.gradient), ctx, upstream[0], ctx.saved_tensors, 0)

    def dynamic_backward(self, ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the numbers, which have none, and of the fields."""
        numbers, *tensors = ctx.saved_tensors
        numbers = torch.stack([numbers[place] for place in self._numbers])
        call = operator(f"dynamic_{self.gradient}")
        of_fields = self.derive(
            lambda *fields: call(numbers, *fields), ctx, upstream[0], tensors, 1
        )
        return None, *of_fields

    def derive(
        self,
        call: Callable[..., Any],
        ctx: Any,
        upstream: Tensor,
        tensors: Sequence[Tensor],
        first: int,
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of the fields, the first of which is the input of that number."""
        given = ctx.others | dict(zip(self._tensors, tensors, strict=True))
        parts: list[str] = ["logits"]
        if "wanted" in self._order:
            wants = ctx.needs_input_grad[first:]
            given["wanted"] = [wants[self.fields.index(part)] for part in PARTS]
            parts = [part for part, wanted in zip(PARTS, given["wanted"], strict=True) if wanted]
        gradients = call(upstream, *(given[name] for name in self._order))
        if isinstance(gradients, Tensor):
            gradients = [gradients]
        found = dict(zip(parts, gradients, strict=True))
        return tuple(found.get(name) for name in self.fields)


TARGET_LOG_PROB, DECIDED_LOG_PROB = (
    DifferentiableLogProb(name, "target_log_prob_backward")
    for name in ("target_log_prob", "decide_with_totals")
)
LINEAR_TARGET_LOG_PROB, LINEAR_DECIDED_LOG_PROB = (
    DifferentiableLogProb(name, "linear_target_log_prob_backward")
    for name in ("linear_target_log_prob", "linear_decide_with_totals")
)
ALL = (TARGET_LOG_PROB, DECIDED_LOG_PROB, LINEAR_TARGET_LOG_PROB, LINEAR_DECIDED_LOG_PROB)


def no_second_derivative(ctx: Any, *upstream: Any) -> NoReturn:
    """Raise what a derivative of the gradient raises."""
    raise NotImplementedError(
        "target_log_prob has no second derivative; use torch.log_softmax(...).gather(...) for it"
    )


for _of in ALL:
    for _prefix, _derive, _keep in (
        ("", _of.backward, _of.keep),
        ("dynamic_", _of.dynamic_backward, _of.keep_dynamic),
    ):
        torch.library.register_autograd(
            f"rskernels::{_prefix}{_of.name}", _derive, setup_context=_keep, lib=LIBRARY
        )
for _name in {_of.gradient for _of in ALL}:
    for _prefix in ("", "dynamic_"):
        torch.library.register_autograd(
            f"rskernels::{_prefix}{_name}", no_second_derivative, lib=LIBRARY
        )
