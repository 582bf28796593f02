"""Rejection control: weights that make the accepted law exact although ratios exceed M.

References
----------
Liu, Chen & Wong, "Rejection control and sequential importance sampling", JASA 93, 1998.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST_LOG_WEIGHT = 700.0  # float64 ends at exp(709.8)


def control_weights(log_ratio: Tensor, log_M: Tensor) -> Tensor:
    """Return max(w, M)/M, w = exp(log ratio), of rows accepted with probability min(1, w/M).

    Parameters
    ----------
    log_ratio : Tensor
        float64 ``[...]``.
    log_M : Tensor
        float64, of the rows; broadcasts to ``log_ratio``.

    Returns
    -------
    Tensor
        float64 ``[...]``, at most exp(700), so that sums of thousands of them are finite too; NaN
        for invalid rows, and where there is no M, or none above 0.
    """
    weights = (log_ratio - log_M).clamp(min=0.0, max=LARGEST_LOG_WEIGHT).exp()
    return torch.where((log_ratio < math.inf) & (log_M > -math.inf), weights, math.nan)
