"""When torch's dispatcher can be left out: it takes longer than deciding a few rows."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad


class HasGradient(Protocol):
    """A tensor, or what says as a tensor does whether it requires a gradient."""

    @property
    def requires_grad(self) -> bool:
        """Whether it does."""
        ...


# Looked up once; a call decides in microseconds.
is_compiling = torch.compiler.is_compiling
is_transforming = torch._C._are_functorch_transforms_active
_count_modes = torch._C._len_torch_dispatch_stack
_count_function_modes = torch._C._len_torch_function_stack
_is_tracing = torch._C._is_tracing
_is_profiling = torch._C._autograd._profiler_enabled


def is_idle() -> bool:
    """Say whether the dispatcher has nobody to tell of a call.

    That is no compiler, tracer or profiler of this thread, no mode and no transform of torch.func.
    Observers of all threads at once, and kernels registered over this library's, do not count.
    """
    return not (
        is_compiling()
        or is_transforming()
        or _count_modes()
        or _count_function_modes()
        or _is_tracing()
        or _is_profiling()
    )


def is_recorded(value: HasGradient) -> bool:
    """Say whether gradients with respect to a tensor, or parts of logits, are recorded."""
    return value.requires_grad and torch.is_grad_enabled()


def has_tangents() -> bool:
    """Say whether a tensor may carry a tangent of forward mode."""
    return forward_ad._current_level >= 0


def refuse_in_graph(what: str) -> None:
    """Raise NotImplementedError while a graph is traced, which would hold one answer for ever."""
    if is_compiling() or _is_tracing():
        raise NotImplementedError(
            f"torch.compile, torch.export and torch.jit.trace cannot trace {what}; "
            "call it outside of the graph and give that the tensors it returns"
        )


def is_plain(*values: Tensor | float | None) -> bool:
    """Say whether the dispatcher would hand tensors, where given, to the CPU kernels as they are.

    Not a subclass, nor one that it would first negate, unwrap or give memory.
    """
    try:
        for value in values:
            if type(value) is Tensor:
                if not value.is_cpu or value.is_neg() or value.data_ptr() == 0:
                    return False
            elif value is not None and type(value) is not float and type(value) is not int:
                return False
    except RuntimeError:
        # A tensor without storage, such as a transform of torch.func leaves behind.
        return False
    return True
