"""Triton kernels that weigh a row's entries by (p - q)+, and sum them part by part.

A row's law is (top, total, least) with its scale: p of a logit z that is at least ``least`` is
2**((z - top) * scale) / total, else 0. A hole is an entry that has no weight.
"""

import triton
import triton.language as tl

from rskernels.kernels.gpu.law import (
    LARGEST_SCALE,
    LEAST_TEMPERATURE,
    LOG2_E,
    MOST_TEMPERATURE,
)
from rskernels.kernels.gpu.softmax import (
    fixed_shift,
    load_step,
    octaves,
    row_offset_of,
    sum_of_lanes,
)
from rskernels.kernels.gpu.speculative.rows import lowest_of


@triton.jit
def scale_of(
    temperature_ptr, temperature_stride, temperature, request, HAS_TEMPERATURE: tl.constexpr
):
    """Return a request's T, which is 1 where it is greedy, log2(e)/T, and whether it is greedy."""
    if HAS_TEMPERATURE:
        given = tl.load(temperature_ptr + request.to(tl.int64) * temperature_stride).to(tl.float64)
    else:
        given = tl.full([], temperature, tl.float64)
    is_greedy = given == 0.0
    T = tl.where(is_greedy, 1.0, given)
    is_one = (T >= LEAST_TEMPERATURE) & (T <= MOST_TEMPERATURE)
    T = tl.where(is_one, T, float("nan"))
    scale = tl.minimum(tl.full([], LOG2_E, tl.float64) / T, LARGEST_SCALE)
    return T, scale, is_greedy


@triton.jit
def law_of_row(totals_ptr, least_ptr, row, WIDE: tl.constexpr, HAS_LEAST: tl.constexpr):
    """Return a row's (top, total, least), float64."""
    place = row.to(tl.int64)
    top, total = tl.load(totals_ptr + 2 * place), tl.load(totals_ptr + 2 * place + 1)
    least = lowest_of(WIDE)
    if HAS_LEAST:
        least = tl.load(least_ptr + place)
    return top, total, least


@triton.jit
def probabilities(z, top, scale, shift, factor, least, WIDE: tl.constexpr):
    """Return factor p of logits, in WIDE; the shift holds the total."""
    value = tl.exp2(octaves(z, scale.to(WIDE), top.to(WIDE), shift, WIDE)) * factor.to(WIDE)
    return tl.where(z >= least.to(WIDE), value, 0.0)


@triton.jit
def shift_of(top, total, scale, factor, WIDE: tl.constexpr):
    """Return what ``probabilities`` takes of a total and a factor: (shift, factor)."""
    log2_total = tl.log2(tl.where(total > 0.0, total, float("nan")))
    shift, rest = fixed_shift(top, scale, log2_total, WIDE)
    return shift, factor * tl.exp2(rest)


@triton.jit
def weights_of_step(
    p_ptr, p_stride, p_top, p_scale, p_shift, p_factor, p_least,
    q_ptr, q_stride, q_top, q_scale, q_shift, q_factor, q_least,
    hole, has_q, start, V, LANES: tl.constexpr, WIDE: tl.constexpr, HAS_DRAFT: tl.constexpr,
):  # fmt: skip
    """Return the weights of LANES entries from place ``start`` on, and their p, in WIDE."""
    z = load_step(p_ptr, p_ptr, start, p_stride, V, LANES, WIDE, False, False)
    p = probabilities(z, p_top, p_scale, p_shift, p_factor, p_least, WIDE)
    weights = p
    if HAS_DRAFT:  # noqa: SIM102 - known when it is compiled, unlike what follows
        if has_q:
            z = load_step(q_ptr, q_ptr, start, q_stride, V, LANES, WIDE, False, False)
            q = probabilities(z, q_top, q_scale, q_shift, q_factor, q_least, WIDE)
            weights = tl.maximum(p - q, 0.0)
    columns = start + tl.arange(0, LANES)
    return tl.where(columns == hole, 0.0, weights), p


@triton.jit
def laws_of_place(
    logits_ptr, inner, outer_stride, inner_stride,
    draft_ptr, draft_inner, draft_outer_stride, draft_inner_stride,
    tokens_ptr, factors_ptr, p_totals_ptr, p_least_ptr, q_totals_ptr, q_least_ptr,
    p_row, q_row, has_q, scale,
    WIDE: tl.constexpr, HAS_DRAFT: tl.constexpr, HAS_P_LEAST: tl.constexpr,
    HAS_Q_LEAST: tl.constexpr, IS_PROCESSED: tl.constexpr,
):  # fmt: skip
    """Return both laws of a place, as ``weights_of_step`` takes them, and the hole.

    Each is where its row lies and what ``probabilities`` takes, q with its scale, p with its total.
    Where the draft was certain, q is p's, which nobody reads, and its token is the hole.
    """
    p_top, p_total, p_least = law_of_row(p_totals_ptr, p_least_ptr, p_row, WIDE, HAS_P_LEAST)
    factor = tl.load(factors_ptr + p_row)
    p_shift, p_factor = shift_of(p_top, p_total, scale, factor, WIDE)
    p_ptr = logits_ptr + row_offset_of(p_row, inner, outer_stride, inner_stride)
    q_ptr, q_top, q_scale, q_shift, q_factor, q_least = (
        p_ptr, p_top, scale, p_shift, p_factor, p_least
    )  # fmt: skip
    hole = tl.full([], -1, tl.int64)
    if HAS_DRAFT:
        q_scale = tl.full([], LOG2_E, tl.float64) if IS_PROCESSED else scale
        q_top, q_total, q_least = law_of_row(q_totals_ptr, q_least_ptr, q_row, WIDE, HAS_Q_LEAST)
        q_shift, q_factor = shift_of(
            q_top, q_total, q_scale, tl.full([], 1.0, tl.float64), WIDE
        )  # fmt: skip
        q_ptr = draft_ptr + row_offset_of(
            q_row, draft_inner, draft_outer_stride, draft_inner_stride
        )
    else:
        hole = tl.where(has_q, tl.load(tokens_ptr + q_row, mask=has_q, other=-1).to(tl.int64), -1)
    return (
        p_ptr, p_top, p_total, p_least, p_shift, p_factor,
        q_ptr, q_top, q_scale, q_least, q_shift, q_factor, hole,
    )  # fmt: skip


@triton.jit
def weigh_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    draft_ptr, draft_inner, draft_outer_stride, draft_inner_stride, draft_stride,
    tokens_ptr,  # [R, K]
    places_ptr,  # [R]
    lengths_ptr,  # [R]
    factors_ptr,  # [R, K + 1]
    p_totals_ptr, p_least_ptr,  # [R, K + 1, 2], [R, K + 1]
    q_totals_ptr, q_least_ptr,  # [R, K, 2], [R, K]
    temperature_ptr, temperature_stride, temperature: tl.float64,
    sums_ptr,  # [R, rows, parts, 2]
    K, rows_a_request,
    LANES: tl.constexpr, STEPS: tl.constexpr, WIDE: tl.constexpr,
    HAS_DRAFT: tl.constexpr, HAS_P_LEAST: tl.constexpr, HAS_Q_LEAST: tl.constexpr,
    HAS_TEMPERATURE: tl.constexpr, IS_PROCESSED: tl.constexpr, IS_BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum a part of a row's weights, and of its p, a program a part."""
    PART: tl.constexpr = LANES * STEPS
    row = tl.program_id(0)
    part = tl.program_id(1)
    request = row // rows_a_request
    length = tl.load(lengths_ptr + request)
    place = tl.load(places_ptr + request)
    if IS_BLOCK:
        place = (row - request * rows_a_request).to(tl.int64)
    p_row = request.to(tl.int64) * (K + 1) + place
    q_row = request.to(tl.int64) * K + tl.minimum(place, K - 1)
    has_q = place < length
    _, scale, is_greedy = scale_of(
        temperature_ptr, temperature_stride, temperature, request, HAS_TEMPERATURE
    )
    (
        p_ptr, p_top, _, p_least, p_shift, p_factor,
        q_ptr, q_top, q_scale, q_least, q_shift, q_factor, hole,
    ) = laws_of_place(
        logits_ptr, inner, outer_stride, inner_stride,
        draft_ptr, draft_inner, draft_outer_stride, draft_inner_stride,
        tokens_ptr, factors_ptr, p_totals_ptr, p_least_ptr, q_totals_ptr, q_least_ptr,
        p_row, q_row, has_q, scale,
        WIDE, HAS_DRAFT, HAS_P_LEAST, HAS_Q_LEAST, IS_PROCESSED,
    )  # fmt: skip
    lanes = tl.zeros([LANES], tl.float64)
    p_lanes = tl.zeros([LANES], tl.float64)
    # Behind the last row of a request, or a greedy one, nothing is drawn by weight.
    end = tl.where((place <= length) & (is_greedy == 0), V, 0)
    for step in tl.static_range(STEPS):
        start = part * PART + step * LANES
        if start < end:
            weights, p = weights_of_step(
                p_ptr, stride, p_top, scale, p_shift, p_factor, p_least,
                q_ptr, draft_stride, q_top, q_scale, q_shift, q_factor, q_least,
                hole, has_q, start, V, LANES, WIDE, HAS_DRAFT,
            )  # fmt: skip
            lanes += weights.to(tl.float64)
            p_lanes += p.to(tl.float64)
    at = sums_ptr + (row.to(tl.int64) * tl.num_programs(1) + part) * 2
    tl.store(at, sum_of_lanes(lanes, LANES))
    tl.store(at + 1, sum_of_lanes(p_lanes, LANES))
