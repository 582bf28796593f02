"""The Triton passes of ``target_log_prob``: the log-probabilities and their gradient."""

import triton
import triton.language as tl

from rskernels.kernels.gpu.law import log_prob_of, target_of, temperature_of
from rskernels.kernels.gpu.softmax import (
    fixed_shift,
    load_step,
    octaves,
    row_offset_of,
    row_total,
)


@triton.jit(do_not_specialize=["ignore_index"])
def log_prob_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    partials_ptr,
    targets_ptr,  # [N]
    temperature_ptr, temperature_stride, temperature: tl.float64, ignore_index: tl.int64,
    log_prob_ptr,  # [N]
    totals_ptr,  # [N, 2]
    LANES: tl.constexpr, STEPS: tl.constexpr, WIDE: tl.constexpr,
    HAS_PARTIALS: tl.constexpr,
    HAS_TEMPERATURE: tl.constexpr,
):  # fmt: skip
    """Write a row's (top, total) and log q of its target."""
    row = tl.program_id(0)
    T, scale = temperature_of(
        temperature_ptr, temperature_stride, temperature, row, HAS_TEMPERATURE
    )
    row_ptr = logits_ptr + row_offset_of(row, inner, outer_stride, inner_stride)
    # A row without a temperature is read: what it has no softmax for is NaN anyhow.
    target, ignored, inside = target_of(targets_ptr, row, ignore_index, V, T, False)
    length = tl.where(inside, V, 0)
    z = tl.load(row_ptr + tl.where(inside, target, 0) * stride).to(tl.float64)
    top, total = row_total(
        row_ptr, partials_ptr, totals_ptr, row, stride, length, scale,
        z, LANES, STEPS, WIDE, False, HAS_PARTIALS,
    )  # fmt: skip
    totals_ptr += row.to(tl.int64) * 2
    tl.store(totals_ptr, top)
    tl.store(totals_ptr + 1, total)
    log_q = log_prob_of(z, top, total, T)
    tl.store(log_prob_ptr + row, tl.where(ignored, 0.0, log_q))


@triton.jit
def row_weights(top, total, slope, scale, WIDE: tl.constexpr):
    """Return (shift, weight, height): a row's gradient is -weight * 2**octaves, and there + height.

    ``shift`` goes with ``top`` into :func:`octaves`. A row without a softmax has a shift of NaN.
    """
    log2_total = tl.log2(tl.where(total > 0.0, total, float("nan")))
    shift, rest = fixed_shift(top, scale, log2_total, WIDE)
    return shift, (slope * tl.exp2(rest)).to(WIDE), slope.to(WIDE)


@triton.jit(do_not_specialize=["ignore_index"])
def gradient_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    targets_ptr,  # [N]
    upstream_ptr,  # [N]
    totals_ptr,  # [N, 2]
    temperature_ptr, temperature_stride, temperature: tl.float64, ignore_index: tl.int64,
    span,  # logits a program
    gradient_ptr,  # [N, V]
    LANES: tl.constexpr, STEPS: tl.constexpr, WIDE: tl.constexpr,
    HAS_TEMPERATURE: tl.constexpr,
):  # fmt: skip
    """Write slope * (1[v = target] - q_v) of a span of a row, 0 where it is not used."""
    PART: tl.constexpr = LANES * STEPS
    row = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * span
    end = tl.minimum(first + span, V)
    target = tl.load(targets_ptr + row).to(tl.int64)
    top = tl.load(totals_ptr + row * 2)
    total = tl.load(totals_ptr + row * 2 + 1)
    upstream = tl.load(upstream_ptr + row).to(tl.float64)
    T, exact_scale = temperature_of(
        temperature_ptr, temperature_stride, temperature, row, HAS_TEMPERATURE
    )
    slope = upstream / T
    gradient_ptr += row * V
    # A rejected row leaves no trace, not even of a NaN, and is not read.
    if (target == ignore_index) | (upstream == 0.0) | (slope == 0.0):
        for start in range(first, end, LANES):
            columns = start + tl.arange(0, LANES)
            zeros = tl.zeros([LANES], WIDE)
            tl.store(gradient_ptr + columns, zeros, mask=columns < V)
    else:
        row_ptr = logits_ptr + row_offset_of(row, inner, outer_stride, inner_stride)
        shift, weight, height = row_weights(top, total, slope, exact_scale, WIDE)
        column = tl.where((target >= 0) & (target < V), target, -1).to(tl.int32)
        wide_scale, wide_top = exact_scale.to(WIDE), top.to(WIDE)
        whole = first + (end - first) // PART * PART
        for start in range(first, whole, PART):
            for step in tl.static_range(STEPS):
                place = start + step * LANES
                columns = place + tl.arange(0, LANES)
                z = load_step(row_ptr, row_ptr, place, stride, V, LANES, WIDE, True, False)
                q = tl.exp2(octaves(z, wide_scale, wide_top, shift, WIDE)) * weight
                tl.store(gradient_ptr + columns, tl.where(columns == column, height, 0.0) - q)
        for start in range(whole, end, LANES):
            columns = start + tl.arange(0, LANES)
            z = load_step(row_ptr, row_ptr, start, stride, V, LANES, WIDE, False, False)
            q = tl.exp2(octaves(z, wide_scale, wide_top, shift, WIDE)) * weight
            value = tl.where(columns == column, height, 0.0) - q
            tl.store(gradient_ptr + columns, value, mask=columns < V)
