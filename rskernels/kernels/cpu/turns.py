"""Sixteen rows of logits: where they are, what is known of them, and their totals in turn.

A row whose decision is soon certain is over before memory has answered: what the others read is
asked for while it has its turn.
"""

import numpy as np
from numba import carray, njit

from rskernels.kernels.cpu.simd import LANES, prefetch, stack_memory
from rskernels.kernels.cpu.softmax import (
    FIRST_PARTS,
    UNREAD,
    as_f64,
    as_i64,
    ask,
    count_parts,
    load_integer,
    load_logit,
    part_of,
    size_of,
    some_total,
)

AHEAD = 4096  # bytes of a part that are asked for before it is its turn, and from then on
# What is known of each of sixteen rows, 8 bytes apiece.
ROW, LOGIT, HEADROOM, REFERENCE, TOTAL, BOUND, LOG_R, KNOWN = (LANES * 8 * at for at in range(8))
known_memory = stack_memory(KNOWN)


@njit
def row_address(base, n, inner, outer_stride, inner_stride, size):
    """Return the address of row ``n`` of a tensor with two leading strides, in elements."""
    if n < inner:
        return base + n * inner_stride * size
    return base + ((n // inner) * outer_stride + (n % inner) * inner_stride) * size


@njit
def locate_rows(known, start, end, logits, code, place, stride, V, targets, target_code, ignored):
    """Find sixteen rows and their targets' logits; return bits (wanted, ignored, outside)."""
    row, z = carray(as_i64(known + ROW), LANES), carray(as_f64(known + LOGIT), LANES)
    size, target_size = size_of(code), size_of(target_code)
    wanted, skipped, outside = 0, 0, 0
    for lane in range(min(LANES, end - start)):
        row[lane] = row_address(logits, start + lane, *place)
        target = load_integer(targets + (start + lane) * target_size, target_code)
        if target == ignored:
            skipped |= 1 << lane
        elif target < 0 or target >= V:
            outside |= 1 << lane
        else:
            wanted |= 1 << lane
            z[lane] = load_logit(row[lane] + target * stride * size, code)
    return wanted, skipped, outside


@njit
def ask_part(row, part, size, stride, V, order):
    """Prefetch the first bytes of a part of a row."""
    start, length = part_of(part, V, order)
    ask(row + start * stride, min(length * size, AHEAD))


@njit
def ask_rows(start, end, logits, place, stride, V, targets, target_code, order, heads):
    """Prefetch the targets' logits of sixteen rows from row ``start`` on and, it may be, heads."""
    for n in range(start, min(start + LANES, end)):
        row, size = row_address(logits, n, *place), place[-1]
        target = load_integer(targets + n * size_of(target_code), target_code)
        prefetch(row + target * stride * size)
        if heads:
            ask_part(row, 0, size, stride * size, V, order)


@njit
def totals_in_turns(
    known, read, logits, code, place, stride, V, scale, scratch, order, following, end
):  # fmt: skip
    """Write (reference, total) of sixteen rows, a part of each in turn.

    What is read of a row ends where its decision is certain; while the others have their turn, the
    part after is fetched. ``following`` is the row after the sixteen. Returns as bits which rows
    the first block did not decide.
    """
    row, z = carray(as_i64(known + ROW), LANES), carray(as_f64(known + LOGIT), LANES)
    headroom, bound = carray(as_f64(known + HEADROOM), LANES), carray(as_f64(known + BOUND), LANES)
    reference = carray(as_f64(known + REFERENCE), LANES)
    total = carray(as_f64(known + TOTAL), LANES)
    size, parts, long_rows = size_of(code), count_parts(V, order), 0
    turns = min(FIRST_PARTS, parts)
    for lane in range(LANES):
        reference[lane], total[lane], bound[lane] = UNREAD
    for part in range(turns + 1):
        if part == FIRST_PARTS:
            long_rows = read
        until = part + 1 if part < turns else parts
        for lane in range(LANES):
            if part == 0 and following + lane < end:
                ask_part(row_address(logits, following + lane, *place), 0, size, stride, V, order)
            if not read >> lane & 1:
                continue
            state = reference[lane], total[lane], bound[lane]
            reference[lane], total[lane], bound[lane], done = some_total(
                row[lane], code, stride, V, scale, scratch, z[lane], headroom[lane], order,
                part, until, AHEAD if part < turns else 0, state,
            )  # fmt: skip
            if done < until:
                read &= ~(1 << lane)
            elif until < parts:
                ask_part(row[lane], until, size, stride, V, order)
    for lane in range(LANES):
        if not reference[lane] > -np.inf:
            reference[lane], total[lane] = np.nan, np.nan
    return long_rows
