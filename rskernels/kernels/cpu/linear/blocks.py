"""Blocks of columns, and rows packed to be multiplied by them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rskernels.kernels.cpu.dtypes import BF16, F32, F64
from rskernels.kernels.cpu.linear.micro import FACTORS, FEW, Factor, multiplies_bf16
from rskernels.kernels.cpu.linear.multiply import CHUNK, multiply_kernels
from rskernels.kernels.cpu.linear.packing import DTYPE, pack, words_of
from rskernels.kernels.cpu.threads import run_units
from rskernels.kernels.layout import ORDER_BLOCK, wide_dtype
from rskernels.kernels.product import Product

FIRST_BLOCK = 64
WIDEST_BLOCK = 2048  # columns; a tile of that many stays in the cache
FIRST_SPAN, WIDEST_SPAN = 2048, 32768  # columns that few rows are multiplied by at once
SPAN_GROWTH = 8  # few rows wait for memory: a call less is worth columns read in vain
TILE = 512  # rows
COLUMNS = 8  # that are multiplied together
FEATURE_WORK = 16  # features of a product that cost what summing up a logit does

CODE = {"f32": F32, "f64": F64, "bf16": BF16}


class Block(NamedTuple):
    """The columns from ``start`` on, so many, and the first column that is multiplied for them."""

    start: int
    width: int
    first: int

    @property
    def columns(self) -> slice:
        """Those that are multiplied."""
        return slice(self.first, self.first + padded(self.width, COLUMNS))


def blocks_of(V: int, order: Tensor | None) -> Iterator[Block]:
    """Yield the blocks that columns are added up in: a function of V and the order alone.

    Without an order they grow, so that a row that is soon certain costs little.
    """
    if order is not None:
        for place in order.tolist():
            start = place * ORDER_BLOCK
            yield block_of(start, min(ORDER_BLOCK, V - start))
        return
    start, width = 0, FIRST_BLOCK
    while start < V:
        yield block_of(start, min(width, V - start))
        start, width = start + width, min(2 * width, WIDEST_BLOCK)


def block_of(start: int, width: int) -> Block:
    """Return the block of so many columns from one on."""
    # What is missing in the last block comes from the one before, if there is one.
    return Block(start, width, max(0, start + width - padded(width, COLUMNS)))


def span_of(blocks: list[Block], at: int, most: int) -> int:
    """Return how many blocks from one on follow each other and have that many columns at most.

    The block itself counts however wide it is.
    """
    end = at + 1
    while (
        end < len(blocks)
        and blocks[end].start == blocks[end - 1].start + blocks[end - 1].width
        and blocks[end].start + blocks[end].width - blocks[at].start <= most
    ):
        end += 1
    return end - at


def padded(count: int, step: int) -> int:
    """Return the next multiple of ``step``."""
    return -(-count // step) * step


def factor_of(dtype: torch.dtype) -> Factor:
    """Return what hidden states of a dtype are multiplied as."""
    if dtype == torch.bfloat16 and multiplies_bf16():
        return FACTORS["bf16"]
    return FACTORS["f64" if dtype == torch.float64 else "f32"]


class Columns:
    """A matrix with a row for each column of the logits, block by block as it is multiplied."""

    def __init__(self, rows: Tensor, factor: Factor) -> None:
        self._rows, self._factor = rows, factor
        self._scratch: Tensor | None = None
        width = rows.shape[1]
        is_dense = (rows.stride(1) == 1 or width <= 1) and width % factor.features == 0
        self.is_as_it_lies = is_dense and rows.dtype == DTYPE[factor.name]
        """Nothing is copied to be multiplied, unless a block has too few rows."""

    def of(self, block: Block) -> Tensor:
        """Return the rows of a block, of which the elements lie side by side.

        They are as many as are multiplied: where the matrix has fewer, others follow.
        """
        part, count = self._rows[block.columns], padded(block.width, COLUMNS)
        if self.is_as_it_lies and len(part) == count:
            return part
        width, dtype = part.shape[1], DTYPE[self._factor.name]
        if self._scratch is None or len(self._scratch) < count:
            shape = count, padded(width, self._factor.features)
            self._scratch = torch.zeros(shape, dtype=dtype, device="cpu")
        copied = self._scratch[:count]
        copied[: len(part), :width] = part
        return copied


class Rows(NamedTuple):
    """Rows that are multiplied: a batch, or those of it that are left."""

    hidden: Tensor  # [N, D] of the batch
    low_rank: Tensor | None  # [N, r] of the batch, s h A^T
    numbers: Tensor | None
    """Which rows of the batch these are, int64 [n]; None: all."""
    packed: tuple[Tensor, Tensor | None]
    """Both, packed."""

    @property
    def length(self) -> int:
        """How many there are."""
        return len(self.hidden if self.numbers is None else self.numbers)

    @property
    def are_few(self) -> bool:
        """Say whether they are packed as a few."""
        return self.packed[0].shape[2] == FEW

    def keep(self, kept: Tensor) -> Rows:
        """Return those of these rows that are named, int64."""
        numbers = kept if self.numbers is None else self.numbers.index_select(0, kept)
        return _packed(self.hidden, self.low_rank, numbers)


def rows_of(hidden: Tensor, low_rank: Tensor | None, kept: Tensor | None) -> Rows:
    """Return the rows of a batch that are named, or all of them."""
    return _packed(hidden, low_rank, kept)


def _packed(hidden: Tensor, low_rank: Tensor | None, numbers: Tensor | None) -> Rows:
    factor = factor_of(hidden.dtype)
    wide, count = factor.wide, len(hidden if numbers is None else numbers)
    are_few = count <= FEW and words_of(hidden, factor) % factor.piece == 0
    if low_rank is not None:
        are_few = are_few and words_of(low_rank, wide) % wide.piece == 0
    low = None if low_rank is None else pack(low_rank, wide, numbers, are_few)
    return Rows(hidden, low_rank, numbers, (pack(hidden, factor, numbers, are_few), low))


def multiply(
    factor: Factor, count: int, pairs: tuple[tuple[Tensor, Tensor], ...], out: Tensor
) -> None:
    """Write sums of products of packed rows with columns, [rows of the groups, columns].

    ``count`` is how many of the packed rows are not there to fill a group, ``pairs`` one or two
    of packed rows and of what they are multiplied by, the second in the precision of the sums.
    """
    numbers = [
        number
        for packed, columns in pairs
        for number in (
            (packed.data_ptr(), packed.shape[1]),
            (columns.data_ptr(), columns.stride(0) * columns.element_size()),
        )
    ]
    numbers += [(0, 0)] * (4 - len(numbers))
    groups, words = pairs[0][0].shape[:2]
    chunks = -(-out.shape[1] // CHUNK)
    run_units(
        multiply_kernels[CODE[factor.name]],
        (groups * chunks, pairs[0][0].shape[2], count),
        out.numel() * (1 + words // FEATURE_WORK),
        *numbers,
        (out.data_ptr(), out.stride(0) * out.element_size(), out.shape[1]),
    )


def low_rank_of(product: Product) -> Tensor | None:
    """Return s h A^T [N, r] where there is a LoRA, in the precision of the sums."""
    if product.lora is None:
        return None
    A, _, scale = product.lora
    hidden, rank = product.hidden, padded(len(A), COLUMNS)
    factor = factor_of(hidden.dtype)
    A = Columns(torch.nn.functional.pad(A, (0, 0, 0, rank - len(A))), factor).of(Block(0, rank, 0))
    shape = padded(len(hidden), factor.group), rank
    states = torch.empty(shape, dtype=wide_dtype(hidden), device="cpu")
    multiply(factor, len(hidden), ((pack(hidden, factor), A),), states)
    return states[: len(hidden), : len(product.lora.A)] * scale
