"""Triton kernels that find what top-k and top-p keep of a row, and a greedy row's entry.

What they keep are all entries that are at least some logit. It is found by bisection: each look
reads the row, and moves one of two logits that it lies between. No entry is sorted, and entries
that are equal stay together. What happens once a row is float64; what happens to every logit is
WIDE.
"""

import triton
import triton.language as tl

from rskernels.kernels.gpu.law import LARGEST_SCALE, LOG2_E
from rskernels.kernels.gpu.softmax import (
    fixed_shift,
    load_step,
    octaves,
    row_offset_of,
    sum_of_lanes,
)
from rskernels.law import numbers

FLOAT32_LOWEST = tl.constexpr(-numbers.FLOAT32_MOST)
FLOAT64_LOWEST = tl.constexpr(-1.7976931348623157e308)


@triton.jit
def lowest_of(WIDE: tl.constexpr):
    """Return the lowest finite number, float64."""
    if tl.float32 == WIDE:
        return tl.full([], FLOAT32_LOWEST, tl.float64)
    else:
        return tl.full([], FLOAT64_LOWEST, tl.float64)


@triton.jit
def look(
    row_ptr, stride, V, scale, against, shift, rest, least, LANES: tl.constexpr, WIDE: tl.constexpr
):
    """Look at the finite entries that are at least some number.

    Return how many there are, the sum of 2**octaves, the smallest, and the largest that is below.
    """
    bound, floor = least.to(WIDE), lowest_of(WIDE).to(WIDE)
    count = tl.zeros([LANES], tl.int32)
    lanes = tl.zeros([LANES], WIDE)
    above = tl.full([LANES], float("inf"), WIDE)
    below = tl.full([LANES], float("-inf"), WIDE)
    for start in range(0, V, LANES):
        z = load_step(row_ptr, row_ptr, start, stride, V, LANES, WIDE, False, False)
        is_kept = (z >= bound) & (z >= floor)
        count += is_kept.to(tl.int32)
        lanes += tl.where(is_kept, tl.exp2(octaves(z, scale, against, shift, WIDE)), 0.0)
        above = tl.minimum(above, tl.where(is_kept, z, float("inf")))
        below = tl.maximum(below, tl.where((z < bound) & (z >= floor), z, float("-inf")))
    mass = sum_of_lanes(lanes, LANES).to(tl.float64) * tl.exp2(rest)
    smallest, under = tl.min(above, 0).to(tl.float64), tl.max(below, 0).to(tl.float64)
    return tl.sum(count, 0).to(tl.int64), mass, smallest, under


@triton.jit
def largest_least(
    row_ptr, stride, V, scale, against, shift, rest, low, high, mass, wanted, goal,
    LANES: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Return the largest logit from which on there are so many entries and so much."""
    while low < high:
        middle = (low * 0.5 + high * 0.5).to(WIDE).to(tl.float64)
        middle = tl.where((low < middle) & (middle < high), middle, high)
        count, kept, smallest, under = look(
            row_ptr, stride, V, scale, against, shift, rest, middle, LANES, WIDE
        )
        is_enough = (count >= wanted) & (kept >= goal)
        low = tl.where(is_enough, smallest, low)
        mass = tl.where(is_enough, kept, mass)
        high = tl.where(is_enough, high, under)
    return low, mass


@triton.jit
def filter_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    lengths_ptr, extra,
    temperature_ptr, temperature_stride, temperature: tl.float64,
    top_k_ptr, top_k: tl.int64, top_p_ptr, top_p: tl.float64,
    totals_ptr,  # [R, rows, 2]
    least_ptr,  # [R, rows]
    tops_ptr,  # [R, rows]
    rows_a_request,
    LANES: tl.constexpr, STEPS: tl.constexpr, WIDE: tl.constexpr,
    HAS_TEMPERATURE: tl.constexpr, HAS_TOP_K: tl.constexpr, HAS_TOP_P: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
):  # fmt: skip
    """Write the smallest logit that a row keeps and the total of what is kept, a program a row.

    Of a greedy row: its first largest entry. ``extra`` is 1 where a row follows the draft tokens.
    """
    row = tl.program_id(0)
    request = row // rows_a_request
    place = row - request * rows_a_request
    row_ptr = logits_ptr + row_offset_of(row, inner, outer_stride, inner_stride)
    if HAS_TEMPERATURE:
        given = tl.load(temperature_ptr + request * temperature_stride).to(tl.float64)
    else:
        given = tl.full([], temperature, tl.float64)
    is_greedy = given == 0.0
    T = tl.where(is_greedy, 1.0, given)
    k, share = tl.full([], top_k, tl.int64), tl.full([], top_p, tl.float64)
    if HAS_TOP_K:
        k = tl.load(top_k_ptr + request)
    if HAS_TOP_P:
        share = tl.load(top_p_ptr + request)
    length = tl.full([], rows_a_request, tl.int64) - extra
    if HAS_LENGTHS:
        length = tl.load(lengths_ptr + request).to(tl.int64)
    # Where T is out of range, the row has no total either.
    top = tl.load(totals_ptr + row.to(tl.int64) * 2)
    total = tl.load(totals_ptr + row.to(tl.int64) * 2 + 1)
    has_law = (total > 0.0) & (total < float("inf")) & (place < length + extra)
    least, entry = lowest_of(WIDE), tl.full([], -1, tl.int64)
    if has_law:
        exact = tl.minimum(
            tl.full([], LOG2_E, tl.float64) / T,
            tl.full([], LARGEST_SCALE, tl.float64),
        )
        scale = exact.to(WIDE)
        shift, rest = fixed_shift(top, exact, 0.0, WIDE)
        against = top.to(WIDE)
        if is_greedy:
            _, _, _, high = look(
                row_ptr, stride, V, scale, against, shift, rest,
                tl.full([], float("inf"), tl.float64), LANES, WIDE,
            )  # fmt: skip
            found = tl.full([LANES], 0, tl.int64) + V
            for start in range(0, V, LANES):
                z = load_step(row_ptr, row_ptr, start, stride, V, LANES, WIDE, False, False)
                columns = start + tl.arange(0, LANES)
                found = tl.minimum(found, tl.where(z >= high.to(WIDE), columns, V))
            entry = tl.min(found, 0).to(tl.int64)
            least = high
        else:
            if ((k > 0) & (k < V)) | (share < 1.0):
                count, mass, low, _ = look(
                    row_ptr, stride, V, scale, against, shift, rest, least, LANES, WIDE
                )
                _, _, _, high = look(
                    row_ptr, stride, V, scale, against, shift, rest,
                    tl.full([], float("inf"), tl.float64), LANES, WIDE,
                )  # fmt: skip
                if (k > 0) & (k < count):
                    low, mass = largest_least(
                        row_ptr, stride, V, scale, against, shift, rest, low, high, mass,
                        k, tl.full([], 0.0, tl.float64), LANES, WIDE,
                    )  # fmt: skip
                if share < 1.0:
                    low, mass = largest_least(
                        row_ptr, stride, V, scale, against, shift, rest, low, high, mass,
                        tl.full([], 0, tl.int64), share * mass, LANES, WIDE,
                    )  # fmt: skip
                least = low
                tl.store(totals_ptr + row.to(tl.int64) * 2 + 1, mass)
    tl.store(least_ptr + row, least)
    tl.store(tops_ptr + row, entry)
