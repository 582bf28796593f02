"""``target_log_prob`` under torch.func's transforms, which ``register_autograd`` does not serve.

Only a call under a transform comes here: the operators' own autograd costs less.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from rskernels._torch.library import keep_for_backward, no_second_derivative, no_vmap


def target_log_prob(
    logits: Tensor, targets: Tensor, temperature: float, ignore_index: int
) -> Tensor:
    """Return log q of the target [...], differentiable by torch.func.grad, vjp and jacrev."""
    if torch.compiler.is_compiling():
        raise NotImplementedError(
            "torch.compile does not trace torch.func's transforms of target_log_prob; "
            "apply them outside of what is compiled"
        )
    outputs: tuple[Tensor, Tensor] = _LogProb.apply(  # type: ignore[no-untyped-call]
        logits, targets, temperature, ignore_index
    )
    return outputs[0]


def no_forward_derivative(ctx: Any = None, *tangents: Any) -> NoReturn:
    """Raise what a forward-mode derivative raises."""
    raise NotImplementedError(
        "target_log_prob has no forward-mode derivative; "
        "use torch.log_softmax(...).gather(...) for it"
    )


class _LogProb(torch.autograd.Function):
    setup_context = staticmethod(keep_for_backward)
    vmap = staticmethod(no_vmap)
    jvp = staticmethod(no_forward_derivative)

    @staticmethod
    def forward(*given: Any) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = torch.ops.rskernels.target_log_prob(*given)
        return result

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        logits, targets, totals = ctx.saved_tensors
        gradient: Tensor = _Gradient.apply(  # type: ignore[no-untyped-call]
            upstream[0], logits, targets, totals, ctx.temperature, ctx.ignore_index
        )
        return gradient, None, None, None


class _Gradient(torch.autograd.Function):
    vmap = staticmethod(no_vmap)
    jvp = staticmethod(no_second_derivative)
    backward = staticmethod(no_second_derivative)

    @staticmethod
    def forward(*given: Any) -> Tensor:
        result: Tensor = torch.ops.rskernels.target_log_prob_backward(*given)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep nothing: there is no second derivative."""
