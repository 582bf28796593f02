"""What top-k and top-p keep of a row: all entries that are at least some logit.

That logit is found by bisection: each look reads the row, which lies in the cache, and moves one
of two logits that it lies between. No entry is sorted, and entries that are equal stay together.
"""

from functools import cache

import numpy as np
from numba import float64, int64, njit

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.parts import count_parts, part_of
from rskernels.kernels.cpu.simd.functions import exp2
from rskernels.kernels.cpu.simd.memory import part_loader
from rskernels.kernels.cpu.simd.vectors import (
    LANES,
    count,
    first_lanes,
    maximum,
    minimum,
    named,
    reduce_add,
    reduce_max,
    select,
    splat,
)
from rskernels.kernels.cpu.softmax import block_top_of

LOWEST = {"f32": -3.4028234663852886e38, "f64": -1.7976931348623157e308}


@cache
def top_of(element):
    """Return ``top(row, V)`` of an element: (a row's largest logit, whether it has a law)."""
    block_top, size = block_top_of(element), element.size

    @inner
    @named(f"top_{element.name}")
    def top(row, V):
        most, has_law = -np.inf, True
        for at in range(count_parts(V, int64(0))):
            start, length = part_of(at, V, int64(0))
            lanes, nan = block_top(row + start * size, length)
            has_law = has_law and count(nan) == 0
            most = max(most, float64(reduce_max(lanes)))
        return most, has_law and -np.inf < most < np.inf

    return top


@cache
def find_of(element):
    """Return ``find(row, V, least)`` of an element: the first entry that is at least a logit."""
    load_part, size, scalar = part_loader(element.name), element.size, element.scalar

    @inner
    @named(f"find_{element.name}")
    def find(row, V, least):
        for i in range(0, V, LANES):
            inside = first_lanes(V - i)
            found = load_part(row + i * size, inside) >= splat(scalar(least))
            if count(found & inside) > 0:
                for lane in range(LANES):
                    if count(found & inside & first_lanes(lane + 1)) > 0:
                        return i + lane
        return -1

    return find


@cache
def look_of(element):
    """Return ``look(row, V, reference, scale, least)`` of an element.

    It returns of the finite entries that are at least some number: how many there are, the sum of
    2**((z - reference) * scale), the smallest, and the largest that is below.
    """
    load_part, size, scalar = part_loader(element.name), element.size, element.scalar
    lowest = LOWEST[element.wide]

    @njit(inline="always")
    @named(f"look_{element.name}_lanes")
    def kept_of(z, base, factor, bound):
        return select(z >= bound, exp2((z - base) * factor), splat(scalar(0.0)))

    @inner
    @named(f"look_{element.name}")
    def look(row, V, reference, scale, least):
        base, factor = splat(scalar(reference)), splat(scalar(scale))
        bound, floor = splat(scalar(least)), splat(scalar(lowest))
        low, high = splat(scalar(-np.inf)), splat(scalar(np.inf))
        kept, mass, above, below = 0, 0.0, high, low
        for at in range(count_parts(V, int64(0))):
            start, length = part_of(at, V, int64(0))
            sums = splat(scalar(0.0))
            for i in range(0, length, LANES):
                z = load_part(row + (start + i) * size, first_lanes(length - i))
                is_kept = z >= bound
                kept += count(is_kept)
                sums = sums + kept_of(z, base, factor, bound)
                above = minimum(select(is_kept, z, high), above)
                below = maximum(select((z < bound) & (z >= floor), z, low), below)
            mass += float64(reduce_add(sums))
        smallest = -float64(reduce_max(splat(scalar(0.0)) - above))
        return kept, mass, smallest, float64(reduce_max(below))

    return look


@cache
def keep_of(element):
    """Return ``keep(row, V, reference, scale, k, share)`` of an element.

    It returns the smallest logit that top-k and then top-p keep, and the sum of what is kept: of
    the ``k`` largest entries, or of all where that is 0, the largest that have that share of their
    sum.
    """
    look, scalar, lowest = look_of(element), element.scalar, LOWEST[element.wide]
    top_entry = top_of(element)

    @inner
    @named(f"keep_{element.name}")
    def keep(row, V, reference, scale, k, share):
        top, _ = top_entry(row, V)
        low, mass, wanted, goal = lowest, 0.0, 0, 0.0
        # What all, the largest k, and the largest that have the share begin with.
        for turn in range(3):
            if (turn == 1 and not 0 < k < V) or (turn == 2 and not share < 1.0):
                continue
            high = low if turn == 0 else top
            if turn == 1:
                wanted = k
            elif turn == 2:
                wanted, goal = 0, share * mass
            while low < high or turn == 0:
                middle = float64(scalar(low * 0.5 + high * 0.5))
                if not low < middle < high:
                    middle = high
                kept, sum_kept, smallest, below = look(row, V, reference, scale, middle)
                if turn == 0 or (kept >= wanted and sum_kept >= goal):
                    low, mass = smallest, sum_kept
                else:
                    high = below
                if turn == 0:
                    break
        return low, mass

    return keep
