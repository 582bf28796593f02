"""One pass over a row of logits in Numba: its reference and the total of its exponentials.

What is made for an element, here and in the modules that use it, is made once.

Strides are in bytes here; the entry points of the other modules take them in elements, as torch
gives them.
"""

from functools import cache

import numpy as np
from numba import float64, int64, njit

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.early_exit import bound_of
from rskernels.kernels.cpu.parts import (
    BLOCK,
    HEAD,
    LINE,
    STEP,
    asker,
    count_parts,
    gather_block,
    part_of,
)
from rskernels.kernels.cpu.simd.functions import exp2
from rskernels.kernels.cpu.simd.memory import (
    loader,
    part_loader,
    prefetch,
    read_f64,
    read_i64,
    store_whole_f32,
    storer,
)
from rskernels.kernels.cpu.simd.vectors import (
    LANES,
    count,
    first_lanes,
    isnan,
    maximum,
    named,
    narrow,
    reduce_add,
    reduce_max,
    reduce_rows_add,
    reduce_rows_max,
    select,
    splat,
    widen,
)

LIMIT = 2.0 * BLOCK  # twice what a block sums to that lies at its reference throughout
CHECK = 512  # logits between two looks at whether the decision is certain
UNREAD = (-np.inf, 0.0, np.inf)  # reference, total and bound of a row
NEVER = (0.0, np.inf)  # a logit and how far the total may rise above it before a row is left

_store_f64 = storer("f64")


@cache
def _block_sum_of(element, keeps=False):
    load, load_part, ask_ahead = (
        loader(element.name),
        part_loader(element.name),
        asker(element.size),
    )
    size, scalar, zero = element.size, element.scalar, element.scalar(0.0)

    @inner
    @named(f"block_{'kept_' if keeps else ''}sum_{element.name}")
    def block_sum(block, length, reference, scale, bound, near, kept):
        """Return the lanes of the sum of a block, or of the part of it that is above the bound.

        Asks for what lies ``near`` bytes ahead or, where that is 0, for the next window. What is
        summed is written to ``kept`` as float32, in whole vectors, where it ``keeps`` it.
        """
        base, factor = splat(scalar(reference)), splat(scalar(scale))
        s0, s1, s2, s3 = splat(zero), splat(zero), splat(zero), splat(zero)
        whole = length - length % STEP
        for check in range(0, whole, CHECK):
            for i in range(check, min(check + CHECK, whole), STEP):
                at = block + i * size
                if near != 0:
                    for line in range(size):
                        prefetch(at + near + line * LINE)
                else:
                    ask_ahead(at)
                w0 = exp2((load(at) - base) * factor)
                w1 = exp2((load(at + 16 * size) - base) * factor)
                w2 = exp2((load(at + 32 * size) - base) * factor)
                w3 = exp2((load(at + 48 * size) - base) * factor)
                s0, s1, s2, s3 = s0 + w0, s1 + w1, s2 + w2, s3 + w3
                if keeps:
                    place = kept + i * 4
                    store_whole_f32(place, narrow(w0))
                    store_whole_f32(place + 64, narrow(w1))
                    store_whole_f32(place + 128, narrow(w2))
                    store_whole_f32(place + 192, narrow(w3))
            if bound < np.inf:
                part = (s0 + s1) + (s2 + s3)
                if float64(reduce_add(part)) > bound:
                    return part
        for i in range(whole, length, 16):
            z = load_part(block + i * size, first_lanes(length - i))
            w0 = exp2((z - base) * factor)
            s0 = s0 + w0
            if keeps:
                store_whole_f32(kept + i * 4, narrow(w0))
        return (s0 + s1) + (s2 + s3)

    return block_sum


@cache
def block_top_of(element):
    """Return ``block_top(block, length)`` of an element."""
    load, load_part = loader(element.name), part_loader(element.name)
    size, low = element.size, element.scalar(-np.inf)

    @inner
    @named(f"block_top_{element.name}")
    def block_top(block, length):
        """Return the lanes of the maximum of a block, and which of them met a NaN."""
        m0, m1, m2, m3 = splat(low), splat(low), splat(low), splat(low)
        nan = isnan(m0)
        whole = length - length % STEP
        for i in range(0, whole, STEP):
            at = block + i * size
            z0, z1 = load(at), load(at + 16 * size)
            z2, z3 = load(at + 32 * size), load(at + 48 * size)
            nan = nan | isnan(z0) | isnan(z1) | isnan(z2) | isnan(z3)
            m0, m1, m2, m3 = maximum(z0, m0), maximum(z1, m1), maximum(z2, m2), maximum(z3, m3)
        for i in range(whole, length, 16):
            z = load_part(block + i * size, first_lanes(length - i))
            nan = nan | isnan(z)
            m0 = maximum(z, m0)
        return maximum(maximum(m0, m1), maximum(m2, m3)), nan

    return block_top


@cache
def parts_total_of(element, keeps=False):
    """Return ``parts_total(row, stride, V, scale, scratch, order, stop, span, state)``.

    It returns (reference, Σ 2**((z - reference) * scale), bound of the sum, parts read); NaN for a
    row without a softmax. ``row`` is its address, a span (part to begin with, end, ahead),
    ``state`` what was returned before the first part.

    The reference is the maximum of the first part. A later one is summed against it as well,
    unless its sum says that a logit lies so far above that float32 would round it more, or is
    NaN or +inf: then its own maximum becomes the reference and it is summed again. What is
    read of the row ends where the total passes that of ``z`` by ``headroom`` octaves, which are
    where to stop. What is asked for is ``ahead`` bytes ahead or, if that is 0, the part or window
    that follows.

    Where it ``keeps`` what is summed, the span ends with the address of that, float32 in whole
    vectors of a part, in place of ``ahead``, and what is returned with the column from which on it
    was taken against the reference in place of the parts read.
    """
    block_sum, block_top = _block_sum_of(element, keeps), block_top_of(element)
    size = element.size

    @inner
    @named(f"parts_{'kept_' if keeps else ''}total_{element.name}")
    def parts_total(row, stride, V, scale, scratch, order, stop, span, state):
        z, headroom = stop
        begin, end, ahead = span
        reference, total, bound = state
        kept, settled = int64(0), int64(0)
        if keeps:
            kept, ahead = ahead, int64(0)
        for part in range(begin, end):
            start, length = part_of(part, V, order)
            place = kept + start * 4
            near = ahead
            if order != 0 and ahead == 0:
                following, _ = part_of(min(part + 1, end - 1), V, order)
                near = (following - start) * stride
            block = row + start * stride
            if stride != size:
                gather_block(block, stride, length, size, scratch)
                block = scratch
            added = LIMIT
            if reference > -np.inf:
                lanes = block_sum(block, length, reference, scale, bound - total, near, place)
                added = float64(reduce_add(lanes))
            if not added < LIMIT:
                tops, nan = block_top(block, length)
                top = float64(reduce_max(tops))
                if count(nan) > 0 or top == np.inf:
                    return np.nan, np.nan, bound, part
                if top == -np.inf:
                    continue
                if total > 0.0:
                    total *= 2.0 ** ((reference - top) * scale)
                reference, settled = top, start
                if headroom < np.inf:
                    bound = bound_of(z, reference, scale, headroom)
                lanes = block_sum(block, length, reference, scale, bound - total, near, place)
                added = float64(reduce_add(lanes))
            total += added
            if total > bound:
                return reference, total, bound, part
        return reference, total, bound, settled if keeps else end

    return parts_total


@cache
def row_total_of(element):
    """Return ``row_total(row, stride, V, scale, scratch, order, stop)`` of an element.

    It returns (reference, total, parts read) of a row; NaN if it has no softmax.
    """
    parts_total = parts_total_of(element)

    @njit(inline="always")
    @named(f"row_total_{element.name}")
    def row_total(row, stride, V, scale, scratch, order, stop):
        span = (int64(0), count_parts(V, order), int64(0))
        reference, total, _, read = parts_total(
            row, stride, V, scale, scratch, order, stop, span, UNREAD
        )
        if not reference > -np.inf:
            return np.nan, np.nan, read
        return reference, total, read

    return row_total


@cache
def short_totals_of(element):
    """Return ``short_totals(rows, read, V, scales, scratch, references, totals)`` of an element.

    It writes (reference, total) of those of sixteen short rows that are read. ``rows`` and
    ``scales`` are the addresses of their addresses and scales, side by side; bit n of ``read`` is
    row n. The lanes of all rows are reduced together, in the order of one.
    """
    block_sum, block_top, store = (
        _block_sum_of(element),
        block_top_of(element),
        storer(element.wide),
    )
    width, zero = LANES * element.wide_size, element.scalar(0.0)

    @inner
    @named(f"short_totals_{element.name}")
    def short_totals(rows, read, V, scales, scratch, references, totals):
        whole = first_lanes(LANES)
        for lane in range(LANES):
            if read >> lane & 1:
                tops, _ = block_top(read_i64(rows, lane), V)
                store(scratch + lane * width, whole, tops)
        tops = widen(reduce_rows_max(scratch, splat(zero)))
        _store_f64(references, whole, tops)
        for lane in range(LANES):
            if read >> lane & 1:
                top = read_f64(references, lane)
                scale = read_f64(scales, lane)
                sums = block_sum(read_i64(rows, lane), V, top, scale, np.inf, int64(0), int64(0))
                store(scratch + lane * width, whole, sums)
        sums = widen(reduce_rows_add(scratch, splat(zero)))
        # A NaN, a +inf or nothing but -inf sums to more than any row of numbers.
        numbers = sums < splat(LIMIT)
        _store_f64(references, whole, select(numbers, tops, splat(np.nan)))
        _store_f64(totals, whole, select(numbers, sums, splat(np.nan)))

    return short_totals


@inner
def is_short(V, stride, order):
    """Say whether ``short_totals`` serves rows of V columns, ``stride`` elements apart."""
    return V <= HEAD and stride == 1 and order == 0
