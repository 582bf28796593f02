"""The operations under torch.func's transforms: the targets' log_prob alone has derivatives.

``register_autograd`` does not serve these transforms. Only a call under one comes here, since the
operators' own autograd costs less.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from rskernels._torch.autograd import ALL, DifferentiableLogProb, no_second_derivative
from rskernels._torch.fast_path import is_compiling
from rskernels._torch.schemas import LIBRARY, SCHEMAS, operator

_FUNCTIONALIZE = torch._C._functorch.TransformType.Functionalize


def apply(of: DifferentiableLogProb, *arguments: Any) -> tuple[Tensor, ...]:
    """Call an operator, whose log q [...] is differentiable by torch.func.grad, vjp and jacrev."""
    if is_compiling():
        raise NotImplementedError(
            "torch.compile does not trace torch.func's transforms of target_log_prob, accept and "
            "verify; apply them outside of what is compiled"
        )
    # Of a torch.autograd.Function torch has no such form, and the operator changes nothing.
    is_eager = torch._C._functorch.peek_interpreter_stack().key() == _FUNCTIONALIZE
    outputs: tuple[Tensor, ...] = (operator(of.name) if is_eager else _FUNCTIONS[of])(*arguments)
    return outputs


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


def _function_of(of: DifferentiableLogProb) -> Any:
    """Return an operator as a function that torch.func's transforms can derive."""
    call, gradient = operator(of.name), _gradient_of(of.gradient)

    class Function(torch.autograd.Function):
        setup_context = staticmethod(of.keep)
        vmap = staticmethod(_no_vmap)
        jvp = staticmethod(_no_forward_derivative)

        @staticmethod
        def forward(*arguments: Any) -> tuple[Tensor, ...]:
            result: tuple[Tensor, ...] = call(*arguments)
            return result

        @staticmethod
        def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
            return of.derive(gradient, ctx, upstream[0], ctx.saved_tensors, 0)

    return Function.apply


def _gradient_of(name: str) -> Any:
    """Return the operator of a gradient as a function that has no derivative."""
    call = operator(name)

    class Gradient(torch.autograd.Function):
        vmap = staticmethod(_no_vmap)
        jvp = staticmethod(no_second_derivative)
        backward = staticmethod(no_second_derivative)

        @staticmethod
        def forward(*arguments: Any) -> Any:
            result = call(*arguments)
            return result if isinstance(result, Tensor) else tuple(result)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            """Keep nothing: there is no second derivative."""

    return Gradient.apply


_FUNCTIONS = {of: _function_of(of) for of in ALL}
