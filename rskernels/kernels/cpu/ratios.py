"""Decisions about given ratios in Numba: the loops of ``bernoulli.py``, launched."""

from __future__ import annotations

import torch

from rskernels.kernels.cpu.bernoulli import bernoulli_rows, decide_ratio_rows
from rskernels.kernels.cpu.launch import (
    CODE,
    SCALAR_UNIT,
    draw_numbers,
    row_numbers,
    sums_of,
)
from rskernels.kernels.cpu.threads import run_units
from rskernels.kernels.layout import wide_dtype
from rskernels.law.decision import DecidedRatios
from rskernels.law.numbers import SUMMARY

SCALAR_WORK = 16  # logits that a ratio costs, where nothing else is read


def bernoulli(
    log_ratio: torch.Tensor,
    M: torch.Tensor | float,
    seed: torch.Tensor | int,
    row_offset: int,
    stream: int,
    log_space: bool,
    ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """Accept element n of ``log_ratio`` where log r - log M >= log u of row n; bool [...]."""
    mask = torch.empty(log_ratio.shape, dtype=torch.bool, device="cpu")
    draw = (*draw_numbers(seed, row_offset), stream)
    _run(bernoulli_rows, log_ratio, M, draw, ids, log_space, mask.data_ptr())
    return mask


def decide_ratios(
    log_ratio: torch.Tensor,
    M: torch.Tensor | float,
    seed: torch.Tensor | int,
    row_offset: int,
    stream: int,
    log_space: bool,
    ids: torch.Tensor | None = None,
) -> DecidedRatios:
    """Decide as ``bernoulli`` does, and return (mask, log_ratio, counts, excess)."""
    mask = torch.empty(log_ratio.shape, dtype=torch.bool, device="cpu")
    valid = torch.empty(log_ratio.shape, dtype=wide_dtype(log_ratio), device="cpu")
    units = -(-log_ratio.numel() // SCALAR_UNIT)
    summaries = torch.zeros((units, SUMMARY), dtype=torch.float64, device="cpu")
    draw = (*draw_numbers(seed, row_offset), stream)
    outputs = (mask.data_ptr(), valid.data_ptr(), summaries.data_ptr())
    _run(decide_ratio_rows, log_ratio, M, draw, ids, log_space, outputs)
    return mask, valid, *sums_of(summaries)


def _run(kernel, log_ratio, M, draw, ids, log_space, outputs):
    # Copies are named, so that they live until the kernel returns.
    values = log_ratio.to(wide_dtype(log_ratio)).contiguous()
    N = values.numel()
    ids = None if ids is None else ids.contiguous()
    M, M_numbers = row_numbers(M, log_ratio)
    run_units(
        kernel,
        (-(-N // SCALAR_UNIT), SCALAR_UNIT, N),
        N * SCALAR_WORK,
        (values.data_ptr(), CODE[values.dtype]),
        M_numbers,
        (*draw, 0 if ids is None else ids.data_ptr()),
        log_space,
        outputs,
    )
