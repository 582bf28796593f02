"""The gradient of the targets' log_prob: of ``target_log_prob``, and of decisions that return it.

Nothing else that these operators return has a gradient.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from rskernels._torch.schemas import LIBRARY, SCHEMAS, operator

_gradient = operator("target_log_prob_backward")
_dynamic_gradient = operator("dynamic_target_log_prob_backward")


class DifferentiableLogProb(NamedTuple):
    """An operator that returns log_prob, what its gradient needs of each row, and any results."""

    name: str

    def keep(
        self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...], *numbers: Tensor
    ) -> None:
        """Keep what the gradient needs; ``numbers`` are those of a dynamic operator."""
        fields = (field.name for field in SCHEMAS[self.name].fields)
        given = dict(zip(fields, inputs, strict=True))
        rows = given["logits"], given["targets"], output[1], given["temperature"]
        ctx.numbers = given["temperature_value"], given["ignore_index"]
        ctx.save_for_backward(*numbers, *rows)
        ctx.mark_non_differentiable(*output[1:])

    def keep_dynamic(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what the gradient of the dynamic operator needs, its numbers first."""
        self.keep(ctx, inputs[1:], output, inputs[0])

    def backward(self, ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the fields, of which the logits alone have one."""
        gradient = _gradient(upstream[0], *ctx.saved_tensors, *ctx.numbers)
        return gradient, *self.no_others()

    def dynamic_backward(self, ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the numbers and the fields."""
        numbers, *rows = ctx.saved_tensors
        temperature = numbers[-1:]  # the last number of a schema that has one
        gradient = _dynamic_gradient(temperature, upstream[0], *rows, *ctx.numbers)
        return None, gradient, *self.no_others()

    def no_others(self) -> tuple[None, ...]:
        """Return the gradients of the fields after the logits."""
        return (None,) * (len(SCHEMAS[self.name].fields) - 1)


TARGET_LOG_PROB = DifferentiableLogProb("target_log_prob")
DECIDED_LOG_PROB = DifferentiableLogProb("decide_with_totals")


def no_second_derivative(ctx: Any, *upstream: Tensor) -> NoReturn:
    """Raise what a derivative of the gradient raises."""
    raise NotImplementedError(
        "target_log_prob has no second derivative; use torch.log_softmax(...).gather(...) for it"
    )


for _of in (TARGET_LOG_PROB, DECIDED_LOG_PROB):
    for _prefix, _derive, _keep in (
        ("", _of.backward, _of.keep),
        ("dynamic_", _of.dynamic_backward, _of.keep_dynamic),
    ):
        torch.library.register_autograd(
            f"rskernels::{_prefix}{_of.name}", _derive, setup_context=_keep, lib=LIBRARY
        )
for _prefix in ("", "dynamic_"):
    torch.library.register_autograd(
        f"rskernels::{_prefix}target_log_prob_backward", no_second_derivative, lib=LIBRARY
    )
