"""The gradients of ``target_log_prob`` with respect to what the logits are made of.

A block of the logits is made again, turned into slopes where it lies, and multiplied by what it
was made of; the logits are never stored. Rows without an upstream gradient are left out before the
first product. Sums are made in float32 or float64, and rounded once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rskernels.kernels.cpu.launch import CODE
from rskernels.kernels.cpu.linear.accumulate import add_products, pack_features
from rskernels.kernels.cpu.linear.blocks import (
    COLUMNS,
    Block,
    Columns,
    block_of,
    factor_of,
    low_rank_of,
    multiply,
    padded,
)
from rskernels.kernels.cpu.linear.launch import write_target_logits
from rskernels.kernels.cpu.linear.packing import pack
from rskernels.kernels.cpu.linear.slopes import LOGIT, slope_kernels
from rskernels.kernels.cpu.simd.vectors import LANES
from rskernels.kernels.cpu.threads import run_units
from rskernels.kernels.layout import wide_dtype
from rskernels.kernels.product import Gradients, Product, Wanted
from rskernels.law.numbers import LARGEST_SCALE, LEAST_TEMPERATURE, LOG2_E, MOST_TEMPERATURE

WIDTH, TILE = 2048, 1024  # columns and rows of a block; rows of whole groups
UNIT = 8  # rows of a thread's share


def target_log_prob_backward(
    upstream: Tensor,
    product: Product,
    targets: Tensor,
    totals: Tensor,
    temperature: Tensor | float,
    ignore_index: int,
    wanted: Wanted,
) -> Gradients:
    """Return the gradients with respect to the parts of a product that are wanted.

    ``upstream`` and ``targets`` are [...], N in all, ``totals`` [..., 2] what ``target_log_prob``
    has returned.
    """
    wanted = _possible(wanted, product)
    rows = _used_rows(upstream, product, targets, totals, temperature, ignore_index)
    if rows.length == 0 or not any(wanted):
        parts = (*product[:3], *(product.lora or (None, None))[:2])
        given = zip(parts, wanted, strict=True)
        return Gradients(*(_zeros_of(part) if wants else None for part, wants in given))
    sums = _Sums(product, rows, wanted)
    for start in range(0, sums.V, WIDTH):
        sums.add_block(start)
    return sums.gradients()


class _UsedRows(NamedTuple):
    """The rows that have a gradient, as sums are made of them."""

    hidden: Tensor  # [n, D]
    known: Tensor  # float64 [n, KNOWN], of which the target's logit is still to be written
    targets: Tensor  # int64 [n]
    places: Tensor | None
    """Which rows of the batch they are, int64 [n]; None: all."""

    @property
    def length(self) -> int:
        """How many there are."""
        return len(self.hidden)

    @property
    def dtype(self) -> torch.dtype:
        """Of the sums."""
        return wide_dtype(self.hidden)


def _used_rows(
    upstream: Tensor,
    product: Product,
    targets: Tensor,
    totals: Tensor,
    temperature: Tensor | float,
    ignore_index: int,
) -> _UsedRows:
    T = torch.as_tensor(temperature, dtype=torch.float64).expand(targets.shape).reshape(-1)
    T = torch.where((T >= LEAST_TEMPERATURE) & (T <= MOST_TEMPERATURE), T, torch.nan)
    slopes, indices = upstream.reshape(-1).double() / T, targets.reshape(-1).long()
    scales = (LOG2_E / T).clamp(max=LARGEST_SCALE)
    # A row of nothing but -inf has no softmax.
    softmax = totals.reshape(-1, 2).masked_fill(totals.reshape(-1, 2)[:, 1:] == 0.0, torch.nan)
    known = torch.stack([*softmax.unbind(1), scales, slopes, torch.full_like(slopes, torch.nan)], 1)
    hidden = product.hidden.detach()
    # A rejected row leaves no trace, not even of a NaN; a NaN upstream is no 0.
    is_used = (slopes != 0.0) & (upstream.reshape(-1) != 0.0) & (indices != ignore_index)
    places = None
    if not bool(is_used.all()):
        places = is_used.nonzero().view(-1)
        hidden, known, indices = (part.index_select(0, places) for part in (hidden, known, indices))
    return _UsedRows(hidden, known, indices.contiguous(), places)


class _Sums:
    """The gradients as they grow, block by block."""

    def __init__(self, product: Product, rows: _UsedRows, wanted: Wanted) -> None:
        self.product, self.rows, self.wanted = product, rows, wanted
        self.V, self.D = product.weight.shape
        self.dtype, self.factor = rows.dtype, factor_of(product.hidden.dtype)
        self.scale = product.scale
        bias, lora = product.bias, product.lora
        self.bias = None if bias is None else bias.detach().to(self.dtype).contiguous()
        count = padded(min(TILE, rows.length), self.factor.group)
        # Rows whose length is a power of two would share the places of a cache.
        self.stride = min(WIDTH, padded(self.V, COLUMNS)) + LANES
        self.buffer = self._empty(count, self.stride)
        self.scratch: dict[str, Tensor] = {}
        self.hidden = self._empty(rows.length, self.D) if wanted.hidden else None
        self.low_rank_sum = None
        self.packed: tuple[Tensor, ...] = (pack(rows.hidden, self.factor),)
        self.columns = [Columns(product.weight.detach(), self.factor)]
        of_rows = {"weight": rows.hidden}
        used = product._replace(hidden=rows.hidden)
        low_rank = low_rank_of(used)
        write_target_logits(used, low_rank, rows.targets, rows.known[:, LOGIT])
        if lora is not None and low_rank is not None:
            of_rows["B"] = low_rank
            # A tile's columns and rows are read where there are none, too.
            self.low_rank_sum = self._empty(rows.length + COLUMNS, len(lora.A))[: rows.length]
            self.packed += (pack(low_rank, self.factor.wide),)
            self.columns.append(Columns(lora.B.detach(), self.factor.wide))
        self.outer = {
            name: torch.empty_like(part.detach(), memory_format=torch.contiguous_format)
            for name, part in self._by_columns().items()
            if getattr(wanted, name)
        }
        self.bias_sum = self._empty(self.V) if wanted.bias else None
        self.features = [
            {name: pack_features(of_rows[name][tile], self.dtype) for name in self.outer}
            for tile in self._tiles()
        ]

    def add_block(self, start: int) -> None:
        """Make the logits of the block from a column on, and add what they do to the gradients."""
        block = block_of(start, min(WIDTH, self.V - start))
        columns = slice(start, start + block.width)
        multiplied = [part.of(block) for part in self.columns]
        sums = {name: self._sum_of(name, whole[columns]) for name, whole in self.outer.items()}
        features: dict[str, Tensor] = {}
        for tile, rows in zip(self._tiles(), self.features, strict=True):
            slopes = self._make_slopes(tile, block, multiplied)
            # After the first product, which has brought the block into the cache as it multiplied.
            features = features or self._features_of(columns)
            self._add_to_rows(slopes, tile, features, is_first=start == 0)
            beta = 0.0 if tile.start == 0 else 1.0
            for name, total in sums.items():
                # The low-rank states have their scale already.
                add_products(rows[name], slopes.t(), total, self.scale, beta)
            if self.bias_sum is not None:
                part = slopes.sum(0)
                self.bias_sum[columns] = part if beta == 0.0 else self.bias_sum[columns] + part
        for name, total in sums.items():
            if total.dtype != self.outer[name].dtype:
                self.outer[name][columns] = total

    def gradients(self) -> Gradients:
        """Return the gradients, rounded to what their parts are."""
        wanted, product, hidden = self.wanted, self.product, None
        A = None
        if product.lora is not None and self.low_rank_sum is not None:
            if wanted.A:
                A = self._empty(*product.lora.A.shape)
                rows = pack_features(self.rows.hidden, self.dtype)
                add_products(rows, self.low_rank_sum.t(), A, 1.0, 0.0)
                A = A.to(product.lora.A.dtype)
            if self.hidden is not None:
                rows = pack_features(product.lora.A.detach(), self.dtype)
                add_products(rows, self.low_rank_sum, self.hidden, 1.0, 1.0)
        if self.hidden is not None:
            hidden = self.hidden.to(product.hidden.dtype)
            if self.rows.places is not None:
                whole = torch.zeros(product.hidden.shape, dtype=hidden.dtype, device="cpu")
                hidden = whole.index_copy_(0, self.rows.places, hidden)
        bias = None
        if self.bias_sum is not None and product.bias is not None:
            bias = self.bias_sum.to(product.bias.dtype)
        return Gradients(hidden, self.outer.get("weight"), bias, A, self.outer.get("B"))

    def _make_slopes(self, tile: slice, block: Block, multiplied: list[Tensor]) -> Tensor:
        """Return the derivatives with respect to the scaled products of a block."""
        group, count = self.factor.group, tile.stop - tile.start
        groups = slice(tile.start // group, -(-tile.stop // group))
        made = self.buffer[: padded(count, group), : padded(block.width, COLUMNS)]
        pairs = tuple(
            (packed[groups], columns)
            for packed, columns in zip(self.packed, multiplied, strict=True)
        )
        multiply(self.factor, count, pairs, made)
        begin = block.start - block.first
        slopes = made[:count, begin : begin + block.width]
        run_units(
            slope_kernels[CODE[self.dtype]],
            (-(-count // UNIT), UNIT, count),
            slopes.numel(),
            (slopes.data_ptr(), self.stride, block.start, block.width),
            (self.rows.known[tile].data_ptr(), self.rows.targets[tile].data_ptr()),
            (self.scale, self.product.softcap, 0 if self.bias is None else self.bias.data_ptr()),
        )
        return slopes

    def _add_to_rows(
        self, slopes: Tensor, tile: slice, features: dict[str, Tensor], is_first: bool
    ) -> None:
        beta = 0.0 if is_first else 1.0
        if self.hidden is not None:
            add_products(features["weight"], slopes, self.hidden[tile], self.scale, beta)
        if self.low_rank_sum is not None and self.product.lora is not None:
            alpha = self.scale * self.product.lora.scale
            add_products(features["B"], slopes, self.low_rank_sum[tile], alpha, beta)

    def _features_of(self, columns: slice) -> dict[str, Tensor]:
        """Return what the rows' gradients are made of, packed."""
        return {
            name: pack_features(part[columns], self.dtype)
            for name, part in self._by_columns().items()
            if name != "weight" or self.hidden is not None
        }

    def _tiles(self) -> list[slice]:
        count = self.rows.length
        return [slice(start, min(start + TILE, count)) for start in range(0, count, TILE)]

    def _by_columns(self) -> dict[str, Tensor]:
        """Return the parts of the product that have V rows."""
        weight, lora = self.product.weight.detach(), self.product.lora
        return {"weight": weight} if lora is None else {"weight": weight, "B": lora.B.detach()}

    def _sum_of(self, name: str, part: Tensor) -> Tensor:
        """Return where a block's gradient is added up: where it will lie, if that is as wide."""
        if part.dtype == self.dtype:
            return part
        if name not in self.scratch:
            self.scratch[name] = self._empty(*part.shape)
        return self.scratch[name][: len(part)]

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device="cpu")


def _zeros_of(part: Tensor) -> Tensor:
    return torch.zeros(part.shape, dtype=part.dtype, device="cpu")


def _possible(wanted: Wanted, product: Product) -> Wanted:
    """Return what is wanted of the parts that there are."""
    has_bias, has_lora = product.bias is not None, product.lora is not None
    return Wanted(
        wanted.hidden, wanted.weight, wanted.bias and has_bias,
        wanted.A and has_lora, wanted.B and has_lora,
    )  # fmt: skip
