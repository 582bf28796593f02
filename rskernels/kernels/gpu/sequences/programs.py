"""The Triton kernels over sequences, a program each: what tokens amount to, masks, and prefixes.

Where a mask says which are tokens, they are first moved together, so that what follows sees the
same numbers in the same lanes whatever lies between them.
"""

import triton
import triton.language as tl

from rskernels.kernels.gpu.law import (
    TRAILING,
    accepts,
    column_words,
    load_seed,
    natural_log,
    row_id_of,
    word_uniform,
)
from rskernels.kernels.gpu.softmax import sum_of_lanes
from rskernels.law import sequences

MEAN, MAX = tl.constexpr(sequences.MEAN), tl.constexpr(sequences.MAX)
K2, K3 = tl.constexpr(sequences.K2), tl.constexpr(sequences.K3)
LOG_RATIO = tl.constexpr(sequences.LOG_RATIO)


@triton.jit
def ends_of(starts_ptr, T, program, HAS_STARTS: tl.constexpr):
    """Return where the tokens of a sequence begin and end."""
    if HAS_STARTS:
        return tl.load(starts_ptr + program), tl.load(starts_ptr + program + 1)
    else:
        return program * T, program * T + T


@triton.jit
def pack_kernel(
    log_ratio_ptr, flags_ptr,  # [N]
    starts_ptr, T,
    packed_ptr,  # [N]
    lengths_ptr,  # [B]
    BLOCK: tl.constexpr, HAS_STARTS: tl.constexpr,
):  # fmt: skip
    """Move each sequence's tokens to where it begins, and count them."""
    program = tl.program_id(0).to(tl.int64)
    start, end = ends_of(starts_ptr, T.to(tl.int64), program, HAS_STARTS)
    length = start * 0
    for at in range(start, end, BLOCK):
        places = at + tl.arange(0, BLOCK)
        is_token = tl.load(flags_ptr + places, mask=places < end, other=0) != 0
        values = tl.load(log_ratio_ptr + places, mask=is_token)
        before = tl.cumsum(is_token.to(tl.int32), 0) - 1
        tl.store(packed_ptr + start + length + before, values, mask=is_token)
        length += tl.sum(is_token.to(tl.int32), 0)
    tl.store(lengths_ptr + program, length)


@triton.jit
def terms_of(values, TERM: tl.constexpr):
    """Return what tokens add to a statistic, before its sign."""
    if TERM == K2:
        return values * values * 0.5
    elif TERM == K3:
        # Rounded, it may be below 0, which no divergence is.
        k3 = tl.exp(values) - 1.0 - values
        return tl.where(k3 > 0.0, k3, 0.0)
    else:
        return values


@triton.jit
def reduce_kernel(
    log_ratio_ptr,  # [N]
    starts_ptr, T,
    lengths_ptr, result_ptr,  # [B]
    LANES: tl.constexpr, HAS_STARTS: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    OVER: tl.constexpr, TERM: tl.constexpr,
):  # fmt: skip
    """Write what the tokens of a sequence amount to: NaN where it is empty or has an invalid one.

    Tokens fill the lanes in turns, which are summed in one order.
    """
    program = tl.program_id(0).to(tl.int64)
    start, end = ends_of(starts_ptr, T.to(tl.int64), program, HAS_STARTS)
    if HAS_LENGTHS:
        end = start + tl.load(lengths_ptr + program)
    IS_MAX: tl.constexpr = OVER == MAX
    absent: tl.constexpr = float("-inf") if IS_MAX else 0.0
    total = tl.full([LANES], absent, tl.float64)
    bad = tl.zeros([LANES], tl.int32)
    for at in range(start, end, LANES):
        places = at + tl.arange(0, LANES)
        inside = places < end
        values = tl.load(log_ratio_ptr + places, mask=inside, other=0.0).to(tl.float64)
        bad |= (inside & ((values < float("inf")) == 0)).to(tl.int32)
        term = tl.where(inside, terms_of(values, TERM), absent)
        if IS_MAX:
            total = tl.where(term > total, term, total)
        else:
            total += term
    length = end - start
    result = tl.max(total, 0) if IS_MAX else sum_of_lanes(total, LANES)
    if OVER == MEAN:
        result = result / tl.where(length > 0, length, 1).to(tl.float64)
    if TERM != LOG_RATIO:
        result = 0.0 - result
    is_undefined = (length <= 0) | (tl.max(bad, 0) > 0)
    tl.store(result_ptr + program, tl.where(is_undefined, float("nan"), result))
    if HAS_LENGTHS == 0:
        tl.store(lengths_ptr + program, length)


@triton.jit
def spread_kernel(
    flags_ptr,  # [N]
    starts_ptr, T,
    accepted_ptr,  # [B]
    token_mask_ptr,  # [N]
    BLOCK: tl.constexpr, HAS_STARTS: tl.constexpr, HAS_FLAGS: tl.constexpr,
):  # fmt: skip
    """Write which tokens belong to accepted sequences."""
    program = tl.program_id(0).to(tl.int64)
    start, end = ends_of(starts_ptr, T.to(tl.int64), program, HAS_STARTS)
    accepted = tl.load(accepted_ptr + program) != 0
    for at in range(start, end, BLOCK):
        places = at + tl.arange(0, BLOCK)
        inside = places < end
        chosen = inside & accepted
        if HAS_FLAGS:
            chosen &= tl.load(flags_ptr + places, mask=inside, other=0) != 0
        tl.store(token_mask_ptr + places, chosen, mask=inside)


@triton.jit(do_not_specialize=["seed", "row_offset", "stream_id"])
def prefix_kernel(
    log_ratio_ptr,  # [N]
    starts_ptr, T,
    M_ptr, M_stride, log_M: tl.float64,
    seed_ptr, seed: tl.int64, row_offset: tl.int64, stream_id: tl.int64,
    ids_ptr, given_ptr, lengths_ptr,  # [B]
    TILE: tl.constexpr, HAS_STARTS: tl.constexpr, HAS_GIVEN: tl.constexpr, HAS_M: tl.constexpr,
    HAS_SEED: tl.constexpr, HAS_IDS: tl.constexpr, LOG_SPACE: tl.constexpr,
):  # fmt: skip
    """Write how many tokens of a sequence are accepted before the first that is not."""
    program = tl.program_id(0).to(tl.int64)
    start, end = ends_of(starts_ptr, T.to(tl.int64), program, HAS_STARTS)
    if HAS_GIVEN:
        end = start + tl.load(given_ptr + program)
    if HAS_M:
        at_M = M_ptr + program * M_stride + tl.zeros([TILE], tl.int64)
        log_m = natural_log(tl.load(at_M).to(tl.float64), LOG_SPACE)
    else:
        log_m = tl.full([TILE], log_M, tl.float64)
    seed = load_seed(seed_ptr, seed, HAS_SEED)
    row = tl.load(ids_ptr + program) if HAS_IDS else row_id_of(row_offset, program)
    length, at, is_over = start * 0, start, start < 0
    while (at < end) & (is_over == 0):
        places = at + tl.arange(0, TILE)
        inside = places < end
        values = tl.load(log_ratio_ptr + places, mask=inside, other=float("nan")).to(tl.float64)
        trailing = stream_id.to(tl.int64) + TRAILING
        lead = column_words(row, at - start, stream_id, seed, TILE)
        u = word_uniform(lead, column_words(row, at - start, trailing, seed, TILE))
        valid = (values < float("inf")) & (log_m > float("-inf"))
        accepted = valid & accepts(values - log_m, u)
        # The first that is not accepted; what lies outside is not.
        first = tl.min(tl.where(accepted, TILE, tl.arange(0, TILE)), 0)
        length += first
        is_over = first < TILE
        at += TILE
    tl.store(lengths_ptr + program, length)
