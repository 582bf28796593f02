"""Thinning: which acceptances to keep once M has grown, so that they are as if decided by it."""

from __future__ import annotations

import torch
from torch import Tensor

from rskernels.law.streams import Stream
from rskernels.ops import bernoulli_mask
from rskernels.ops.arguments import density_argument


def thin(
    log_ratio: Tensor,
    log_M_then: Tensor | float,
    log_M_now: Tensor,
    *,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int = 0,
) -> Tensor:
    """Keep each acceptance with probability min(1, w/M now) / min(1, w/M then), bool ``[...]``.

    Parameters
    ----------
    log_ratio : Tensor
        Floating ``[...]``, of accepted rows; w is its exponential.
    log_M_then : Tensor or float
        What each was accepted with; broadcasts to ``log_ratio``. A tensor may be on the host.
    log_M_now : Tensor
        float64, on the device of ``log_ratio``; broadcasts to it.
    seed, generator, row_offset
        As in ``bernoulli_mask``, with its errors. The draws are those of ``Stream.THIN``.
    """
    device, shape = log_ratio.device, log_ratio.shape
    if isinstance(log_M_then, Tensor):
        log_M_then = log_M_then.to(device)
    log_M_then = density_argument("log_M", log_M_then, device, shape, True)
    ratios = log_ratio.detach().double()
    now = (ratios - log_M_now).clamp(max=0.0)
    then = (ratios - log_M_then).clamp(max=0.0)
    return bernoulli_mask(
        now - then,
        seed=seed,
        generator=generator,
        row_offset=row_offset,
        stream=Stream.THIN,
    )
