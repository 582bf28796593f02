"""Decisions about given ratios in Triton: the kernel of ``bernoulli.py``, launched."""

from __future__ import annotations

import torch
import triton

from rskernels.kernels.gpu.bernoulli import bernoulli_kernel
from rskernels.kernels.gpu.launch import (
    BLOCK,
    on_device,
    outputs_of,
    row_arguments,
    seed_arguments,
    sums_of,
    wide_of,
)
from rskernels.kernels.layout import row_scalar
from rskernels.law.decision import DecidedRatios


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
    return _run(log_ratio, M, seed, row_offset, stream, log_space, ids, False)[0]


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
    mask, valid, summary = _run(log_ratio, M, seed, row_offset, stream, log_space, ids, True)
    return mask, valid, *sums_of(summary)


def _run(log_ratio, M, seed, row_offset, stream, log_space, ids, has_outputs):
    values, shape, N = log_ratio.contiguous(), log_ratio.shape, log_ratio.numel()
    mask = torch.empty(shape, dtype=torch.bool, device=log_ratio.device)
    programs = triton.cdiv(N, BLOCK)
    _, valid, summary = outputs_of(values, shape, programs, has_outputs)
    if N == 0:
        return mask, valid, summary
    with on_device(values.device):
        bernoulli_kernel[(programs,)](
            log_ratio_ptr=values,
            **row_arguments("M", row_scalar(M, shape), log_space, values),
            **seed_arguments(seed, values),
            row_offset=row_offset, stream_id=stream, N=N,  # Triton keeps ``stream`` for itself
            ids_ptr=values if ids is None else ids.contiguous(), HAS_IDS=ids is not None,
            mask_ptr=mask, valid_ratio_ptr=valid, summary_ptr=summary,
            BLOCK=BLOCK, WIDE=wide_of(values), LOG_SPACE=log_space, HAS_OUTPUTS=has_outputs,
        )  # fmt: skip
    return mask, valid, summary
