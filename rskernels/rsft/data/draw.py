"""Training inputs of a target density, drawn by rejection from the rows of a pool."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rskernels.sampling import RejectionResult, rejection_sample
from rskernels.sampling.bound import ProvedLogM


def draw_rows(log_ratio: Tensor, num_samples: int, **options: Any) -> RejectionResult:
    """Draw rows of a pool, with replacement, in proportion to exp(log_ratio).

    The pool's rows follow the proposal q, and ``log_ratio`` is log p − log q of each: what is
    drawn follows p as far as the pool tells. A row is proposed uniformly and accepted with
    probability w/M, M the largest ratio of the pool: as the pool is all that can be proposed, that
    M bounds every ratio, and learning it from the rows biases nothing.

    Parameters
    ----------
    log_ratio : Tensor
        Floating ``[rows]``. NaN and +inf are never drawn.
    num_samples : int
        How many to draw.
    **options
        Of :func:`rskernels.rejection_sample`. With ``log_M`` M is that instead.

    Returns
    -------
    RejectionResult
        ``samples`` int64 ``[num_samples]``, indices of rows, on the device of ``log_ratio``.

    Raises
    ------
    ValueError
        If ``log_ratio`` has another shape, or no row has a ratio above 0 and below +inf.
    RejectionError
        If a limit is reached.
    """
    if log_ratio.dim() != 1 or not len(log_ratio):
        raise ValueError(
            f"log_ratio must have shape [rows] of at least 1, got {list(log_ratio.shape)}"
        )
    log_ratio = log_ratio.detach()
    if "log_M" not in options:
        largest = log_ratio.where(log_ratio < math.inf, -math.inf).max().item()
        if largest == -math.inf:
            raise ValueError(
                f"none of the {len(log_ratio)} rows has a ratio p/q above 0 and below infinity"
            )
        options["log_M"] = ProvedLogM(largest)
    uniform = (
        lambda n: torch.randint(len(log_ratio), (n,), device=log_ratio.device),
        lambda rows: log_ratio.new_zeros(len(rows)),
    )
    return rejection_sample(lambda rows: log_ratio[rows], uniform, num_samples, **options)
