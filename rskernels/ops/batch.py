"""A batch of sequences as it is given: padded, packed, or a list; checked, no value read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels._torch.sharded import is_sharded
from rskernels.law.seeds import CPU
from rskernels.ops.arguments import (
    FLOAT_DTYPES,
    INDEX_DTYPES,
    check_floating,
    check_strided,
    mask_of,
    may_be_odd,
    refuse_odd,
)

LAYOUTS = "[B, T], or [N] with cu_seqlens, or a list of tensors of one dimension"  # of log ratios


class Batch(NamedTuple):
    """Sequences as the operators take them."""

    log_ratio: Tensor
    """[B, T], or [N]."""
    mask: Tensor | None
    cu_seqlens: Tensor | None
    size: int
    """B."""
    sizes: list[int] | None = None
    """Of a list: how long its tensors are."""

    def in_its_layout(self, values: Tensor) -> Tensor | list[Tensor]:
        """Return a value of every entry as the sequences were given."""
        return values if self.sizes is None else list(values.split(self.sizes))

    def refuse_odd(self, **others: Any) -> None:
        """Refuse DTensors, what has a mask of its own, and transforms of these."""
        given = {"log_ratio": self.log_ratio, "mask": self.mask, "cu_seqlens": self.cu_seqlens}
        given |= others
        if not may_be_odd(*given.values()):
            return
        refuse_odd(given, "by the mask")
        for name, value in given.items():
            if is_sharded(value):
                raise TypeError(
                    f"{name} is a DTensor; give this rank's part, its to_local(), and a row_offset "
                    "for each rank"
                )


def batch_of(
    log_ratio: Tensor | Sequence[Tensor],
    mask: Tensor | Sequence[Tensor] | None,
    cu_seqlens: Tensor | None,
) -> Batch:
    """Return a batch of sequences.

    Raises
    ------
    TypeError, ValueError
        If a type, dtype, shape or device is none that ``accept_sequences`` takes.
    NotImplementedError
        For a list while a CUDA graph is captured.
    """
    if isinstance(log_ratio, (list, tuple)):
        if cu_seqlens is not None:
            raise ValueError("cu_seqlens is for packed log ratios [N], got it with a list")
        return _of_list(log_ratio, mask)
    if not isinstance(log_ratio, Tensor):
        raise TypeError(f"log_ratio must be {LAYOUTS}, got {type(log_ratio).__name__}")
    check_floating("log_ratio", log_ratio)
    if mask is not None:
        mask = mask_of("mask", mask, log_ratio)
    if cu_seqlens is None:
        if log_ratio.dim() != 2:
            raise ValueError(f"log_ratio must be {LAYOUTS}, got shape {list(log_ratio.shape)}")
        return Batch(log_ratio, mask, None, log_ratio.shape[0])
    _check_starts(cu_seqlens, log_ratio)
    return Batch(log_ratio, mask, cu_seqlens, cu_seqlens.shape[0] - 1)


def _of_list(log_ratio: Sequence[Tensor], mask: Tensor | Sequence[Tensor] | None) -> Batch:
    """Return sequences that are given each as a tensor of its own."""
    if mask is not None and not isinstance(mask, (list, tuple)):
        raise TypeError(f"mask must be a list as log_ratio is, got {type(mask).__name__}")
    if mask is not None and len(mask) != len(log_ratio):
        raise ValueError(f"mask has {len(mask)} tensors, log_ratio {len(log_ratio)}")
    # All at once where they are alike, as most are: one after the other they take longer.
    is_alike = mask is None and _are_alike(log_ratio)
    for at, values in enumerate(() if is_alike else log_ratio):
        check_floating(f"log_ratio[{at}]", values)
        if values.dim() != 1:
            raise ValueError(f"log_ratio[{at}] must have one dimension, got {list(values.shape)}")
        if values.device != log_ratio[0].device:
            raise ValueError(
                f"log_ratio[{at}] is on {values.device}, log_ratio[0] on {log_ratio[0].device}"
            )
        if mask is not None:
            mask_of(f"mask[{at}]", mask[at], values)
    sizes = [values.numel() for values in log_ratio]
    device = log_ratio[0].device if log_ratio else CPU
    joined = torch.cat(list(log_ratio)) if log_ratio else torch.empty(0, device=device)
    flags = torch.cat(list(mask)) if mask else None
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise NotImplementedError(
            "a CUDA graph cannot hold a list, whose lengths each replay would read from memory of "
            "the host that is gone; give the sequences packed, [N] with cu_seqlens on the device"
        )
    starts = torch.tensor([0, *accumulate(sizes)], dtype=torch.int64, device=CPU)
    # It waits for no device, which a copy that blocks would.
    starts = starts.to(device, non_blocking=True)
    return Batch(joined, flags, starts, len(sizes), sizes)


def _are_alike(tensors: Sequence[Tensor]) -> bool:
    """Whether all are plain tensors on the CPU, of one floating dtype and one dimension."""
    if not tensors or {*map(type, tensors)} != {Tensor}:
        return False
    dtype = tensors[0].dtype
    return dtype in FLOAT_DTYPES and all(
        values.dtype is dtype
        and values.is_cpu
        and values.dim() == 1
        and values.layout is torch.strided
        and not values.is_nested
        for values in tensors
    )


def _check_starts(cu_seqlens: Tensor, log_ratio: Tensor) -> None:
    if not isinstance(cu_seqlens, Tensor):
        raise TypeError(
            f"cu_seqlens must be an int64 or int32 tensor, got {type(cu_seqlens).__name__}"
        )
    if cu_seqlens.dtype not in INDEX_DTYPES:
        raise TypeError(f"cu_seqlens must be int64 or int32, got {cu_seqlens.dtype}")
    check_strided("cu_seqlens", cu_seqlens)
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] == 0:
        raise ValueError(
            f"cu_seqlens must have shape [B + 1], B of at least 0, got {list(cu_seqlens.shape)}"
        )
    if log_ratio.dim() != 1:
        raise ValueError(
            f"log_ratio must be packed, [N], where cu_seqlens is given, got {list(log_ratio.shape)}"
        )
    if cu_seqlens.device != log_ratio.device:
        raise ValueError(
            f"cu_seqlens is on {cu_seqlens.device}, the log ratios on {log_ratio.device}"
        )
