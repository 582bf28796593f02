"""The Triton gradient of log q of targets whose logits are not stored, a band of columns at a time.

A band's gradient with respect to x = scale (h W^T + s (h A^T) B^T) + bias is written once, N times
BAND elements in the dtype of the inputs, and read by the products that carry it on. So the logits
are multiplied once more and each gradient costs one product: 6 N V D operations in all, where
either of two gradients that kept it in registers would multiply the logits again for each of its
tiles along D, and a sum over programs would need atomic additions, in whatever order. The band
costs 2 N V elements written and 4 read, a thirtieth of the products' time at D = 4,096 on an H200.

Rows whose slope is 0 are not among the packed ones: what they hold, a NaN too, leaves no trace.
"""

import triton
import triton.language as tl

from rskernels.kernels.gpu.gradient import row_weights
from rskernels.kernels.gpu.law import temperature_of
from rskernels.kernels.gpu.linear.packing import OPEN, REJECTED, packed_rows, store_verdict
from rskernels.kernels.gpu.linear.product import grouped, logits_tile
from rskernels.kernels.gpu.softmax import octaves


@triton.jit(do_not_specialize=["N", "ignore_index"])
def slope_kernel(
    targets_ptr,  # [N]
    upstream_ptr,  # [N]
    N,
    temperature_ptr, temperature_stride, temperature: tl.float64, ignore_index: tl.int64,
    slope_ptr,  # [N]
    verdict_ptr,  # [N]
    counts_ptr,  # [chunks]
    CHUNK: tl.constexpr, HAS_TEMPERATURE: tl.constexpr,
):  # fmt: skip
    """Write upstream / T of rows, and open those where that is anything but 0."""
    rows, is_inside = packed_rows(targets_ptr, targets_ptr, N, CHUNK, False)
    T, _ = temperature_of(temperature_ptr, temperature_stride, temperature, rows, HAS_TEMPERATURE)
    target = tl.load(targets_ptr + rows).to(tl.int64)
    upstream = tl.load(upstream_ptr + rows).to(tl.float64)
    slope = upstream / T
    # A rejected row is left out, even where its temperature is NaN.
    is_unused = (target == ignore_index) | (upstream == 0.0) | (slope == 0.0)
    tl.store(slope_ptr + rows, slope, mask=is_inside)
    verdict = tl.where(is_unused, REJECTED, OPEN)
    store_verdict(verdict_ptr, counts_ptr, rows, is_inside, verdict)


@triton.jit(do_not_specialize=["N", "begin", "width"])
def band_kernel(
    hidden_ptr, hidden_step, hidden_stride, weight_ptr, weight_step, weight_stride,
    bias_ptr, bias_stride, low_ptr, B_ptr, B_step, B_stride,
    scale: tl.float64, softcap: tl.float64, D, V, R,
    rows_ptr,  # [N], of which the first ``count`` are read
    count_ptr,  # [1]
    targets_ptr,  # [N]
    slope_ptr,  # [N]
    totals_ptr,  # [N, 2]
    temperature_ptr, temperature_stride, temperature: tl.float64,
    N, begin, width,  # of the band's columns
    band_ptr,  # [N, BAND], rows as packed
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, RANK: tl.constexpr,
    PARTS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, IS_EVEN: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, HAS_LORA: tl.constexpr,
    BAND: tl.constexpr, GROUP: tl.constexpr, HAS_TEMPERATURE: tl.constexpr,
):  # fmt: skip
    """Write slope * (1[v = target] - q_v), times the slope of the softcap, of a band of columns."""
    count = tl.load(count_ptr)
    tiles, across = tl.cdiv(count, ROWS), tl.cdiv(width, COLUMNS)
    for item in range(tl.program_id(0), tiles * across, tl.num_programs(0)):
        tile, place = grouped(item, tiles, across, GROUP)
        places = tile * ROWS + tl.arange(0, ROWS)
        rows = tl.load(rows_ptr + tl.minimum(places, count - 1))
        within = place * COLUMNS + tl.arange(0, COLUMNS)
        columns = begin + within
        z = logits_tile(
            hidden_ptr, hidden_step, hidden_stride, weight_ptr, weight_step, weight_stride,
            bias_ptr, bias_stride, low_ptr, B_ptr, B_step, B_stride, scale, softcap, D, R, N,
            rows, tl.minimum(columns, V - 1),
            ROWS, COLUMNS, DEPTH, RANK, PARTS, WIDE, PRECISION, IS_EVEN,
            HAS_BIAS, HAS_SOFTCAP, HAS_LORA,
        )  # fmt: skip
        _, steepness = temperature_of(
            temperature_ptr, temperature_stride, temperature, rows, HAS_TEMPERATURE
        )
        steepness += tl.zeros([ROWS], tl.float64)
        top = tl.load(totals_ptr + rows.to(tl.int64) * 2)
        total = tl.load(totals_ptr + rows.to(tl.int64) * 2 + 1)
        shift, weight, height = row_weights(top, total, tl.load(slope_ptr + rows), steepness, WIDE)
        below = octaves(z, steepness.to(WIDE)[:, None], top.to(WIDE)[:, None], shift[:, None], WIDE)
        is_target = columns[None, :] == tl.load(targets_ptr + rows).to(tl.int64)[:, None]
        value = tl.where(is_target, height[:, None], 0.0) - tl.exp2(below) * weight[:, None]
        if HAS_SOFTCAP:
            part = z / tl.full([], softcap, WIDE)
            value *= 1.0 - part * part
        at = band_ptr + places.to(tl.int64)[:, None] * BAND + within[None, :]
        is_inside = (places < count)[:, None] & (within < width)[None, :]
        tl.store(at, value, mask=is_inside)


@triton.jit(do_not_specialize=["width", "is_first", "is_last"])
def rows_kernel(
    left_ptr, left_step, left_part,  # [PARTS, N, width], rows as packed
    right_ptr, right_step, right_stride,  # [width, across]
    width, across, alpha: tl.float64,
    rows_ptr,  # [N], of which the first ``count`` are written
    count_ptr,  # [1]
    is_first, is_last,
    sums_ptr,  # [N, across], rows as packed
    out_ptr,  # [N, across]
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PARTS: tl.constexpr,
    WIDE: tl.constexpr, PRECISION: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Add alpha left @ right to rows' sums; where it is the last time, write them as results."""
    count = tl.load(count_ptr)
    tiles, blocks = tl.cdiv(count, ROWS), tl.cdiv(across, COLUMNS)
    if tl.program_id(0) >= tiles * blocks:
        return
    tile, block = grouped(tl.program_id(0), tiles, blocks, GROUP)
    places = tile * ROWS + tl.arange(0, ROWS)
    columns = block * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    sums = tl.zeros([ROWS, COLUMNS], WIDE)
    from_left = left_ptr + tl.minimum(places, count - 1).to(tl.int64)[:, None] * left_step
    to_right = right_ptr + tl.minimum(columns, across - 1).to(tl.int64)[None, :] * right_stride
    for start in range(0, width, DEPTH):
        inner = start + depth
        at_right = to_right + inner.to(tl.int64)[:, None] * right_step
        right = tl.load(at_right, mask=(inner < width)[:, None], other=0.0)
        for part in tl.static_range(PARTS):
            at_left = from_left + inner[None, :] + part * left_part
            left = tl.load(at_left, mask=(inner < width)[None, :], other=0.0)
            sums = tl.dot(left, right, sums, input_precision=PRECISION, out_dtype=WIDE)
    is_inside = (places < count)[:, None] & (columns < across)[None, :]
    at = sums_ptr + places.to(tl.int64)[:, None] * across + columns[None, :]
    before = tl.load(at, mask=is_inside & (is_first == 0), other=0.0)
    sums = before + sums * tl.full([], alpha, WIDE)
    tl.store(at, sums, mask=is_inside & (is_last == 0))
    rows = tl.load(rows_ptr + tl.minimum(places, count - 1))
    at = out_ptr + rows.to(tl.int64)[:, None] * across + columns[None, :]
    tl.store(at, sums, mask=is_inside & (is_last != 0))


@triton.jit(do_not_specialize=["width"])
def columns_kernel(
    left_ptr, left_step, left_part,  # [PARTS, N, width], rows as packed
    right_ptr, right_step, right_stride, right_part,  # [PARTS, N, across]
    width, across, alpha: tl.float64,
    rows_ptr,  # [N], of which the first ``count`` are read
    count_ptr,  # [1]
    out_ptr,  # [width, across]
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PARTS: tl.constexpr,
    WIDE: tl.constexpr, PRECISION: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Write alpha left^T @ right over the packed rows: a program owns a tile, and takes all rows.

    Of one side there may be PARTS, of which the other's one is multiplied by each.
    """
    count = tl.load(count_ptr)
    tiles, blocks = tl.cdiv(width, ROWS), tl.cdiv(across, COLUMNS)
    tile, block = grouped(tl.program_id(0), tiles, blocks, GROUP)
    within = tile * ROWS + tl.arange(0, ROWS)
    columns = block * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    sums = tl.zeros([ROWS, COLUMNS], WIDE)
    from_left = left_ptr + tl.minimum(within, width - 1)[:, None]
    to_right = right_ptr + tl.minimum(columns, across - 1).to(tl.int64)[None, :] * right_stride
    for start in range(0, count, DEPTH):
        places = start + depth
        is_row = places < count
        rows = tl.load(rows_ptr + places, mask=is_row, other=0)
        for part in tl.static_range(PARTS):
            at_left = from_left + places.to(tl.int64)[None, :] * left_step + part * left_part
            at_right = to_right + rows.to(tl.int64)[:, None] * right_step + part * right_part
            left = tl.load(at_left, mask=is_row[None, :], other=0.0)
            right = tl.load(at_right, mask=is_row[:, None], other=0.0)
            sums = tl.dot(left, right, sums, input_precision=PRECISION, out_dtype=WIDE)
    at = out_ptr + within.to(tl.int64)[:, None] * across + columns[None, :]
    is_inside = (within < width)[:, None] & (columns < across)[None, :]
    tl.store(at, sums * tl.full([], alpha, WIDE), mask=is_inside)


@triton.jit(do_not_specialize=["width"])
def bias_kernel(
    band_ptr, band_step,  # [N, width], rows as packed
    width,
    count_ptr,  # [1]
    out_ptr,  # [width]
    COLUMNS: tl.constexpr, DEPTH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Write the sums of a band's columns over the packed rows."""
    count = tl.load(count_ptr)
    within = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    sums = tl.zeros([COLUMNS], WIDE)
    for start in range(0, count, DEPTH):
        places = start + tl.arange(0, DEPTH)
        at = band_ptr + places.to(tl.int64)[:, None] * band_step + within[None, :]
        is_inside = (places < count)[:, None] & (within < width)[None, :]
        sums += tl.sum(tl.load(at, mask=is_inside, other=0.0).to(WIDE), 0)
    tl.store(out_ptr + within, sums, mask=within < width)
