"""The torch operators: schemas, fakes, autograd, and which kernels serve which device.

The operators take checked arguments (see ``rskernels.ops``). A density or M is a tensor, or None
and a value; a seed is a tensor of one int64 element, or None and a value.
"""

from __future__ import annotations

import functools
from typing import Any, NoReturn

import torch
from torch import Tensor

from rskernels.kernels.layout import wide_dtype
from rskernels.law.decision import Law

# A call that leaves its tail at the defaults costs a microsecond less.
_LAW = (
    "Tensor? density, float M_value=1.0, Tensor? seed=None, SymInt seed_value=0, Tensor? M=None, "
    "float density_value=1.0, SymInt row_offset=0, float temperature=1.0, bool log_space=False, "
    "bool model_is_target=False, int ignore_index=-100"
)
_library = torch.library.Library("rskernels", "DEF")
_library.define(
    f"mask(Tensor logits, Tensor? targets, {_LAW}, bool is_lazy=False, Tensor? order=None)"
    " -> Tensor"
)
_library.define(
    f"decide(Tensor logits, Tensor? targets, {_LAW}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_library.define(
    "bernoulli(Tensor log_ratio, Tensor? M, Tensor? seed, float M_value, SymInt seed_value, "
    "SymInt row_offset, int stream, bool log_space) -> Tensor"
)
_library.define(
    "target_log_prob(Tensor logits, Tensor targets, float temperature, int ignore_index)"
    " -> (Tensor, Tensor)"
)
_library.define(
    "target_log_prob_backward(Tensor upstream, Tensor logits, Tensor targets, Tensor totals, "
    "float temperature, int ignore_index) -> Tensor"
)


@functools.cache
def cpu_kernels() -> Any:
    """Return the module of the CPU kernels, which is imported at the first call."""
    try:
        from rskernels.kernels import cpu
    except ImportError as error:
        raise ImportError(
            f"the CPU kernels need Numba, which failed to import ({error}); "
            "install it with: pip install numba"
        ) from error
    return cpu


@functools.cache
def gpu_kernels() -> Any:
    """Return the module of the GPU kernels, which is imported at the first call."""
    try:
        from rskernels.kernels import gpu
    except ImportError as error:
        raise ImportError(
            f"the GPU kernels need Triton, which failed to import ({error}); "
            "install it with: pip install triton"
        ) from error
    return gpu


def _serve(device: str, load: Any) -> None:
    def law(name: str) -> Any:
        def serve(
            logits: Tensor,
            targets: Tensor | None,
            density: Tensor | None,
            M_value: float = 1.0,
            seed: Tensor | None = None,
            seed_value: int = 0,
            M: Tensor | None = None,
            density_value: float = 1.0,
            row_offset: int = 0,
            temperature: float = 1.0,
            log_space: bool = False,
            model_is_target: bool = False,
            ignore_index: int = -100,
            *reading: Any,
        ) -> Any:
            law = Law(
                density_value if density is None else density,
                M_value if M is None else M,
                seed_value if seed is None else seed,
                row_offset,
                temperature,
                log_space,
                model_is_target,
                ignore_index,
            )
            return getattr(load(), name)(logits, targets, law, *reading)

        return serve

    def bernoulli(
        log_ratio: Tensor,
        M: Tensor | None,
        seed: Tensor | None,
        M_value: float,
        seed_value: int,
        *law: Any,
    ) -> Tensor:
        result: Tensor = load().bernoulli(
            log_ratio,
            M_value if M is None else M,
            seed_value if seed is None else seed,
            *law,
        )
        return result

    def target_log_prob(*given: Any) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = load().target_log_prob(*given)
        return result

    def target_log_prob_backward(*given: Any) -> Tensor:
        result: Tensor = load().target_log_prob_backward(*given)
        return result

    _library.impl("mask", law("mask"), device)
    _library.impl("decide", law("decide"), device)
    for function in (bernoulli, target_log_prob, target_log_prob_backward):
        _library.impl(function.__name__, function, device)


_serve("CPU", cpu_kernels)
_serve("CUDA", gpu_kernels)


def _decisions(logits: Tensor, targets: Tensor | None) -> torch.Size:
    return logits.shape if targets is None else logits.shape[:-1]


@torch.library.register_fake("rskernels::mask", lib=_library)
def _(logits: Tensor, targets: Tensor | None, *law: Any) -> Tensor:
    return logits.new_empty(_decisions(logits, targets), dtype=torch.bool)


@torch.library.register_fake("rskernels::decide", lib=_library)
def _(logits: Tensor, targets: Tensor | None, *law: Any) -> tuple[Tensor, ...]:
    shape = _decisions(logits, targets)
    dtype = wide_dtype(logits)
    return (
        logits.new_empty(shape, dtype=torch.bool),
        logits.new_empty(shape, dtype=dtype),
        logits.new_empty(shape, dtype=dtype),
        logits.new_empty(4, dtype=torch.int64),
        logits.new_empty(2, dtype=torch.float64),
    )


@torch.library.register_fake("rskernels::bernoulli", lib=_library)
def _(log_ratio: Tensor, *law: Any) -> Tensor:
    return log_ratio.new_empty(log_ratio.shape, dtype=torch.bool)


@torch.library.register_fake("rskernels::target_log_prob", lib=_library)
def _(
    logits: Tensor, targets: Tensor, temperature: float, ignore_index: int
) -> tuple[Tensor, Tensor]:
    shape = logits.shape[:-1]
    return (
        logits.new_empty(shape, dtype=wide_dtype(logits)),
        logits.new_empty((*shape, 2), dtype=torch.float64),
    )


@torch.library.register_fake("rskernels::target_log_prob_backward", lib=_library)
def _(upstream: Tensor, logits: Tensor, *rest: Any) -> Tensor:
    return logits.new_empty(logits.shape)


def keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep what the gradient of ``target_log_prob`` needs."""
    logits, targets, ctx.temperature, ctx.ignore_index = inputs
    ctx.save_for_backward(logits, targets, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
    logits, targets, totals = ctx.saved_tensors
    gradient = torch.ops.rskernels.target_log_prob_backward(
        upstream, logits, targets, totals, ctx.temperature, ctx.ignore_index
    )
    return gradient, None, None, None


torch.library.register_autograd(
    "rskernels::target_log_prob", _backward, setup_context=keep_for_backward, lib=_library
)


def no_second_derivative(ctx: Any, *upstream: Tensor) -> NoReturn:
    """Raise what a derivative of the gradient raises."""
    raise NotImplementedError(
        "target_log_prob has no second derivative; use torch.log_softmax(...).gather(...) for it"
    )


torch.library.register_autograd(
    "rskernels::target_log_prob_backward", no_second_derivative, lib=_library
)


def no_vmap(info: Any, in_dims: Any, *given: Any) -> NoReturn:
    """Raise what a call under torch.func.vmap raises."""
    # A loop over slices would start every slice at the same row id: one draw used many times.
    raise NotImplementedError(
        "rskernels operations take any leading shape and have no vmap; "
        "call them on the batched tensor"
    )


for _name in ("mask", "decide", "bernoulli", "target_log_prob", "target_log_prob_backward"):
    torch.library.register_vmap(f"rskernels::{_name}", no_vmap, lib=_library)
