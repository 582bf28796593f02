"""Kernels compiled before they are needed, as when an image is built: each form on a few rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels.kernels.layout import wide_dtype
from rskernels.kernels.product import Product, Wanted
from rskernels.law.decision import Law

DTYPES = ("float32", "bfloat16", "float16", "float64")
DEVICES = ("cpu", "cuda")
ROWS = {"cpu": (2,), "cuda": (2, 512)}  # of which a GPU shares out few otherwise than many
V, D = 4096, 64
LAW = Law(0.1, 1.0, 1)


class Warmed(NamedTuple):
    """A form's kernels of one dtype that are ready for later processes."""

    device: str
    form: str
    dtype: str
    is_new: bool
    """Whether any was compiled; else all were found."""
    seconds: float
    folders: frozenset[Path | None]
    """Where they are kept; None stands for those that cannot be."""


def _dense(kernels: Any, logits: Tensor, targets: Tensor) -> None:
    kernels.mask(logits, None, LAW)
    kernels.decide(logits, None, LAW)
    # Densities that all rows share become logarithms first.
    kernels.mask(logits, None, LAW._replace(density=torch.full_like(logits[0], 0.1)))


def _outcome(kernels: Any, logits: Tensor, targets: Tensor) -> None:
    kernels.decide(logits, targets, LAW)
    kernels.decide_with_totals(logits, targets, LAW)


def _gradient(kernels: Any, logits: Tensor, targets: Tensor) -> None:
    upstream = torch.ones(targets.shape, dtype=wide_dtype(logits), device=logits.device)
    totals = torch.ones((*targets.shape, 2), dtype=torch.float64, device=logits.device)
    kernels.target_log_prob_backward(upstream, logits, targets, totals, 1.0, -100)


def _sequences(kernels: Any, logits: Tensor, targets: Tensor) -> None:
    law = (1.0, 1, 0, 0, False)
    tokens = logits[:, :64].contiguous()
    kernels.decide_sequences(tokens, *law, tokens < 1, None, "sum")
    kernels.accept_prefix(tokens, *law, tokens < 1, None)


def _linear(kernels: Any, logits: Tensor, targets: Tensor) -> None:
    weight = torch.zeros(V, D, dtype=logits.dtype, device=logits.device)
    product = Product(logits[:, :D].contiguous(), weight, None, 1.0, 0.0, None)
    kernels.linear.mask(product, targets, LAW, True)
    kernels.linear.decide(product, targets, LAW)
    _, totals = kernels.linear.target_log_prob(product, targets, 1.0, -100)
    upstream = torch.ones(targets.shape, dtype=wide_dtype(logits), device=logits.device)
    every = Wanted(hidden=True, weight=True)
    kernels.linear.target_log_prob_backward(upstream, product, targets, totals, 1.0, -100, every)


# What each form of a kernel is called as; the names are those of the command's options.
FORMS: dict[str, Callable[[Any, Tensor, Tensor], object]] = {
    "mask": lambda kernels, logits, targets: kernels.mask(logits, targets, LAW),
    "lazy_mask": lambda kernels, logits, targets: kernels.mask(logits, targets, LAW, True),
    "outcome": _outcome,
    "dense": _dense,
    "log_prob": lambda kernels, logits, targets: kernels.target_log_prob(
        logits, targets, 1.0, -100
    ),
    "gradient": _gradient,
    "linear": _linear,
    "bernoulli": lambda kernels, logits, targets: kernels.bernoulli(
        logits[:, 0].contiguous(), 1.0, 1, 0, 0, False
    ),
    "ratios": lambda kernels, logits, targets: kernels.decide_ratios(
        logits[:, 0].contiguous(), 1.0, 1, 0, 0, False
    ),
    "sequences": _sequences,
}


def warm(
    devices: Sequence[str], dtypes: Sequence[str] = DTYPES, forms: Sequence[str] = tuple(FORMS)
) -> Iterator[Warmed]:
    """Compile the kernels of forms and dtypes, or find them, and yield each form that has any left.

    A kernel that serves several dtypes comes with the first of them.
    """
    for device in devices:
        kernels, look = _backend(device)
        for dtype in dtypes:
            for form in forms:
                before, begin = look(), time.perf_counter()
                for rows in ROWS[device]:
                    logits = torch.zeros(rows, V, dtype=getattr(torch, dtype), device=device)
                    targets = torch.zeros(rows, dtype=torch.int64, device=device)
                    FORMS[form](kernels, logits, targets)
                if device == "cpu":
                    _prepare_teams()
                if device == "cuda":
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - begin
                if changed := look() - before:
                    is_new = any(is_new for _, _, is_new, _ in changed)
                    folders = frozenset(folder for *_, folder in changed)
                    yield Warmed(device, form, dtype, is_new, seconds, folders)


def processor() -> str:
    """Return the name of the processor that CPU kernels are compiled for."""
    from numba.core.registry import cpu_target

    name: str = cpu_target.target_context.codegen().magic_tuple()[1]
    return name


def _backend(device: str) -> tuple[Any, Callable[[], set[Any]]]:
    """Return a backend, and what tells its kernels: (name, number, is new, folder) of each."""
    if device == "cuda":
        from rskernels.kernels import gpu

        return gpu, _triton_kernels
    from rskernels.kernels import cpu

    return cpu, _numba_kernels


def _prepare_teams() -> None:
    """Compile also what only large calls come to."""
    from rskernels.kernels.cpu.cache import made
    from rskernels.kernels.cpu.team import team_call

    for kernel in made():
        if kernel.py_func.__code__.co_varnames[:2] == ("share", "arguments"):
            team_call(kernel)


def _numba_kernels() -> set[Any]:
    from rskernels.kernels.cpu.cache import made

    kernels = set()
    for kernel in made():
        path = getattr(kernel._cache, "path", None)
        folder = path.parent if path else None
        for is_new, times in ((True, kernel.stats.cache_misses), (False, kernel.stats.cache_hits)):
            if number := sum(times.values()):
                kernels.add((kernel.__name__, number, is_new, folder))
    return kernels


def _triton_kernels() -> set[Any]:
    from triton import knobs

    folder = Path(knobs.cache.dir)
    return {(path.name, 1, True, folder) for path in folder.glob("*")}
