"""The order in which the masks visit the columns of a row."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor
from torch.masked import MaskedTensor

from rskernels._python.integers import as_integer
from rskernels._torch.sharded import is_sharded
from rskernels.kernels.layout import ORDER_BLOCK

Self = TypeVar("Self", bound="ColumnOrder")


class ColumnOrder:
    """Blocks of 1024 columns in the order in which they are read.

    A decision that ends early reads less where the columns of the largest probabilities come
    first. Most vocabularies list frequent tokens first and need no order. Decisions in a given
    order are as invariant to batches as without one; between orders they differ by the rounding of
    a float32 sum.

    Parameters
    ----------
    blocks : Tensor
        int64 or int32 ``[ceil(V / 1024)]``, a permutation: block b is the columns from 1024 b.
        It is checked here, which waits for the device, and never again.
    V : int
        How many columns a row has.

    Raises
    ------
    TypeError, ValueError
        If ``blocks`` is not such a permutation, or V not an int of at least 1.
    """

    BLOCK = ORDER_BLOCK

    def __init__(self, blocks: Tensor, V: int):
        V = as_integer("V", V)
        if V < 1:
            raise ValueError(f"V must be at least 1, got {V}")
        _check_readable("blocks", blocks)
        if blocks.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"blocks must be int64 or int32, got {blocks.dtype}")
        count = -(-V // self.BLOCK)
        if blocks.shape != (count,):
            raise ValueError(
                f"blocks must have shape [{count}] for {V} columns, got {list(blocks.shape)}"
            )
        if not torch.equal(blocks.sort().values.cpu(), torch.arange(count, dtype=blocks.dtype)):
            raise ValueError(f"blocks must be a permutation of 0 to {count - 1}")
        self.V = V
        self.blocks = blocks.detach().to(torch.int64, copy=True).contiguous()

    @classmethod
    def by_weight(cls: type[Self], weights: Tensor) -> Self:
        """Return the order of falling weight.

        Parameters
        ----------
        weights : Tensor
            ``[V]``, at least 0: counts of the tokens, or their mean probabilities.
        """
        _check_readable("weights", weights)
        if weights.dim() != 1 or len(weights) == 0 or weights.is_complex():
            raise ValueError(
                f"weights must be real and have shape [V], got {weights.dtype} "
                f"{list(weights.shape)}"
            )
        values = weights.detach().double()
        if not bool((values >= 0).all()):
            raise ValueError("weights must be at least 0, got a negative one or NaN")
        V = len(values)
        padded = torch.nn.functional.pad(values, (0, -V % cls.BLOCK))
        sums = padded.view(-1, cls.BLOCK).sum(-1)
        return cls(sums.argsort(descending=True, stable=True), V)

    def to(self: Self, device: torch.device | str) -> Self:
        """Return the same order on a device."""
        moved = copy.copy(self)
        moved.blocks = self.blocks.to(device)
        return moved

    def __repr__(self) -> str:
        return f"ColumnOrder({len(self.blocks)} blocks, V={self.V}, device={self.blocks.device})"


def _check_readable(name: str, values: Tensor) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(values).__name__}")
    if values.layout is not torch.strided or values.is_meta:
        raise ValueError(
            f"{name} must be a strided tensor that holds values, got one of layout "
            f"{values.layout} on {values.device}"
        )
    if isinstance(values, MaskedTensor) or is_sharded(values):
        raise TypeError(
            f"{name} must hold all its values on every rank and without a mask, "
            f"got a {type(values).__name__}"
        )
