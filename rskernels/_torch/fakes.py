"""What the operators return of tensors without values: shapes, dtypes and devices alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rskernels._torch.schemas import LIBRARY, SCHEMAS
from rskernels.kernels.layout import wide_dtype

CU_SEQLENS = [field.name for field in SCHEMAS["accept_prefix"].fields].index("cu_seqlens")
TARGETS = [field.name for field in SCHEMAS["linear_mask"].fields].index("targets")


@torch.library.register_fake("rskernels::mask", lib=LIBRARY)
def _(logits: Tensor, targets: Tensor | None, *rest: Any) -> Tensor:
    return logits.new_empty(_decisions(logits, targets), dtype=torch.bool)


@torch.library.register_fake("rskernels::decide", lib=LIBRARY)
def _(logits: Tensor, targets: Tensor | None, *rest: Any) -> tuple[Tensor, ...]:
    return _decided(logits, _decisions(logits, targets))


@torch.library.register_fake("rskernels::decide_with_totals", lib=LIBRARY)
def _(logits: Tensor, targets: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _decided_with_totals(logits, targets.shape)


@torch.library.register_fake("rskernels::linear_mask", lib=LIBRARY)
def _(*fields: Any) -> Tensor:
    hidden, targets = fields[0], fields[TARGETS]
    return hidden.new_empty(targets.shape, dtype=torch.bool)


@torch.library.register_fake("rskernels::linear_decide", lib=LIBRARY)
def _(*fields: Any) -> tuple[Tensor, ...]:
    return _decided(fields[0], fields[TARGETS].shape)


@torch.library.register_fake("rskernels::linear_decide_with_totals", lib=LIBRARY)
def _(*fields: Any) -> tuple[Tensor, ...]:
    return _decided_with_totals(fields[0], fields[TARGETS].shape)


@torch.library.register_fake("rskernels::linear_target_log_prob", lib=LIBRARY)
def _(*fields: Any) -> tuple[Tensor, Tensor]:
    return _log_prob(fields[0], fields[TARGETS].shape)


@torch.library.register_fake("rskernels::bernoulli", lib=LIBRARY)
def _(log_ratio: Tensor, *rest: Any) -> Tensor:
    return log_ratio.new_empty(log_ratio.shape, dtype=torch.bool)


@torch.library.register_fake("rskernels::decide_ratios", lib=LIBRARY)
def _(log_ratio: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    mask, _, log_w, counts, excess = _decided(log_ratio, log_ratio.shape)
    return mask, log_w, counts, excess


@torch.library.register_fake("rskernels::decide_sequences", lib=LIBRARY)
def _(log_ratio: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    B = _sequences(log_ratio, *rest)
    mask, _, _, counts, excess = _decided(log_ratio, B)
    token_mask = log_ratio.new_empty(log_ratio.shape, dtype=torch.bool)
    statistic = log_ratio.new_empty(B, dtype=torch.float64)
    lengths = log_ratio.new_empty(B, dtype=torch.int64)
    return mask, token_mask, statistic, lengths, counts, excess, lengths.new_empty(2)


@torch.library.register_fake("rskernels::accept_prefix", lib=LIBRARY)
def _(log_ratio: Tensor, *rest: Any) -> Tensor:
    return log_ratio.new_empty(_sequences(log_ratio, *rest), dtype=torch.int64)


@torch.library.register_fake("rskernels::target_log_prob", lib=LIBRARY)
def _(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _log_prob(logits, logits.shape[:-1])


@torch.library.register_fake("rskernels::target_log_prob_backward", lib=LIBRARY)
def _(upstream: Tensor, logits: Tensor, *rest: Any) -> Tensor:
    return logits.new_empty(logits.shape)


@torch.library.register_fake("rskernels::linear_target_log_prob_backward", lib=LIBRARY)
def _(upstream: Tensor, *fields: Any) -> list[Tensor]:
    *product, _, _, wanted = fields[: TARGETS + 3]
    parts = (*product[:3], *product[5:7])
    return [part.new_empty(part.shape) for part, wants in zip(parts, wanted, strict=True) if wants]


def _sequences(log_ratio: Tensor, *rest: Any) -> torch.Size:
    cu_seqlens = rest[CU_SEQLENS - 1]
    return torch.Size((log_ratio.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1,))


def _log_prob(values: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    return (
        values.new_empty(shape, dtype=wide_dtype(values)),
        values.new_empty((*shape, 2), dtype=torch.float64),
    )


def _decided(values: Tensor, shape: torch.Size) -> tuple[Tensor, ...]:
    dtype = wide_dtype(values)
    return (
        values.new_empty(shape, dtype=torch.bool),
        values.new_empty(shape, dtype=dtype),
        values.new_empty(shape, dtype=dtype),
        values.new_empty(4, dtype=torch.int64),
        values.new_empty(2, dtype=torch.float64),
    )


def _decided_with_totals(values: Tensor, shape: torch.Size) -> tuple[Tensor, ...]:
    mask, _, *others = _decided(values, shape)
    return *_log_prob(values, shape), mask, *others


def _decisions(logits: Tensor, targets: Tensor | None) -> torch.Size:
    return logits.shape if targets is None else logits.shape[:-1]
