"""What the tokens of a sequence amount to, in Numba.

A sequence's tokens fill sixteen lanes in turns, the first token the first lane, whatever lies
between them in memory: so its sum has the same bits padded, packed and alone.
"""

import numpy as np

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.dtypes import F64
from rskernels.kernels.cpu.sequences.lanes import load_flags, load_whole_flags
from rskernels.kernels.cpu.simd.functions import exp2
from rskernels.kernels.cpu.simd.memory import (
    loader,
    part_loader,
    read_f64,
    read_i64,
    storer,
    write_f64,
)
from rskernels.kernels.cpu.simd.vectors import (
    LANES,
    bits_of,
    count,
    first_lanes,
    maximum,
    reduce_add,
    reduce_max,
    select,
    splat,
    widen,
    without,
)
from rskernels.law.numbers import LOG2_E
from rskernels.law.sequences import K2, K3, LOG_RATIO, MAX, MEAN

EVERY = (1 << LANES) - 1  # the bits of a mask that is set in all lanes
RUN = 4 * LANES
MOST_OCTAVES = 1024.0  # where 2^octaves is no float64

_load_f32, _load_f64 = part_loader("f32"), part_loader("f64")
_load_whole_f32, _load_whole_f64 = loader("f32"), loader("f64")
_store_f64 = storer("f64")


@inner
def ends_of(places, n):
    """Return where the tokens of sequence ``n`` begin and end: (address of starts, T)."""
    starts, T = places
    if starts == 0:
        return n * T, n * T + T
    return read_i64(starts, n), read_i64(starts, n + 1)


@inner
def tokens_at(tokens, at, end):
    """Return up to sixteen log ratios from one on as float64, and which of them are tokens."""
    address, code, flags = tokens
    inside = first_lanes(end - at)
    if flags != 0:
        inside = inside & load_flags(flags + at, inside)
    if code == F64:
        return _load_f64(address + at * 8, inside), inside
    return widen(_load_f32(address + at * 4, inside)), inside


@inner
def whole_at(tokens, at):
    """Return sixteen log ratios from one on as float64, and which of them are tokens."""
    address, code, flags = tokens
    inside = first_lanes(LANES)
    if flags != 0:
        inside = load_whole_flags(flags + at)
    if code == F64:
        return _load_whole_f64(address + at * 8), inside
    return widen(_load_whole_f32(address + at * 4)), inside


@inner
def terms_of(values, term):
    """Return what tokens add to a statistic, before its sign."""
    if term == K2:
        return values * values * splat(0.5)
    if term == K3:
        octaves = values * splat(LOG2_E)
        r = select(octaves < splat(MOST_OCTAVES), exp2(octaves), splat(np.inf))
        k3 = r - splat(1.0) - values
        # Rounded, it may be below 0, which no divergence is.
        return maximum(k3, splat(0.0))
    return values


@inner
def take(total, bad, values, inside, statistic):
    """Return the lanes' totals and which of them have met an invalid token, with more tokens."""
    over, term = statistic
    if over != MAX and term == LOG_RATIO:
        # What is invalid makes the sum NaN or +inf.
        return total + select(inside, values, splat(0.0)), bad
    bad = bad | without(inside, values < splat(np.inf))
    if over == MAX:
        return maximum(select(inside, values, splat(-np.inf)), total), bad
    return total + select(inside, terms_of(values, term), splat(0.0)), bad


@inner
def turned(line, total, by):
    """Return the lanes turned left; ``line`` is scratch memory of two vectors."""
    whole = first_lanes(LANES)
    _store_f64(line, whole, total)
    _store_f64(line + LANES * 8, whole, total)
    return _load_whole_f64(line + by * 8)


@inner
def store_packed(address, scratch, inside, values):
    """Store the lanes that are inside, one after the other; what follows is overwritten.

    Instructions that do so take AMD's processors longer.
    """
    _store_f64(scratch, first_lanes(LANES), values)
    bits, at = bits_of(inside), 0
    for lane in range(LANES):
        write_f64(address, at, read_f64(scratch, lane))
        at += bits >> lane & 1


@inner
def take_held(total, bad, line, held, statistic):
    """Return totals with the up to sixteen tokens that are held; the next token's lane is first."""
    few = first_lanes(held)
    total, bad = take(total, bad, _load_f64(line, few), few, statistic)
    return turned(line, total, held), bad


@inner
def hold(total, bad, line, held, values, inside, statistic):
    """Hold the lanes that are inside, and take the tokens once they fill the lanes.

    Return the totals and how many tokens are held, fewer than sixteen.
    """
    store_packed(line + held * 8, line + 2 * LANES * 8, inside, values)
    held += count(inside)
    if held >= LANES:
        total, bad = take(total, bad, _load_whole_f64(line), first_lanes(LANES), statistic)
        held -= LANES
        _store_f64(line, first_lanes(LANES), _load_whole_f64(line + LANES * 8))
    return total, bad, held


@inner
def result_of(total, bad, length, statistic):
    """Return the statistic of a sequence: NaN where it is empty or has an invalid token."""
    if length == 0 or bits_of(bad) != 0:
        return np.nan
    over, term = statistic
    if over == MAX:
        return reduce_max(total)
    value = reduce_add(total)
    if over == MEAN:
        value = value / length
    if term != LOG_RATIO:
        value = 0.0 - value
    return value


@inner
def are_all(flags, at):
    """Say whether four vectors of entries from one on are all tokens."""
    if flags == 0:
        return True
    every = load_whole_flags(flags + at) & load_whole_flags(flags + at + LANES)
    every = every & load_whole_flags(flags + at + 2 * LANES)
    return bits_of(every & load_whole_flags(flags + at + 3 * LANES)) == EVERY


@inner
def add_runs(tokens, at, end, total):
    """Add log ratios, four vectors at a time, while all are tokens; return (where it ends, total).

    Without the questions that each vector of ``amount_of`` asks, in half its time.
    """
    address, code, flags = tokens
    if code == F64:
        while at + RUN <= end and are_all(flags, at):
            for n in range(0, RUN, LANES):
                total = total + _load_whole_f64(address + (at + n) * 8)
            at += RUN
    else:
        while at + RUN <= end and are_all(flags, at):
            for n in range(0, RUN, LANES):
                total = total + widen(_load_whole_f32(address + (at + n) * 4))
            at += RUN
    return at, total


@inner
def amount_of(tokens, ends, statistic, line):
    """Return what the tokens of a sequence amount to, and how many they are.

    ``line`` is scratch memory of three vectors.
    """
    start, end = ends
    total = splat(-np.inf) if statistic[0] == MAX else splat(0.0)
    bad = first_lanes(0)
    length, held = 0, 0
    whole_end = end - (end - start) % LANES
    is_sum = statistic[0] != MAX and statistic[1] == LOG_RATIO
    at, is_run = start, is_sum
    while at < whole_end:
        if is_run:
            begin = at
            at, total = add_runs(tokens, at, whole_end, total)
            length += at - begin
            if at == whole_end:
                break
        values, inside = whole_at(tokens, at)
        at += LANES
        is_run = is_sum and bits_of(inside) == EVERY
        if bits_of(inside) == EVERY:
            if held > 0:
                total, bad = take_held(total, bad, line, held, statistic)
                held = 0
            total, bad = take(total, bad, values, first_lanes(LANES), statistic)
            length += LANES
        elif bits_of(inside) != 0:
            length += count(inside)
            total, bad, held = hold(total, bad, line, held, values, inside, statistic)
    if whole_end < end:
        values, inside = tokens_at(tokens, whole_end, end)
        length += count(inside)
        total, bad, held = hold(total, bad, line, held, values, inside, statistic)
    total, bad = take_held(total, bad, line, held, statistic)
    total = turned(line, total, -length % LANES)
    return result_of(total, bad, length, statistic), length
