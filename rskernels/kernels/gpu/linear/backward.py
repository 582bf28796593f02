"""The gradient of ``target_log_prob`` of products, launched: bands of it written and carried on."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from rskernels.kernels.gpu.launch import on_device
from rskernels.kernels.gpu.linear.gradient import (
    band_kernel,
    bias_kernel,
    columns_kernel,
    rows_kernel,
    slope_kernel,
)
from rskernels.kernels.gpu.linear.launch import Packed, Rows, counts_of, low_rank_of, pack, rows_of
from rskernels.kernels.gpu.linear.tiles import (
    BAND,
    CHUNK,
    GROUP,
    band_constants,
    carry_constants,
    matrix_arguments,
    parts_of,
    product_arguments,
)
from rskernels.kernels.layout import wide_dtype
from rskernels.kernels.product import Gradients, Product, Wanted

BIAS_COLUMNS, BIAS_ROWS = 64, 64  # a program's tile of a band, summed over rows


class Left(NamedTuple):
    """A matrix of packed rows, as one or more summands."""

    parts: torch.Tensor  # [parts, N, width], the last dimension dense

    @property
    def width(self) -> int:
        """How many columns there are."""
        return self.parts.shape[2]


def target_log_prob_backward(
    upstream: torch.Tensor,
    product: Product,
    targets: torch.Tensor,
    totals: torch.Tensor,
    temperature: torch.Tensor | float,
    ignore_index: int,
    wanted: Wanted,
) -> Gradients:
    """Return the gradients of hidden, weight, bias, A and B, None where they are not wanted.

    Each has its tensor's shape and dtype, and is summed in float32, or float64 for float64.
    """
    hidden, weight, bias, *_, lora = product
    gradients = Gradients(
        torch.zeros_like(hidden, memory_format=torch.contiguous_format) if wanted.hidden else None,
        _dense(weight, wanted.weight),
        _dense(bias, wanted.bias),
        _dense(lora and lora.A, wanted.A),
        _dense(lora and lora.B, wanted.B),
    )
    if targets.numel() == 0:
        return Gradients(*(None if one is None else one.zero_() for one in gradients))
    with on_device(targets.device):
        rows = rows_of(product, targets, temperature)
        low = low_rank_of(rows)
        rows.arguments.update(product_arguments(rows.product, low))
        slope = rows.empty(rows.N, dtype=torch.float64)
        packed = _used(rows, upstream, ignore_index, slope)
        _carry_bands(rows, packed, (slope, totals), low, gradients)
    return gradients


def _dense(tensor, is_wanted):
    """Return room for a gradient, of which every element is written."""
    if tensor is None or not is_wanted:
        return None
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _used(rows, upstream, ignore_index, slope):
    """Write rows' slopes, and pack those where that is not 0."""
    verdict, counts = rows.empty(rows.N, dtype=torch.int8), counts_of(rows)
    slope_kernel[(len(counts),)](
        targets_ptr=rows.targets, upstream_ptr=upstream.contiguous(), N=rows.N,
        **rows.temperature, ignore_index=ignore_index,
        slope_ptr=slope, verdict_ptr=verdict, counts_ptr=counts, CHUNK=CHUNK,
    )  # fmt: skip
    return pack(rows, None, verdict, counts)


def _carry_bands(rows, packed, per_row, low, gradients):
    """Write the band of each BAND columns, and add what it gives to each gradient."""
    hidden, weight, *_, scale, _, lora = rows.product
    V, D = weight.shape
    wide = wide_dtype(weight)
    band = rows.empty(1, rows.N, min(BAND, V), dtype=weight.dtype)
    has_low = lora is not None and (gradients.hidden is not None or gradients.A is not None)
    hidden_sums = low_sums = None
    if gradients.hidden is not None:
        hidden_sums = rows.empty(rows.N, D, dtype=wide)
    if has_low:
        low_sums = rows.empty(rows.N, lora.A.shape[0], dtype=wide)
    for begin in range(0, V, BAND):
        columns = slice(begin, min(begin + BAND, V))
        width, is_first, is_last = columns.stop - begin, begin == 0, columns.stop == V
        _band(rows, packed, per_row, (begin, width), band)
        left = Left(band[..., :width])
        if hidden_sums is not None:
            turn = (is_first, is_last and not has_low)
            _to_rows(
                rows, packed, left, weight[columns], scale, turn, hidden_sums, gradients.hidden
            )
        if low_sums is not None:
            turn = (is_first, False)
            _to_rows(rows, packed, left, lora.B[columns], 1.0, turn, low_sums, low_sums)
        if gradients.weight is not None:
            _to_columns(rows, packed, left, hidden[None], scale, gradients.weight[columns])
        if gradients.B is not None:
            _to_columns(rows, packed, left, low, scale, gradients.B[columns])
        if gradients.bias is not None:
            bias_kernel[(triton.cdiv(width, BIAS_COLUMNS),)](
                band_ptr=left.parts, band_step=band.stride(1), width=width,
                count_ptr=packed.length, out_ptr=gradients.bias[columns],
                COLUMNS=BIAS_COLUMNS, DEPTH=BIAS_ROWS, WIDE=rows.constants["WIDE"],
            )  # fmt: skip
    if low_sums is None:
        return
    left, alpha = Left(_summands(low_sums, weight.dtype)), scale * lora.scale
    if hidden_sums is not None:
        _to_rows(rows, packed, left, lora.A, alpha, (False, True), hidden_sums, gradients.hidden)
    if gradients.A is not None:
        _to_columns(rows, packed, left, hidden[None], alpha, gradients.A)


def _band(rows: Rows, packed: Packed, per_row, columns, band):
    """Write the gradient of a band's columns, of the packed rows."""
    begin, width = columns
    slope, totals = per_row
    constants = band_constants(rows.product, rows.machine)
    items = triton.cdiv(rows.N, constants["ROWS"]) * triton.cdiv(width, constants["COLUMNS"])
    band_kernel[(min(items, rows.machine.processors),)](
        **rows.arguments, rows_ptr=packed.rows, count_ptr=packed.length,
        targets_ptr=rows.targets, slope_ptr=slope, totals_ptr=totals, **rows.temperature,
        N=rows.N, begin=begin, width=width, band_ptr=band,
        BAND=band.shape[2], GROUP=GROUP, **constants,
    )  # fmt: skip


def _to_rows(rows, packed, left, right, alpha, turn, sums, out):
    """Add alpha left @ right to packed rows' sums; in the last turn, to the rows they are."""
    across, (is_first, is_last) = right.shape[1], turn
    parts = len(left.parts)
    constants = carry_constants(rows.product, across, parts, rows.machine)
    tiles = triton.cdiv(rows.N, constants["ROWS"])
    rows_kernel[(tiles * triton.cdiv(across, constants["COLUMNS"]),)](
        left_ptr=left.parts, left_step=left.parts.stride(1), left_part=left.parts.stride(0),
        **matrix_arguments("right", right), width=left.width, across=across, alpha=alpha,
        rows_ptr=packed.rows, count_ptr=packed.length,
        is_first=int(is_first), is_last=int(is_last), sums_ptr=sums, out_ptr=out,
        PARTS=parts, **constants,
    )  # fmt: skip


def _to_columns(rows, packed, left, right, alpha, out):
    """Write alpha left^T @ right over the packed rows; right is [parts, N, across]."""
    across, parts = right.shape[2], max(len(left.parts), len(right))
    constants = carry_constants(rows.product, across, parts, rows.machine)
    tiles = triton.cdiv(left.width, constants["ROWS"])
    columns_kernel[(tiles * triton.cdiv(across, constants["COLUMNS"]),)](
        left_ptr=left.parts, left_step=left.parts.stride(1),
        left_part=left.parts.stride(0) if len(left.parts) > 1 else 0,
        **matrix_arguments("right", right[0]),
        right_part=right.stride(0) if len(right) > 1 else 0,
        width=left.width, across=across, alpha=alpha,
        rows_ptr=packed.rows, count_ptr=packed.length, out_ptr=out,
        PARTS=parts, **constants,
    )  # fmt: skip


def _summands(values, dtype):
    """Return values as summands of a dtype, each the rounding of what the others leave."""
    parts = []
    for _ in range(parts_of(dtype)):
        parts.append(values.to(dtype))
        values = values - parts[-1]
    return torch.stack(parts)
