"""Weights of a row's entries, (p - q)+ or p alone: their sums part by part, and a draw by them.

A law is (reference, scale, inverse, least): p is 2**((z - reference) * scale) * inverse where
z is at least ``least``, which is a number, and else 0. The second row lies at address 0 where there
is none; a hole is an entry without weight, negative where there is none. Rows lie side by side.
"""

from functools import cache

from numba import int64, njit

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.parts import count_parts, part_of
from rskernels.kernels.cpu.simd.functions import exp2
from rskernels.kernels.cpu.simd.memory import (
    loader,
    part_loader,
    read_f64,
    stack_memory,
    storer,
    write_f64,
)
from rskernels.kernels.cpu.simd.vectors import (
    LANES,
    first_lanes,
    lane_is,
    maximum,
    named,
    reduce_add,
    select,
    splat,
    widen,
)

NO_LAW = (0.0, 0.0, 0.0, 0.0)
NO_HOLE = -1

_lanes_memory = stack_memory(LANES * 8)
_store_f64 = storer("f64")


@cache
def _weigh_of(element):
    """Return what gives sixteen weights: of whole lanes, and of the lanes inside of a row."""
    load, load_part, scalar = loader(element.name), part_loader(element.name), element.scalar

    @njit(inline="always")
    @named(f"probabilities_{element.name}")
    def probabilities(z, law):
        reference, scale, inverse, least = law
        octaves = (z - splat(scalar(reference))) * splat(scalar(scale))
        return select(
            z >= splat(scalar(least)), exp2(octaves) * splat(scalar(inverse)), splat(scalar(0.0))
        )

    @njit(inline="always")
    @named(f"weigh_whole_{element.name}")
    def whole(p_at, p, q_at, q, hole):
        w = probabilities(load(p_at), p)
        if q_at != 0:
            w = maximum(w - probabilities(load(q_at), q), splat(scalar(0.0)))
        if hole >= 0 and hole < LANES:
            w = select(lane_is(hole), splat(scalar(0.0)), w)
        return w

    @njit(inline="always")
    @named(f"weigh_part_{element.name}")
    def part(p_at, p, q_at, q, hole, inside):
        w = probabilities(load_part(p_at, inside), p)
        if q_at != 0:
            w = maximum(w - probabilities(load_part(q_at, inside), q), splat(scalar(0.0)))
        if hole >= 0 and hole < LANES:
            w = select(lane_is(hole), splat(scalar(0.0)), w)
        return w

    return whole, part


@cache
def sum_weights_of(element):
    """Return ``sum_weights(rows, laws, hole, V, sums)`` of an element.

    It writes the sum of the weights up to the end of each part, and returns the last; ``rows`` are
    the addresses of p's and q's row.
    """
    whole, part = _weigh_of(element)
    size = element.size

    @inner
    @named(f"sum_block_{element.name}")
    def sum_block(p_at, p, q_at, q, hole, length):
        s0, s1 = splat(0.0), splat(0.0)
        both, ends = length - length % (2 * LANES), length - length % LANES
        step = LANES * size if q_at != 0 else 0
        for i in range(0, both, 2 * LANES):
            near, q_near = p_at + i * size, q_at + i // LANES * step
            s0 = s0 + widen(whole(near, p, q_near, q, hole - i))
            s1 = s1 + widen(whole(near + LANES * size, p, q_near + step, q, hole - i - LANES))
        for i in range(both, ends, LANES):
            s0 = s0 + widen(whole(p_at + i * size, p, q_at + i // LANES * step, q, hole - i))
        if ends < length:
            inside = first_lanes(length - ends)
            q_near = q_at + ends // LANES * step
            s1 = s1 + widen(part(p_at + ends * size, p, q_near, q, hole - ends, inside))
        return reduce_add(s0 + s1)

    @inner
    @named(f"sum_weights_{element.name}")
    def sum_weights(rows, laws, hole, V, sums):
        p_row, q_row = rows
        total = 0.0
        for at in range(count_parts(V, int64(0))):
            start, length = part_of(at, V, int64(0))
            q_at = q_row + start * size if q_row != 0 else 0
            total += sum_block(p_row + start * size, laws[0], q_at, laws[1], hole - start, length)
            write_f64(sums, at, total)
        return total

    return sum_weights


@cache
def draw_entry_of(element):
    """Return ``draw_entry(rows, laws, hole, V, sums, goal)`` of an element.

    It returns the first entry by which the weights sum to the goal, which lies in (0, their sum].
    Where rounding leaves none, it is the nearest before it that has a weight.
    """
    _, part = _weigh_of(element)
    size = element.size

    @inner
    @named(f"last_weight_{element.name}")
    def last_weight(w):
        """Return the last lane that has a weight, and -1 where none has."""
        lanes, found = _lanes_memory(), -1
        _store_f64(lanes, first_lanes(LANES), w)
        for lane in range(LANES):
            if read_f64(lanes, lane) > 0.0:
                found = lane
        return found

    @inner
    @named(f"reaching_weight_{element.name}")
    def reaching_weight(w, rest):
        """Return the first lane by which the weights sum to the rest, or the last with a weight."""
        lanes, found, total = _lanes_memory(), -1, 0.0
        _store_f64(lanes, first_lanes(LANES), w)
        for lane in range(LANES):
            weight = read_f64(lanes, lane)
            total += weight
            if weight > 0.0:
                found = lane
                if total >= rest:
                    break
        return found

    @inner
    @named(f"draw_in_block_{element.name}")
    def draw_in_block(p_at, p, q_at, q, hole, length, goal):
        total, found = 0.0, -1
        for i in range(0, length, LANES):
            q_near = q_at + i * size if q_at != 0 else 0
            inside = first_lanes(length - i)
            w = widen(part(p_at + i * size, p, q_near, q, hole - i, inside))
            added = reduce_add(w)
            if total + added >= goal:
                lane = reaching_weight(w, goal - total)
                if lane >= 0:
                    return i + lane, True
            elif added > 0.0:
                found = i + last_weight(w)
            total += added
        return found, False

    @inner
    @named(f"draw_entry_{element.name}")
    def draw_entry(rows, laws, hole, V, sums, goal):
        p_row, q_row = rows
        parts, first = count_parts(V, int64(0)), 0
        while first < parts - 1 and read_f64(sums, first) < goal:
            first += 1
        found, before = -1, 0.0 if first == 0 else read_f64(sums, first - 1)
        for turn in range(parts):
            # Those before it only where rounding left it, and all behind, without a weight.
            at = first + turn if first + turn < parts else parts - 1 - turn
            start, length = part_of(at, V, int64(0))
            q_at = q_row + start * size if q_row != 0 else 0
            found, _ = draw_in_block(
                p_row + start * size, laws[0], q_at, laws[1], hole - start, length, goal - before
            )
            if found >= 0:
                return start + found
        return found

    return draw_entry
