"""The Numba loops that decide sequences: what they amount to, and which tokens are accepted.

A unit of sequences is decided after the other, so that its flags are still at hand.
"""

import numpy as np
from numba import njit

from rskernels.kernels.cpu.bernoulli import decide_sixteen, shares_of_M
from rskernels.kernels.cpu.cache import cached, inner
from rskernels.kernels.cpu.dtypes import F64
from rskernels.kernels.cpu.law import natural_logs, seed_of
from rskernels.kernels.cpu.sequences.amounts import amount_of, ends_of
from rskernels.kernels.cpu.sequences.lanes import load_flags, load_whole_flags
from rskernels.kernels.cpu.simd.memory import (
    part_loader,
    read_i8,
    read_i64,
    stack_memory,
    store_mask,
    store_whole_mask,
    storer,
    write_f64,
    write_i64,
)
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.vectors import (
    LANES,
    count,
    first_lanes,
    reduce_add,
    select,
    splat,
)
from rskernels.kernels.cpu.threads import next_share
from rskernels.law.numbers import ACCEPTED, EXCESS, IGNORED, INVALID, VIOLATIONS

KEPT, GIVEN, UNIT_COUNTS = EXCESS, EXCESS + 1, EXCESS + 2  # tokens, after what is counted of rows

_load_f64, _store_f64 = part_loader("f64"), storer("f64")
_line = stack_memory(3 * LANES * 8)


@inner
def spread(flags, token_mask, start, end, is_accepted):
    """Write which of a sequence's tokens are accepted: all of them, or none."""
    whole_end = end - (end - start) % LANES
    chosen = first_lanes(LANES if is_accepted else 0)
    for at in range(start, whole_end, LANES):
        if is_accepted and flags != 0:
            chosen = load_whole_flags(flags + at)
        store_whole_mask(token_mask + at, chosen)
    inside = first_lanes(end - whole_end)
    if is_accepted and flags != 0:
        chosen = load_flags(flags + whole_end, inside)
    store_mask(token_mask + whole_end, inside, chosen)


@cached
@njit(nogil=True)
def decide_sequence_rows(share, arguments):
    """Decide the sequences of the units that it takes, and count what happened by units.

    Of each sequence w/M is written too, 0 where it is invalid.
    """
    mode = keep_subnormals(0)
    counter, grab, units, unit_rows, N = share
    tokens, places, statistic, M, draw, log_space, outputs = arguments
    ratios, lengths, accepted, token_mask, shares, summaries = outputs
    seed_address, seed, row_offset, stream, ids = draw
    draw = seed_of(seed_address, seed), row_offset, stream, ids
    shared_M = natural_logs(splat(M[3]), log_space)
    line = _line()
    begin = next_share(counter, -grab, grab)
    while begin < units:
        for unit in range(begin, min(units, begin + grab)):
            start, end = unit * unit_rows, min(N, (unit + 1) * unit_rows)
            empty, kept, given = 0, 0, 0
            for n in range(start, end):
                value, length = amount_of(tokens, ends_of(places, n), statistic, line)
                write_f64(ratios, n, value)
                write_i64(lengths, n, length)
                empty += length == 0
                given += length
            chosen_rows, violations, valid_rows = 0, 0, 0
            for n in range(start, end, LANES):
                inside = first_lanes(end - n)
                log_w, log_M, valid, chosen = decide_sixteen(
                    (ratios, F64), M, shared_M, log_space, draw, n, inside
                )
                valid = valid & inside
                store_mask(accepted + n, inside, chosen)
                _store_f64(ratios + n * 8, inside, select(valid, log_w, splat(np.nan)))
                log_r = log_w - log_M
                _store_f64(shares + n * 8, inside, shares_of_M(log_r, valid))
                chosen_rows += count(chosen & inside)
                violations += count(valid & (log_r > splat(0.0)))
                valid_rows += count(valid)
            for n in range(start, end):
                is_accepted = read_i8(accepted, n) != 0
                first, last = ends_of(places, n)
                spread(tokens[2], token_mask, first, last, is_accepted)
                kept += read_i64(lengths, n) if is_accepted else 0
            summary = summaries + unit * (UNIT_COUNTS * 8)
            write_i64(summary, ACCEPTED, chosen_rows)
            write_i64(summary, VIOLATIONS, violations)
            write_i64(summary, INVALID, end - start - valid_rows - empty)
            write_i64(summary, IGNORED, empty)
            write_i64(summary, KEPT, kept)
            write_i64(summary, GIVEN, given)
        begin = next_share(counter, begin, grab)
    restore(mode)
    return 0


@cached
@njit(nogil=True)
def count_unsound(share, arguments):
    """Return how many faults starts have: they begin at 0, never fall and end at ``count``."""
    starts, count = arguments
    N = share[4]
    faults = (read_i64(starts, 0) != 0) + (read_i64(starts, N) != count)
    for n in range(N):
        faults += read_i64(starts, n + 1) < read_i64(starts, n)
    return faults


@cached
@njit(nogil=True)
def total_sequences(share, arguments):
    """Write what was counted of all units, and the sums over sequences of (w/M - 1)+ and w/M.

    Sums have parts of ``part_rows`` sequences, as those of ratios that are given have.
    """
    units, part_rows, N = share[2:]
    shares, summaries, outputs = arguments
    counts, excess, tokens = outputs
    zero, one = splat(0.0), splat(1.0)
    for at in range(UNIT_COUNTS):
        number = 0
        for unit in range(units):
            number += read_i64(summaries, unit * UNIT_COUNTS + at)
        if at < KEPT:
            write_i64(counts, at, number)
        else:
            write_i64(tokens, at - KEPT, number)
    over_all, mass_all = 0.0, 0.0
    for start in range(0, N, part_rows):
        over, mass = zero, zero
        end = min(N, start + part_rows)
        for n in range(start, end, LANES):
            r = select(first_lanes(end - n), _load_f64(shares + n * 8, first_lanes(end - n)), zero)
            over = over + select(r > one, r - one, zero)
            mass = mass + r
        over_all += reduce_add(over)
        mass_all += reduce_add(mass)
    write_f64(excess, 0, over_all)
    write_f64(excess, 1, mass_all)
    return 0
