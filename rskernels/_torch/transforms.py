"""The operations under torch.func's transforms: ``target_log_prob`` alone has derivatives.

``register_autograd`` does not serve these transforms. Only a call under one comes here, since the
operators' own autograd costs less.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from rskernels._torch.autograd import keep_for_backward, no_second_derivative
from rskernels._torch.fast_path import is_compiling
from rskernels._torch.schemas import LIBRARY, SCHEMAS, operator

_log_prob = operator("target_log_prob")
_gradient = operator("target_log_prob_backward")
_FUNCTIONALIZE = torch._C._functorch.TransformType.Functionalize


def target_log_prob(*arguments: Any) -> Tensor:
    """Return log q of the target [...], differentiable by torch.func.grad, vjp and jacrev."""
    if is_compiling():
        raise NotImplementedError(
            "torch.compile does not trace torch.func's transforms of target_log_prob; "
            "apply them outside of what is compiled"
        )
    if torch._C._functorch.peek_interpreter_stack().key() == _FUNCTIONALIZE:
        # Of a torch.autograd.Function torch has no such form, and the operator changes nothing.
        outputs: tuple[Tensor, Tensor] = _log_prob(*arguments)
    else:
        outputs = _LogProb.apply(*arguments)  # type: ignore[no-untyped-call]
    return outputs[0]


def refuse_tangent(value: Tensor) -> None:
    """Raise if a tensor carries a tangent, outside of torch.func too."""
    if unpack_dual(value).tangent is not None:
        _no_forward_derivative()


def _no_forward_derivative(ctx: Any = None, *tangents: Any) -> NoReturn:
    raise NotImplementedError(
        "target_log_prob has no forward-mode derivative; "
        "use torch.log_softmax(...).gather(...) for it"
    )


def _no_vmap(info: Any, in_dims: Any, *arguments: Any) -> NoReturn:
    # A loop over slices would start every slice at the same row id: one draw used many times.
    raise NotImplementedError(
        "rskernels operations take any leading shape and have no vmap; "
        "call them on the batched tensor"
    )


for _name in SCHEMAS:
    torch.library.register_vmap(f"rskernels::{_name}", _no_vmap, lib=LIBRARY)
    torch.library.register_vmap(f"rskernels::dynamic_{_name}", _no_vmap, lib=LIBRARY)


class _LogProb(torch.autograd.Function):
    setup_context = staticmethod(keep_for_backward)
    vmap = staticmethod(_no_vmap)
    jvp = staticmethod(_no_forward_derivative)

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = _log_prob(*arguments)
        return result

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        gradient: Tensor = _Gradient.apply(  # type: ignore[no-untyped-call]
            upstream[0], *ctx.saved_tensors, *ctx.numbers
        )
        return gradient, None, None, None, None


class _Gradient(torch.autograd.Function):
    vmap = staticmethod(_no_vmap)
    jvp = staticmethod(no_second_derivative)
    backward = staticmethod(no_second_derivative)

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        result: Tensor = _gradient(*arguments)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep nothing: there is no second derivative."""
