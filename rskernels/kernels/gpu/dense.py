"""The Triton dense form: every entry of a row is a decision of its own, a program a row.

A program reads a row for its total, and again for its entries while a cache still holds it. Of few
long rows the total comes from the parts' lanes, and a program decides a part.

float32: with t = 2**32 r, the leading word decides by itself, unless it equals floor(t): then the
entry is decided by the whole uniform, as every entry is in float64. That happens once in 2**32, so
the row is swept anew.
"""

import sys

import triton
import triton.language as tl

from rskernels.kernels.gpu.decide import SUMMARY, store_summary
from rskernels.kernels.gpu.law import (
    ACCEPT,
    FLOAT32_MOST,
    TRAILING,
    accepts,
    column_words,
    excess_of,
    is_valid,
    load_seed,
    log_difference,
    log_ratio_of,
    row_id_of,
    temperature_of,
    wide_log,
    word_uniform,
)
from rskernels.kernels.gpu.softmax import load_step, reference_of, row_offset_of, row_total
from rskernels.law import numbers

FLOAT64_MOST = tl.constexpr(sys.float_info.max)
LARGEST_SCALE = tl.constexpr(numbers.LARGEST_SCALE)
LOG2_E = tl.constexpr(numbers.LOG2_E)
WORD_BITS = tl.constexpr(32.0)
LARGEST_WORD = tl.constexpr(2.0**32 - 2.0**8)  # the largest float32 that a word holds


@triton.jit
def entry_log(
    ptr, start, stride, V, shared,
    TILE: tl.constexpr, WIDE: tl.constexpr, LOG_SPACE: tl.constexpr,
    HAS_TENSOR: tl.constexpr, IS_WHOLE: tl.constexpr,
):  # fmt: skip
    """Return the logarithms of the densities or Ms of a tile's entries."""
    if not HAS_TENSOR:
        return shared
    else:
        columns = start + tl.arange(0, TILE)
        addresses = ptr + columns.to(tl.int64) * stride
        value = tl.load(addresses) if IS_WHOLE else tl.load(addresses, mask=columns < V)
        return wide_log(value, WIDE, LOG_SPACE)


@triton.jit
def decide_words(log_r, row_id, start, seed, TILE: tl.constexpr, IS_EXACT: tl.constexpr):
    """Return (accepted, distance) of entries: where the distance is 0 the leading word is no proof.

    ``IS_EXACT`` decides those by the whole uniform. float64 always does, and tells a distance of 1.
    """
    stream = tl.full([], ACCEPT, tl.int64)
    lead = column_words(row_id, start, stream, seed, TILE)
    if log_r.dtype == tl.float64:
        trail = column_words(row_id, start, stream + TRAILING, seed, TILE)
        return accepts(log_r, word_uniform(lead, trail)), lead * 0 + 1
    else:
        least = tl.minimum(tl.exp2(tl.fma(log_r, LOG2_E, WORD_BITS)), LARGEST_WORD).to(tl.uint32)
        accepted = (lead < least) | (log_r >= 0.0)
        if IS_EXACT:
            trail = column_words(row_id, start, stream + TRAILING, seed, TILE)
            is_open = lead == least
            accepted = tl.where(is_open, accepts(log_r, word_uniform(lead, trail)), accepted)
        return accepted, lead ^ least


@triton.jit
def decide_tile(
    row_ptr, density_ptr, M_ptr, start, stride, density_stride, M_stride, V,
    log_density, log_M, top, inverse_temperature, log_total, row_id, seed,
    mask_ptr, log_prob_ptr, log_ratio_ptr,
    nearest, accepted_count, violation_count, valid_count, excess, mass,
    TILE: tl.constexpr, WIDE: tl.constexpr, IS_WHOLE: tl.constexpr, IS_EXACT: tl.constexpr,
    HAS_DENSITY: tl.constexpr, HAS_M: tl.constexpr,
    LOG_SPACE: tl.constexpr, MODEL_IS_TARGET: tl.constexpr, HAS_OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Decide a tile of a row's entries, and return the lanes' sums with what it adds.

    But for the nearest distance they change only where there are outputs.
    """
    z = load_step(row_ptr, row_ptr, start, stride, V, TILE, WIDE, IS_WHOLE, False)
    log_d = entry_log(
        density_ptr, start, density_stride, V, log_density, TILE, WIDE, LOG_SPACE, HAS_DENSITY,
        IS_WHOLE,
    )  # fmt: skip
    log_m = entry_log(M_ptr, start, M_stride, V, log_M, TILE, WIDE, LOG_SPACE, HAS_M, IS_WHOLE)
    infinity = float("inf")
    columns = start + tl.arange(0, TILE)
    present = tl.full([TILE], True, tl.int1) if IS_WHOLE else columns < V
    has_mass = z > -infinity
    log_q = tl.minimum(tl.fma(z - top, inverse_temperature, -log_total), 0.0)
    if HAS_OUTPUTS:
        # What is finite stays so.
        most = FLOAT32_MOST if tl.float32 == WIDE else FLOAT64_MOST
        log_q = tl.where(has_mass, tl.maximum(log_q, -most), -infinity)
    # Of what fails these the ratio is 0, or not one: it needs no case of its own.
    may_accept = has_mass & (tl.abs(log_d) < infinity) & (tl.abs(log_m) < infinity)
    log_r = log_difference(log_q, log_d, MODEL_IS_TARGET) - log_m
    accepted, distance = decide_words(log_r, row_id, start, seed, TILE, IS_EXACT)
    accepted &= may_accept & present
    tl.store(mask_ptr + columns, accepted, mask=present)
    nearest = tl.minimum(nearest, tl.where(present, distance, 1))
    if HAS_OUTPUTS:
        log_w = log_ratio_of(log_q, log_d, MODEL_IS_TARGET)
        log_w = tl.where(may_accept, tl.minimum(tl.maximum(log_w, -most), most), log_w)
        valid = present & is_valid(log_q, log_d, log_w, log_m)
        r = tl.where(valid, tl.exp(log_w - log_m), 0.0)
        tl.store(log_prob_ptr + columns, log_q, mask=present)
        tl.store(log_ratio_ptr + columns, tl.where(valid, log_w, float("nan")), mask=present)
        accepted_count += accepted.to(tl.int32)
        violation_count += (valid & (log_w > log_m)).to(tl.int32)
        valid_count += valid.to(tl.int32)
        excess += excess_of(r)
        mass += r
    return nearest, accepted_count, violation_count, valid_count, excess, mass


@triton.jit
def decide_span(
    row_ptr, density_ptr, M_ptr, first, end, stride, density_stride, M_stride, V,
    log_density, log_M, top, inverse_temperature, log_total, row_id, seed,
    mask_ptr, log_prob_ptr, log_ratio_ptr,
    LANES: tl.constexpr, WIDE: tl.constexpr, IS_EXACT: tl.constexpr,
    HAS_DENSITY: tl.constexpr, HAS_M: tl.constexpr,
    LOG_SPACE: tl.constexpr, MODEL_IS_TARGET: tl.constexpr, HAS_OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Decide a span of a row's entries.

    Return the lanes' nearest distance, and what they counted and summed: accepted, violations,
    valid, excess and mass.
    """
    nearest = tl.full([LANES], 1, tl.uint32)
    accepted_count = tl.zeros([LANES], tl.int32)
    violation_count = tl.zeros([LANES], tl.int32)
    valid_count = tl.zeros([LANES], tl.int32)
    excess = tl.zeros([LANES], WIDE)
    mass = tl.zeros([LANES], WIDE)
    whole = first
    if not IS_EXACT:
        whole = first + (end - first) // LANES * LANES
        for start in range(first, whole, LANES):
            nearest, accepted_count, violation_count, valid_count, excess, mass = decide_tile(
                row_ptr, density_ptr, M_ptr, start, stride, density_stride, M_stride, V,
                log_density, log_M, top, inverse_temperature, log_total, row_id, seed,
                mask_ptr, log_prob_ptr, log_ratio_ptr,
                nearest, accepted_count, violation_count, valid_count, excess, mass,
                LANES, WIDE, True, IS_EXACT,
                HAS_DENSITY, HAS_M, LOG_SPACE, MODEL_IS_TARGET, HAS_OUTPUTS,
            )  # fmt: skip
    for start in range(whole, end, LANES):
        nearest, accepted_count, violation_count, valid_count, excess, mass = decide_tile(
            row_ptr, density_ptr, M_ptr, start, stride, density_stride, M_stride, V,
            log_density, log_M, top, inverse_temperature, log_total, row_id, seed,
            mask_ptr, log_prob_ptr, log_ratio_ptr,
            nearest, accepted_count, violation_count, valid_count, excess, mass,
            LANES, WIDE, False, IS_EXACT,
            HAS_DENSITY, HAS_M, LOG_SPACE, MODEL_IS_TARGET, HAS_OUTPUTS,
        )  # fmt: skip
    return nearest, accepted_count, violation_count, valid_count, excess, mass


@triton.jit
def reject_span(
    start, end, mask_ptr, log_prob_ptr, log_ratio_ptr,
    LANES: tl.constexpr, HAS_OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Reject the entries of a row that has no softmax."""
    nan = float("nan")
    for first in range(start, end, LANES):
        columns = first + tl.arange(0, LANES)
        tl.store(mask_ptr + columns, columns < first, mask=columns < end)
        if HAS_OUTPUTS:
            tl.store(log_prob_ptr + columns, nan, mask=columns < end)
            tl.store(log_ratio_ptr + columns, nan, mask=columns < end)


@triton.jit(do_not_specialize=["seed", "row_offset"])
def dense_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    partials_ptr,
    density_ptr, density_outer, density_inner, density_stride, log_density: tl.float64,
    M_ptr, M_outer, M_inner, M_stride, log_M: tl.float64,
    seed_ptr, seed: tl.int64, row_offset: tl.int64,
    temperature_ptr, temperature_stride, temperature: tl.float64,
    span,  # entries a program
    mask_ptr,  # [N, V]
    log_prob_ptr,  # [N, V]
    log_ratio_ptr,  # [N, V]
    summary_ptr,  # [N, spans, SUMMARY]
    LANES: tl.constexpr, STEPS: tl.constexpr, WIDE: tl.constexpr, HAS_PARTIALS: tl.constexpr,
    HAS_DENSITY: tl.constexpr, HAS_M: tl.constexpr, HAS_SEED: tl.constexpr,
    HAS_TEMPERATURE: tl.constexpr,
    LOG_SPACE: tl.constexpr, MODEL_IS_TARGET: tl.constexpr, HAS_OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Decide every entry of a span of a row."""
    row = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * span
    end = tl.minimum(first + span, V)
    row_ptr = logits_ptr + row_offset_of(row, inner, outer_stride, inner_stride)
    density_ptr += row_offset_of(row, inner, density_outer, density_inner)
    M_ptr += row_offset_of(row, inner, M_outer, M_inner)
    mask_ptr += row * V
    if HAS_OUTPUTS:
        log_prob_ptr += row * V
        log_ratio_ptr += row * V
    T, scale = temperature_of(
        temperature_ptr, temperature_stride, temperature, row, HAS_TEMPERATURE
    )
    top, total = row_total(
        row_ptr, partials_ptr, row_ptr, row, stride, V, scale,
        reference_of(row_ptr, stride, V, LANES, WIDE),
        LANES, STEPS, WIDE, False, HAS_PARTIALS,
    )  # fmt: skip
    accepted, violations, valid = first * 0, first * 0, first * 0
    excess, mass = tl.full([], 0.0, WIDE), tl.full([], 0.0, WIDE)
    if (total > 0.0) & (T > 0.0):
        log_total = tl.log(total).to(WIDE)
        inverse_temperature = tl.minimum(1.0 / T, LARGEST_SCALE).to(WIDE)
        wide_top, row_id = top.to(WIDE), row_id_of(row_offset, row)
        log_d, log_m = tl.full([LANES], log_density, WIDE), tl.full([LANES], log_M, WIDE)
        key = load_seed(seed_ptr, seed, HAS_SEED)
        nearest, accepted, violations, valid, excess, mass = decide_span(
            row_ptr, density_ptr, M_ptr, first, end, stride, density_stride, M_stride, V,
            log_d, log_m, wide_top, inverse_temperature, log_total, row_id, key,
            mask_ptr, log_prob_ptr, log_ratio_ptr,
            LANES, WIDE, False,
            HAS_DENSITY, HAS_M, LOG_SPACE, MODEL_IS_TARGET, HAS_OUTPUTS,
        )  # fmt: skip
        if tl.min(nearest, 0) == 0:
            _, accepted, _, _, _, _ = decide_span(
                row_ptr, density_ptr, M_ptr, first, end, stride, density_stride, M_stride, V,
                log_d, log_m, wide_top, inverse_temperature, log_total, row_id, key,
                mask_ptr, log_prob_ptr, log_ratio_ptr,
                LANES, WIDE, True,
                HAS_DENSITY, HAS_M, LOG_SPACE, MODEL_IS_TARGET, HAS_OUTPUTS,
            )  # fmt: skip
        accepted, violations, valid = tl.sum(accepted, 0), tl.sum(violations, 0), tl.sum(valid, 0)
        excess, mass = tl.sum(excess, 0), tl.sum(mass, 0)
    else:
        reject_span(first, end, mask_ptr, log_prob_ptr, log_ratio_ptr, LANES, HAS_OUTPUTS)
    if HAS_OUTPUTS:
        program = row * tl.num_programs(1) + tl.program_id(1)
        store_summary(
            summary_ptr + program * SUMMARY,
            accepted, violations, end - first - valid, row * 0, excess, mass,
        )  # fmt: skip
