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
from rskernels.kernels.cpu.linear.slopes import slope_kernels
from rskernels.kernels.cpu.threads import run_units
from rskernels.kernels.layout import wide_dtype
from rskernels.kernels.product import Gradients, Product, Wanted
from rskernels.law.numbers import LARGEST_SCALE, LEAST_TEMPERATURE, LOG2_E, MOST_TEMPERATURE

WIDTH, TILE = 2048, 1024  # columns and rows of a block: few, and still as fast as whole products
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
        sums.add_block(slice(start, min(start + WIDTH, sums.V)))
    return sums.gradients()


class _UsedRows(NamedTuple):
    """The rows that have a gradient, as sums are made of them."""

    hidden: Tensor  # [n, D]
    known: Tensor  # float64 [n, 4]: reference, total, log2(e)/T, slope
    targets: Tensor  # int64 [n]
    places: Tensor | None
    """Which rows of the batch they are, int64 [n]; None: all."""

    @property
    def length(self) -> int:
        """How many there are."""
        return len(self.hidden)


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
    known = torch.cat([softmax, scales[:, None], slopes[:, None]], 1)
    hidden = product.hidden.detach()
    # A rejected row leaves no trace, not even of a NaN; a NaN upstream is no 0.
    is_used = (slopes != 0.0) & (upstream.reshape(-1) != 0.0) & (indices != ignore_index)
    places = None
    if not bool(is_used.all()):
        places = is_used.nonzero().view(-1)
        hidden, known, indices = (part.index_select(0, places) for part in (hidden, known, indices))
    return _UsedRows(hidden.to(wide_dtype(hidden)), known, indices.contiguous(), places)


class _Sums:
    """The gradients as they grow, block by block."""

    def __init__(self, product: Product, rows: _UsedRows, wanted: Wanted) -> None:
        self.product, self.rows, self.wanted = product, rows, wanted
        self.V, self.D = product.weight.shape
        self.dtype = rows.hidden.dtype
        bias = product.bias
        self.bias = None if bias is None else bias.detach().to(self.dtype).contiguous()
        self.buffer = self._empty(min(TILE, rows.length) * min(WIDTH, self.V))
        self.scratch: dict[str, Tensor] = {}
        self.hidden = self._empty(rows.length, self.D)
        self.low_rank = self.low_rank_sum = None
        if product.lora is not None:
            A = product.lora.A.detach().to(self.dtype)
            self.low_rank = self._empty(rows.length, len(A))
            # With ``out``, which autocast leaves alone, as it does what is added in place.
            torch.mm(rows.hidden, A.t(), out=self.low_rank)
            self.low_rank_sum = torch.empty_like(self.low_rank)
        self.outer = {
            name: torch.empty_like(part.detach(), memory_format=torch.contiguous_format)
            for name, part in self._by_columns().items()
            if getattr(wanted, name)
        }
        self.bias_sum = self._empty(self.V) if wanted.bias else None

    def add_block(self, columns: slice) -> None:
        """Make the logits of a block of columns, and add what they do to the gradients."""
        width = columns.stop - columns.start
        parts = {name: self._wide(name, part[columns]) for name, part in self._by_columns().items()}
        sums = {name: self._sum_of(name, whole[columns]) for name, whole in self.outer.items()}
        for start in range(0, self.rows.length, TILE):
            tile = slice(start, min(start + TILE, self.rows.length))
            slopes = self.buffer[: (tile.stop - start) * width].view(-1, width)
            self._make_slopes(slopes, tile, columns, parts)
            self._add_to_rows(slopes, tile, parts, is_first=columns.start == 0)
            self._add_to_columns(slopes, tile, sums)
            if self.bias_sum is not None:
                part = slopes.sum(0)
                self.bias_sum[columns] = part if start == 0 else self.bias_sum[columns] + part
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
                torch.mm(self.low_rank_sum.t(), self.rows.hidden, out=A)
                A = A.to(product.lora.A.dtype)
            if wanted.hidden:
                self.hidden.addmm_(self.low_rank_sum, product.lora.A.detach().to(self.dtype))
        if wanted.hidden:
            hidden = self.hidden.to(product.hidden.dtype)
            if self.rows.places is not None:
                whole = torch.zeros(product.hidden.shape, dtype=hidden.dtype, device="cpu")
                hidden = whole.index_copy_(0, self.rows.places, hidden)
        bias = None
        if self.bias_sum is not None and product.bias is not None:
            bias = self.bias_sum.to(product.bias.dtype)
        return Gradients(hidden, self.outer.get("weight"), bias, A, self.outer.get("B"))

    def _make_slopes(
        self, slopes: Tensor, tile: slice, columns: slice, parts: dict[str, Tensor]
    ) -> None:
        """Write the derivatives with respect to the scaled products of a block."""
        torch.mm(self.rows.hidden[tile], parts["weight"].t(), out=slopes)
        if self.low_rank is not None and self.product.lora is not None:
            slopes.addmm_(self.low_rank[tile], parts["B"].t(), alpha=self.product.lora.scale)
        count, width = slopes.shape
        run_units(
            slope_kernels[CODE[self.dtype]],
            (-(-count // UNIT), UNIT, count),
            count * width,
            (slopes.data_ptr(), width, columns.start, width),
            (self.rows.known[tile].data_ptr(), self.rows.targets[tile].data_ptr()),
            (
                self.product.scale,
                self.product.softcap,
                0 if self.bias is None else self.bias.data_ptr(),
            ),
        )

    def _add_to_rows(
        self, slopes: Tensor, tile: slice, parts: dict[str, Tensor], is_first: bool
    ) -> None:
        beta, scale = 0.0 if is_first else 1.0, self.product.scale
        if self.wanted.hidden:
            self.hidden[tile].addmm_(slopes, parts["weight"], beta=beta, alpha=scale)
        if self.low_rank_sum is not None and self.product.lora is not None:
            alpha = scale * self.product.lora.scale
            self.low_rank_sum[tile].addmm_(slopes, parts["B"], beta=beta, alpha=alpha)

    def _add_to_columns(self, slopes: Tensor, tile: slice, sums: dict[str, Tensor]) -> None:
        beta, scale = 0.0 if tile.start == 0 else 1.0, self.product.scale
        if "weight" in sums:
            sums["weight"].addmm_(slopes.t(), self.rows.hidden[tile], beta=beta, alpha=scale)
        if "B" in sums and self.low_rank is not None and self.product.lora is not None:
            alpha = scale * self.product.lora.scale
            sums["B"].addmm_(slopes.t(), self.low_rank[tile], beta=beta, alpha=alpha)

    def _by_columns(self) -> dict[str, Tensor]:
        """Return the parts of the product that have V rows."""
        weight, lora = self.product.weight.detach(), self.product.lora
        return {"weight": weight} if lora is None else {"weight": weight, "B": lora.B.detach()}

    def _wide(self, name: str, part: Tensor) -> Tensor:
        """Return a block of a part as wide as sums are."""
        return part if part.dtype == self.dtype else self._room(name, part).copy_(part)

    def _sum_of(self, name: str, part: Tensor) -> Tensor:
        """Return where a block's gradient is added up: where it will lie, if that is as wide."""
        return part if part.dtype == self.dtype else self._room(f"sum of {name}", part)

    def _room(self, name: str, part: Tensor) -> Tensor:
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
