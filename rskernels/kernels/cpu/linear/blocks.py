"""Blocks of columns, and the products of rows with them by torch's BLAS.

A row's logits must have the same bits in whatever batch. A BLAS sums in an order of its own, which
it may choose by the shape: alone, or in the rest of a shape that its inner loops do not divide, a
row is summed otherwise. So rows, columns and features are padded with zeros to multiples of
``ROWS``, ``COLUMNS`` and ``FEATURES``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rskernels.kernels.layout import ORDER_BLOCK, wide_dtype
from rskernels.kernels.product import Product

FIRST_BLOCK = 256
WIDEST_BLOCK = 2048  # columns; beside a tile's logits a block of the weight stays in the cache
TILE = 512  # rows
ROWS, COLUMNS, FEATURES = 16, 64, 16


class Block(NamedTuple):
    """The columns from ``start`` on, so many, and the first column that is multiplied for them."""

    start: int
    width: int
    first: int


def blocks_of(V: int, order: Tensor | None) -> Iterator[Block]:
    """Yield the blocks that columns are added up in: a function of V and the order alone.

    Without an order they grow, so that a row that is soon certain costs little.
    """
    if order is not None:
        for place in order.tolist():
            start = place * ORDER_BLOCK
            yield _block(start, min(ORDER_BLOCK, V - start))
        return
    start, width = 0, FIRST_BLOCK
    while start < V:
        yield _block(start, min(width, V - start))
        start, width = start + width, min(2 * width, WIDEST_BLOCK)


def padded(count: int, step: int) -> int:
    """Return the next multiple of ``step``."""
    return -(-count // step) * step


def _block(start: int, width: int) -> Block:
    # What is missing in the last block comes from the one before.
    return Block(start, width, max(0, start + width - padded(width, COLUMNS)))


class Columns:
    """The parts of a product that have V rows, block by block as wide as sums are made in."""

    def __init__(self, product: Product) -> None:
        self.dtype = wide_dtype(product.hidden)
        self.V = len(product.weight)
        self.widest = min(WIDEST_BLOCK, padded(self.V, COLUMNS))
        self._weight = _at_least(product.weight, COLUMNS)
        self._B, self._scale = None, 0.0
        if product.lora is not None:
            self._B, self._scale = _at_least(product.lora.B, COLUMNS), product.lora.scale
        self._scratch: dict[str, Tensor] = {}

    def of(self, block: Block) -> tuple[Tensor, Tensor | None, float]:
        """Return (W^T, B^T, s) of a block, ready to be multiplied by."""
        columns = slice(block.first, block.first + padded(block.width, COLUMNS))
        weight = self._wide("weight", self._weight[columns])
        B = None if self._B is None else self._wide("B", self._B[columns]).t()
        return weight.t(), B, self._scale

    def _wide(self, name: str, part: Tensor) -> Tensor:
        if part.dtype == self.dtype and part.shape[1] % FEATURES == 0:
            return part
        if name not in self._scratch or len(self._scratch[name]) < len(part):
            self._scratch[name] = _zeros(part, self.dtype)
        wide = self._scratch[name][: len(part)]
        wide[:, : part.shape[1]] = part
        return wide


def _at_least(rows: Tensor, least: int) -> Tensor:
    """Return rows, with zeros after them where they are too few for a product."""
    missing = least - len(rows)
    return torch.nn.functional.pad(rows, (0, 0, 0, missing)) if missing > 0 else rows


def _zeros(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return zeros in which rows find place, of a shape that may be multiplied."""
    shape = padded(len(rows), ROWS), padded(rows.shape[1], FEATURES)
    return torch.zeros(shape, dtype=dtype, device="cpu")


class Rows(NamedTuple):
    """Rows that are multiplied in tiles: those of a batch, or those of it that are left."""

    hidden: Tensor  # [n, D]
    low_rank: Tensor | None  # [n, r], h A^T, r padded
    numbers: Tensor | None
    """Which rows of the batch these are, int64 [n]; None: the first n."""

    @property
    def length(self) -> int:
        """How many there are."""
        return len(self.hidden)

    def keep(self, kept: Tensor) -> Rows:
        """Return those of these rows that are named, int64."""
        return Rows(
            self.hidden.index_select(0, kept),
            None if self.low_rank is None else self.low_rank.index_select(0, kept),
            kept if self.numbers is None else self.numbers.index_select(0, kept),
        )


def tiles(values: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    """Yield tiles of rows in a dtype, with zeros after the last where it has too few."""
    for start in range(0, len(values), TILE):
        part = values[start : start + TILE]
        count = padded(len(part), ROWS)
        if count > len(part) or part.dtype != dtype or part.shape[1] % FEATURES:
            tile = _zeros(part, dtype)
            tile[: len(part), : part.shape[1]] = part
            part = tile
        yield part


def low_rank_states(product: Product) -> Tensor | None:
    """Return h A^T [N, r] where there is a LoRA, as every block of columns takes it."""
    if product.lora is None:
        return None
    hidden, dtype = product.hidden, wide_dtype(product.hidden)
    rank = len(product.lora.A)
    A = torch.zeros((padded(rank, COLUMNS), padded(hidden.shape[1], FEATURES)), dtype=dtype)
    A[:rank, : hidden.shape[1]] = product.lora.A
    states = torch.empty((len(hidden), padded(rank, FEATURES)), dtype=dtype, device="cpu")
    product_of_tile = torch.empty((TILE, len(A)), dtype=dtype, device="cpu")
    for at, tile in enumerate(tiles(hidden, dtype)):
        part = states[at * TILE : (at + 1) * TILE]
        # With ``out``, which autocast leaves alone.
        torch.mm(tile, A.t(), out=product_of_tile[: len(tile)])
        part.copy_(product_of_tile[: len(part), : states.shape[1]])
    return states
