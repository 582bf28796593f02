"""What the operators return of tensors without values: shapes, dtypes and devices alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rskernels._torch.schemas import LIBRARY
from rskernels.kernels.layout import wide_dtype


@torch.library.register_fake("rskernels::mask", lib=LIBRARY)
def _(logits: Tensor, targets: Tensor | None, *rest: Any) -> Tensor:
    return logits.new_empty(_decisions(logits, targets), dtype=torch.bool)


@torch.library.register_fake("rskernels::decide", lib=LIBRARY)
def _(logits: Tensor, targets: Tensor | None, *rest: Any) -> tuple[Tensor, ...]:
    return _decided(logits, _decisions(logits, targets))


@torch.library.register_fake("rskernels::decide_with_totals", lib=LIBRARY)
def _(logits: Tensor, targets: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    mask, log_prob, *others = _decided(logits, targets.shape)
    return log_prob, _totals(logits), mask, *others


@torch.library.register_fake("rskernels::bernoulli", lib=LIBRARY)
def _(log_ratio: Tensor, *rest: Any) -> Tensor:
    return log_ratio.new_empty(log_ratio.shape, dtype=torch.bool)


@torch.library.register_fake("rskernels::decide_ratios", lib=LIBRARY)
def _(log_ratio: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    mask, _, log_w, counts, excess = _decided(log_ratio, log_ratio.shape)
    return mask, log_w, counts, excess


@torch.library.register_fake("rskernels::target_log_prob", lib=LIBRARY)
def _(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return logits.new_empty(logits.shape[:-1], dtype=wide_dtype(logits)), _totals(logits)


@torch.library.register_fake("rskernels::target_log_prob_backward", lib=LIBRARY)
def _(upstream: Tensor, logits: Tensor, *rest: Any) -> Tensor:
    return logits.new_empty(logits.shape)


def _decided(values: Tensor, shape: torch.Size) -> tuple[Tensor, ...]:
    dtype = wide_dtype(values)
    return (
        values.new_empty(shape, dtype=torch.bool),
        values.new_empty(shape, dtype=dtype),
        values.new_empty(shape, dtype=dtype),
        values.new_empty(4, dtype=torch.int64),
        values.new_empty(2, dtype=torch.float64),
    )


def _totals(logits: Tensor) -> Tensor:
    return logits.new_empty((*logits.shape[:-1], 2), dtype=torch.float64)


def _decisions(logits: Tensor, targets: Tensor | None) -> torch.Size:
    return logits.shape if targets is None else logits.shape[:-1]
