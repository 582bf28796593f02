"""The gradient of ``target_log_prob``, of both of its operators."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from rskernels._torch.schemas import LIBRARY, operator

_gradient = operator("target_log_prob_backward")
_dynamic_gradient = operator("dynamic_target_log_prob_backward")


def keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep what the gradient of ``target_log_prob`` needs."""
    logits, targets, temperature, *ctx.numbers = inputs
    ctx.save_for_backward(logits, targets, output[1], temperature)
    ctx.mark_non_differentiable(output[1])


def no_second_derivative(ctx: Any, *upstream: Tensor) -> NoReturn:
    """Raise what a derivative of the gradient raises."""
    raise NotImplementedError(
        "target_log_prob has no second derivative; use torch.log_softmax(...).gather(...) for it"
    )


def _backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    gradient = _gradient(upstream, *ctx.saved_tensors, *ctx.numbers)
    return gradient, None, None, None, None


def _keep_dynamic(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    numbers, logits, targets, temperature, *ctx.numbers = inputs
    ctx.save_for_backward(numbers, logits, targets, output[1], temperature)
    ctx.mark_non_differentiable(output[1])


def _dynamic_backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    numbers, *kept = ctx.saved_tensors
    gradient = _dynamic_gradient(numbers, upstream, *kept, *ctx.numbers)
    return None, gradient, None, None, None, None


for _prefix, _derive, _keep in (
    ("", _backward, keep_for_backward),
    ("dynamic_", _dynamic_backward, _keep_dynamic),
):
    _name = f"rskernels::{_prefix}target_log_prob"
    torch.library.register_autograd(_name, _derive, setup_context=_keep, lib=LIBRARY)
    torch.library.register_autograd(f"{_name}_backward", no_second_derivative, lib=LIBRARY)
