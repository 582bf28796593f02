"""Which kernels serve which device: those that the torch operators call on CPU and CUDA tensors."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from torch import Tensor

from rskernels._python.forks import hold_over_forks
from rskernels._torch.schemas import LIBRARY, SCHEMAS
from rskernels.kernels.product import Lora, Product, Wanted
from rskernels.law.decision import Law

# In a child of fork a module that another thread was importing would be on its way for ever.
_importing = hold_over_forks(threading.RLock())


# Fields that a product has; the targets follow.
PARTS = [field.name for field in SCHEMAS["linear_mask"].fields].index("targets")


@functools.cache
def cpu_kernels() -> Any:
    """Return the module of the CPU kernels, which is imported at the first call."""
    try:
        with _importing:
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
        with _importing:
            from rskernels.kernels import gpu
    except ImportError as error:
        raise ImportError(
            f"the GPU kernels need Triton, which failed to import ({error}); "
            "install it with: pip install triton"
        ) from error
    return gpu


def _decision_kernel(name: str, kernels: Callable[[], Any]) -> Callable[..., Any]:
    kernel = attrgetter(name)

    # A trailing argument that equals its default is left out by torch.
    def decision(
        logits: Tensor,
        targets: Tensor | None,
        density: Tensor | None,
        density_value: float = 1.0,
        M: Tensor | None = None,
        M_value: float = 1.0,
        seed: Tensor | None = None,
        seed_value: int = 0,
        row_offset: int = 0,
        temperature: Tensor | None = None,
        temperature_value: float = 1.0,
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
            temperature_value if temperature is None else temperature,
            log_space,
            model_is_target,
            ignore_index,
        )
        return kernel(kernels())(logits, targets, law, *reading)

    return decision


def of_product(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Return a kernel that takes the fields of a product in place of logits."""

    def linear(
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: float,
        softcap: float,
        A: Tensor | None,
        B: Tensor | None,
        lora_scale: float,
        *rest: Any,
    ) -> Any:
        lora = None if A is None or B is None else Lora(A, B, lora_scale)
        return kernel(Product(hidden, weight, bias, scale, softcap, lora), *rest)

    return linear


def _ratio_kernel(name: str, kernels: Callable[[], Any]) -> Callable[..., Any]:
    def decision(
        log_ratio: Tensor,
        M: Tensor | None,
        M_value: float,
        seed: Tensor | None,
        seed_value: int,
        *rest: Any,
    ) -> Any:
        values = M_value if M is None else M, seed_value if seed is None else seed
        return getattr(kernels(), name)(log_ratio, *values, *rest)

    return decision


def _log_prob_kernel(name: str, kernels: Callable[[], Any]) -> Callable[..., Any]:
    kernel = attrgetter(name)

    def log_prob(
        logits: Tensor,
        targets: Tensor,
        temperature: Tensor | None = None,
        temperature_value: float = 1.0,
        ignore_index: int = -100,
    ) -> Any:
        T = temperature_value if temperature is None else temperature
        return kernel(kernels())(logits, targets, T, ignore_index)

    return log_prob


def _gradient_kernel(kernels: Callable[[], Any]) -> Callable[..., Any]:
    def gradient(
        upstream: Tensor,
        logits: Tensor,
        targets: Tensor,
        totals: Tensor,
        temperature: Tensor | None = None,
        temperature_value: float = 1.0,
        ignore_index: int = -100,
    ) -> Any:
        T = temperature_value if temperature is None else temperature
        given = (upstream, logits, targets, totals)
        return kernels().target_log_prob_backward(*given, T, ignore_index)

    return gradient


def _linear_gradient_kernel(kernels: Callable[[], Any]) -> Callable[..., Any]:
    def of_rows(
        product: Product,
        targets: Tensor,
        upstream: Tensor,
        totals: Tensor,
        wanted: list[bool],
        temperature: Tensor | None = None,
        temperature_value: float = 1.0,
        ignore_index: int = -100,
    ) -> list[Tensor]:
        T = temperature_value if temperature is None else temperature
        given = (upstream, product, targets, totals)
        gradients = kernels().linear.target_log_prob_backward(
            *given, T, ignore_index, Wanted(*wanted)
        )
        return [gradient for gradient in gradients if gradient is not None]

    linear = of_product(of_rows)

    def gradient(upstream: Tensor, *fields: Any) -> Any:
        product, targets, others = fields[:PARTS], fields[PARTS], fields[PARTS + 1 :]
        return linear(*product, targets, upstream, *others)

    return gradient


for _device, _kernels in (("CPU", cpu_kernels), ("CUDA", gpu_kernels)):
    for _name in ("mask", "decide", "decide_with_totals"):
        LIBRARY.impl(_name, _decision_kernel(_name, _kernels), _device)
    for _name in ("bernoulli", "decide_ratios", "decide_sequences", "accept_prefix"):
        LIBRARY.impl(_name, _ratio_kernel(_name, _kernels), _device)
    LIBRARY.impl("target_log_prob", _log_prob_kernel("target_log_prob", _kernels), _device)
    for _name, _make in (
        ("mask", _decision_kernel),
        ("decide", _decision_kernel),
        ("decide_with_totals", _decision_kernel),
        ("target_log_prob", _log_prob_kernel),
    ):
        _kernel = of_product(_make(f"linear.{_name}", _kernels))
        LIBRARY.impl(f"linear_{_name}", _kernel, _device)
    LIBRARY.impl("target_log_prob_backward", _gradient_kernel(_kernels), _device)
    _kernel = _linear_gradient_kernel(_kernels)
    LIBRARY.impl("linear_target_log_prob_backward", _kernel, _device)
