"""Triton kernels that decide on a request's draft tokens and draw the token that follows.

A program is a request; its places lie side by side. Words are those of (seed, id, place, stream).
"""

import triton
import triton.language as tl

from rskernels.kernels.gpu.law import LEAST_LOG
from rskernels.kernels.gpu.softmax import row_offset_of, sum_of_lanes
from rskernels.kernels.gpu.speculative.draws import key_of, place_uniforms, residual_uniform
from rskernels.kernels.gpu.speculative.rows import lowest_of
from rskernels.kernels.gpu.speculative.weights import (
    laws_of_place,
    scale_of,
    weights_of_step,
)


@triton.jit
def log_p_at(z, top, total, least, T):
    """Return log p of logits, float64: -inf of those that are not kept."""
    log_p = tl.minimum((z - top) / T - tl.log(total), 0.0)
    return tl.where(z >= least, log_p, float("-inf"))


@triton.jit
def laws_at(
    logits_ptr, inner, outer_stride, inner_stride, stride, totals_ptr, least_ptr, rows, tokens,
    inside, T, WIDE: tl.constexpr, HAS_LEAST: tl.constexpr,
):  # fmt: skip
    """Return (whether rows have a law, log p of a token of each)."""
    top = tl.load(totals_ptr + 2 * rows, mask=inside, other=0.0)
    total = tl.load(totals_ptr + 2 * rows + 1, mask=inside, other=1.0)
    least = lowest_of(WIDE)
    if HAS_LEAST:
        least = tl.load(least_ptr + rows, mask=inside, other=0.0)
    at = row_offset_of(rows, inner, outer_stride, inner_stride) + tokens * stride
    z = tl.load(logits_ptr + at, mask=inside, other=0.0).to(tl.float64)
    has_law = (total > 0.0) & (total < float("inf")) & (tl.abs(top) < float("inf"))
    return has_law, log_p_at(z, top, tl.where(has_law, total, 1.0), least, T)


@triton.jit(do_not_specialize=["seed", "row_offset"])
def open_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    draft_ptr, draft_inner, draft_outer_stride, draft_inner_stride, draft_stride,
    tokens_ptr,  # [R, K]
    lengths_ptr,  # [R]
    p_totals_ptr, p_least_ptr, tops_ptr,  # [R, K + 1, 2], [R, K + 1], [R, K + 1]
    q_totals_ptr, q_least_ptr,  # [R, K, 2], [R, K]
    temperature_ptr, temperature_stride, temperature: tl.float64,
    top_k_ptr, top_p_ptr,
    seed_ptr, seed: tl.int64, seed_step, ids_ptr, row_offset: tl.int64, id_step,
    accepted_ptr, ends_ptr, bad_ptr,  # [R]
    factors_ptr, log_prob_ptr,  # [R, K + 1]
    K,
    PLACES: tl.constexpr, WIDE: tl.constexpr,
    HAS_DRAFT: tl.constexpr, HAS_P_LEAST: tl.constexpr, HAS_Q_LEAST: tl.constexpr,
    HAS_TEMPERATURE: tl.constexpr, HAS_TOP_K: tl.constexpr, HAS_TOP_P: tl.constexpr,
    HAS_LENGTHS: tl.constexpr, HAS_SEED: tl.constexpr, HAS_IDS: tl.constexpr,
    IS_PROCESSED: tl.constexpr, IS_BLOCK: tl.constexpr, IS_FORCED: tl.constexpr,
):  # fmt: skip
    """Decide a request's draft tokens one by one, or write what a block is decided by."""
    request = tl.program_id(0)
    length = tl.full([], 0, tl.int64) + K
    if HAS_LENGTHS:
        length = tl.load(lengths_ptr + request).to(tl.int64)
    is_wrong = (length < 0) | (length > K)
    length = tl.where(is_wrong, 0, length)
    T, _, is_greedy = scale_of(
        temperature_ptr, temperature_stride, temperature, request, HAS_TEMPERATURE
    )
    is_wrong |= (T > 0.0) == 0
    if HAS_TOP_K:
        is_wrong |= tl.load(top_k_ptr + request) < 0
    if HAS_TOP_P:
        share = tl.load(top_p_ptr + request)
        is_wrong |= ((share > 0.0) & (share <= 1.0)) == 0

    places = tl.arange(0, PLACES)
    # Of the places' shape: in the interpreter, a condition of one number does not spread.
    greedy = places * 0 + is_greedy.to(tl.int32) > 0
    is_wrong = places * 0 + is_wrong.to(tl.int32) > 0
    is_draft = places < length
    tokens = tl.load(
        tokens_ptr + request.to(tl.int64) * K + places, mask=is_draft, other=0
    ).to(tl.int64)  # fmt: skip
    outside = (tokens < 0) | (tokens >= V)
    tokens = tl.where(outside, 0, tokens)
    rows = request.to(tl.int64) * (K + 1) + places
    has_p, log_p = laws_at(
        logits_ptr, inner, outer_stride, inner_stride, stride, p_totals_ptr, p_least_ptr, rows,
        tokens, places <= length, T, WIDE, HAS_P_LEAST,
    )  # fmt: skip
    has_q, log_q = has_p, log_p * 0.0
    log_q = tl.where(has_p, 0.0, 0.0)
    if HAS_DRAFT:
        T_draft = tl.full([], 1.0, tl.float64) if IS_PROCESSED else T
        has_q, log_q = laws_at(
            draft_ptr, draft_inner, draft_outer_stride, draft_inner_stride, draft_stride,
            q_totals_ptr, q_least_ptr, request.to(tl.int64) * K + places, tokens, is_draft,
            T_draft, WIDE, HAS_Q_LEAST,
        )  # fmt: skip
        has_q = has_q | greedy
    bad = (places <= length) & ((has_p == 0) | (is_draft & (outside | (has_q == 0))))
    bad = bad | ((places == 0) & is_wrong)
    first_bad = tl.min(tl.where(bad, places, PLACES), 0).to(tl.int64)
    end = tl.minimum(length, first_bad)

    own_seed, own_id = key_of(
        seed_ptr, seed, seed_step, ids_ptr, row_offset, id_step, request, HAS_SEED, HAS_IDS
    )
    log_u = tl.log(place_uniforms(own_id, places, own_seed).to(tl.float64))
    is_possible = (log_p >= LEAST_LOG) & (log_q >= LEAST_LOG)
    log_r = tl.where(is_possible, log_p - log_q, float("-inf"))
    is_accepted = log_r >= log_u
    tops = tl.load(tops_ptr + rows, mask=is_draft & greedy, other=-1)
    is_accepted = tl.where(greedy, tokens == tops, is_accepted)
    log_p = tl.where(greedy, 0.0, log_p)
    is_rejected = (is_accepted == 0) | (places >= end)
    accepted = tl.min(tl.where(is_rejected, places, PLACES), 0).to(tl.int64)
    if IS_FORCED:
        accepted = accepted * 0
    tl.store(accepted_ptr + request, accepted)
    tl.store(ends_ptr + request, end)
    tl.store(bad_ptr + request, first_bad)
    tl.store(log_prob_ptr + rows, log_p, mask=is_draft)
    factor = tl.full([], 1.0, tl.float64)
    tl.store(factors_ptr + request.to(tl.int64) * (K + 1), factor)
    for place in range(0, K):
        if IS_BLOCK:
            ratio = tl.exp(tl.sum(tl.where(places == place, tl.minimum(log_r, 700.0), 0.0), 0))
            factor = tl.minimum(factor * tl.where(ratio >= 0.0, ratio, 0.0), 1.0)
        tl.store(factors_ptr + request.to(tl.int64) * (K + 1) + place + 1, factor)


@triton.jit
def sum_of_parts(sums_ptr, parts, WHICH: tl.constexpr):
    """Return the sum of a row's parts, float64."""
    total = tl.full([], 0.0, tl.float64)
    for part in range(0, parts):
        total += tl.load(sums_ptr + 2 * part + WHICH)
    return total


@triton.jit
def certainty_of(s, factor):
    """Return s / (s + 1 - c); 1 where both are 0: the laws agree, a longer prefix is certain."""
    rest = s + 1.0 - factor
    return tl.where(rest > 0.0, s / tl.where(rest > 0.0, rest, 1.0), 1.0)


@triton.jit
def part_of_goal(sums_ptr, parts, goal, which):
    """Return the first part by which a row's sums reach a goal, and the sum before it."""
    total = tl.full([], 0.0, tl.float64)
    before, found = total, tl.full([], -1, tl.int64)
    for part in range(0, parts):
        following = total + tl.load(sums_ptr + 2 * part + which)
        is_here = (found < 0) & (following >= goal)
        found = tl.where(is_here, part, found)
        before = tl.where(is_here, total, before)
        total = following
    return tl.where(found < 0, parts - 1, found), before


@triton.jit(do_not_specialize=["seed", "row_offset"])
def draw_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    draft_ptr, draft_inner, draft_outer_stride, draft_inner_stride, draft_stride,
    tokens_ptr,  # [R, K]
    places_ptr,  # [R]
    accepted_ptr, ends_ptr, bad_ptr,  # [R]
    factors_ptr,  # [R, K + 1]
    p_totals_ptr, p_least_ptr, tops_ptr,  # [R, K + 1, 2], [R, K + 1], [R, K + 1]
    q_totals_ptr, q_least_ptr,  # [R, K, 2], [R, K]
    temperature_ptr, temperature_stride, temperature: tl.float64,
    seed_ptr, seed: tl.int64, seed_step, ids_ptr, row_offset: tl.int64, id_step,
    sums_ptr,  # [R, rows, parts, 2]
    out_ptr, log_prob_ptr,  # [R, K + 1]
    invalid_ptr,  # [R]
    K, parts, rows_a_request,
    PLACES: tl.constexpr, LANES: tl.constexpr, STEPS: tl.constexpr, WIDE: tl.constexpr,
    HAS_DRAFT: tl.constexpr, HAS_P_LEAST: tl.constexpr, HAS_Q_LEAST: tl.constexpr,
    HAS_TEMPERATURE: tl.constexpr, HAS_SEED: tl.constexpr, HAS_IDS: tl.constexpr,
    IS_PROCESSED: tl.constexpr, IS_BLOCK: tl.constexpr, IS_FORCED: tl.constexpr,
):  # fmt: skip
    """Draw the token that follows a request's accepted ones, and write them all."""
    PART: tl.constexpr = LANES * STEPS
    request = tl.program_id(0)
    end, first_bad = tl.load(ends_ptr + request), tl.load(bad_ptr + request)
    accepted = tl.load(accepted_ptr + request)
    own_seed, own_id = key_of(
        seed_ptr, seed, seed_step, ids_ptr, row_offset, id_step, request, HAS_SEED, HAS_IDS
    )
    T, scale, is_greedy = scale_of(
        temperature_ptr, temperature_stride, temperature, request, HAS_TEMPERATURE
    )
    sums_ptr += request.to(tl.int64) * rows_a_request * parts * 2
    first = request.to(tl.int64) * (K + 1)
    if IS_BLOCK:
        if is_greedy == 0:
            accepted = accepted * 0
            places = tl.arange(0, PLACES)
            uniforms = place_uniforms(own_id, places, own_seed).to(tl.float64)
            for place in range(0, K):
                factor = tl.load(factors_ptr + first + place + 1)
                total = sum_of_parts(sums_ptr + (place + 1) * parts * 2, parts, 0)
                within = certainty_of(total, factor)
                certain = tl.where(place + 1 < end, within, factor)
                u = tl.sum(tl.where(places == place, uniforms, 0.0), 0)
                is_longest = (u <= certain) & (place + 1 <= end)
                accepted = tl.where(is_longest, accepted * 0 + (place + 1), accepted)
        sums_ptr += accepted * parts * 2
    invalid = accepted >= first_bad
    column = accepted
    if IS_FORCED:
        column = tl.load(places_ptr + request)

    p_row = first + accepted
    q_row = request.to(tl.int64) * K + tl.minimum(accepted, K - 1)
    has_q = accepted < end
    (
        p_ptr, p_top, p_total, p_least, p_shift, p_factor,
        q_ptr, q_top, q_scale, q_least, q_shift, q_factor, hole,
    ) = laws_of_place(
        logits_ptr, inner, outer_stride, inner_stride,
        draft_ptr, draft_inner, draft_outer_stride, draft_inner_stride,
        tokens_ptr, factors_ptr, p_totals_ptr, p_least_ptr, q_totals_ptr, q_least_ptr,
        p_row, q_row, has_q, scale,
        WIDE, HAS_DRAFT, HAS_P_LEAST, HAS_Q_LEAST, IS_PROCESSED,
    )  # fmt: skip

    # Where nothing is left of p, the laws agree within rounding, and the token is drawn from p.
    total = sum_of_parts(sums_ptr, parts, 0)
    has_residual = total > 0.0
    which = tl.where(has_residual, 0, 1)
    hole = tl.where(has_residual, hole, -1)
    has_q = has_q & has_residual
    total = tl.where(has_residual, total, sum_of_parts(sums_ptr, parts, 1))
    goal = residual_uniform(own_id, column, own_seed) * total
    part, before = part_of_goal(sums_ptr, parts, goal, which)
    drawn, last = tl.full([], 0, tl.int64) + V, tl.full([], -1, tl.int64)
    running = before
    is_drawn = (invalid == 0) & (is_greedy == 0)
    if is_drawn:
        for step in range(0, STEPS):
            start = (part * PART + step * LANES).to(tl.int32)
            weights, _ = weights_of_step(
                p_ptr, stride, p_top, scale, p_shift, p_factor, p_least,
                q_ptr, draft_stride, q_top, q_scale, q_shift, q_factor, q_least,
                hole, has_q, start, V, LANES, WIDE, HAS_DRAFT,
            )  # fmt: skip
            weights = weights.to(tl.float64)
            columns = start + tl.arange(0, LANES)
            reached = (weights > 0.0) & (running + tl.cumsum(weights, 0) >= goal)
            drawn = tl.minimum(drawn, tl.min(tl.where(reached, columns, V), 0).to(tl.int64))
            last = tl.maximum(last, tl.max(tl.where(weights > 0.0, columns, -1), 0).to(tl.int64))
            running += sum_of_lanes(weights, LANES)
        # Rounding may leave the goal unreached, or no weight at all in the part.
        drawn = tl.where(drawn < V, drawn, last)
        if drawn < 0:
            start = tl.full([], 0, tl.int32)
            while (drawn < 0) & (start < V):
                weights, _ = weights_of_step(
                    p_ptr, stride, p_top, scale, p_shift, p_factor, p_least,
                    q_ptr, draft_stride, q_top, q_scale, q_shift, q_factor, q_least,
                    hole, has_q, start, V, LANES, WIDE, HAS_DRAFT,
                )  # fmt: skip
                columns = start + tl.arange(0, LANES)
                drawn = tl.max(tl.where(weights > 0.0, columns, -1), 0).to(tl.int64)
                start += LANES
    top_entry = tl.load(tops_ptr + p_row, mask=is_greedy, other=-1)
    drawn = tl.where(is_greedy, top_entry, drawn)
    drawn = tl.where(invalid, -1, drawn)

    z = tl.load(p_ptr + tl.maximum(drawn, 0) * stride).to(tl.float64)
    log_p = log_p_at(z, p_top, tl.where(p_total > 0.0, p_total, 1.0), p_least, T)
    log_p = tl.where(is_greedy, 0.0, log_p)
    places = tl.arange(0, PLACES)
    is_before = places < accepted
    tokens = tl.load(
        tokens_ptr + request.to(tl.int64) * K + places, mask=is_before, other=-1
    ).to(tl.int64)  # fmt: skip
    known = tl.load(log_prob_ptr + first + places, mask=is_before, other=0.0).to(tl.float64)
    is_here = (places == accepted) & (invalid == 0)
    tokens = tl.where(is_here, drawn, tokens)
    log_p = tl.where(is_here, log_p, tl.where(is_before, known, float("nan")))
    tl.store(out_ptr + first + places, tokens, mask=places <= K)
    tl.store(log_prob_ptr + first + places, log_p, mask=places <= K)
    tl.store(accepted_ptr + request, accepted)
    tl.store(invalid_ptr + request, invalid)
