"""The operations under torch.func's transforms: the targets' log_prob alone has derivatives.

``register_autograd`` does not serve these transforms. Only a call under one comes here, since the
operators' own autograd costs less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from rskernels._torch.autograd import ALL, DifferentiableLogProb, no_second_derivative
from rskernels._torch.fast_path import is_compiling, is_transforming
from rskernels._torch.schemas import LIBRARY, SCHEMAS, operator

_KINDS = torch._C._functorch.TransformType


def apply(of: DifferentiableLogProb, *arguments: Any) -> tuple[Tensor, ...]:
    """Call an operator, whose log q [...] is differentiable by torch.func.grad, vjp and jacrev."""
    if is_compiling():
        raise NotImplementedError(
            "torch.compile does not trace torch.func's transforms of target_log_prob, accept and "
            "verify; apply them outside of what is compiled"
        )
    # Of a torch.autograd.Function torch has no such form, and the operator changes nothing.
    is_eager = torch._C._functorch.peek_interpreter_stack().key() == _KINDS.Functionalize
    outputs: tuple[Tensor, ...] = (operator(of.name) if is_eager else _FUNCTIONS[of])(*arguments)
    return outputs


def refuse_tangent(value: Tensor) -> None:
    """Raise if a tensor carries a tangent, outside of torch.func too."""
    if unpack_dual(value).tangent is not None:
        _no_forward_derivative()


def refuse_transforms(what: str) -> None:
    """Raise under a transform of torch.func, whichever it is."""
    if not is_transforming():
        return
    kind = torch._C._functorch.peek_interpreter_stack().key()
    if kind == _KINDS.Vmap:
        no_vmap()
    if kind == _KINDS.Jvp:
        _no_forward_derivative()
    raise NotImplementedError(
        f"torch.func's transforms of {what} are not served; use backward() or torch.autograd.grad "
        "outside of them"
    )


def refuse_batch(upstream: Tensor) -> None:
    """Raise of the many upstream gradients at once of ``is_grads_batched``."""
    if torch._C._functorch.is_legacy_batchedtensor(upstream):
        no_vmap()


def _no_forward_derivative(ctx: Any = None, *tangents: Any) -> NoReturn:
    raise NotImplementedError(
        "target_log_prob has no forward-mode derivative; "
        "use torch.log_softmax(...).gather(...) for it"
    )


def no_vmap(*arguments: Any) -> NoReturn:
    """Raise what a vmap of an operation raises."""
    # A loop over slices would start every slice at the same row id: one draw used many times.
    raise NotImplementedError(
        "rskernels operations take any leading shape and have no vmap; "
        "call them on the batched tensor"
    )


for _name in SCHEMAS:
    torch.library.register_vmap(f"rskernels::{_name}", no_vmap, lib=LIBRARY)
    torch.library.register_vmap(f"rskernels::dynamic_{_name}", no_vmap, lib=LIBRARY)
# Of operators that return a list torch has no loop for torch.autograd.grad's is_grads_batched.
for _name in ("", "dynamic_"):
    LIBRARY.impl(f"{_name}linear_target_log_prob_backward", no_vmap, "Batched")


def _function_of(of: DifferentiableLogProb) -> Any:
    """Return an operator as a function that torch.func's transforms can derive."""
    call, gradient = operator(of.name), without_derivative(operator(of.gradient))

    class Function(torch.autograd.Function):
        setup_context = staticmethod(of.keep)
        vmap = staticmethod(no_vmap)
        jvp = staticmethod(_no_forward_derivative)

        @staticmethod
        def forward(*arguments: Any) -> tuple[Tensor, ...]:
            result: tuple[Tensor, ...] = call(*arguments)
            return result

        @staticmethod
        def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
            return of.derive(gradient, ctx, upstream[0], ctx.saved_tensors, 0)

    return Function.apply


def without_derivative(call: Callable[..., Any]) -> Any:
    """Return what calculates a gradient as a function that has no derivative."""

    class Gradient(torch.autograd.Function):
        vmap = staticmethod(no_vmap)
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
