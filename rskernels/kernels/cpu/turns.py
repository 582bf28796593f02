"""Sixteen rows of logits: where they are, what is known of them, and their totals in turn.

A row whose decision is soon certain is over before memory has answered: what the others read is
prefetched while it has its turn. Logits are (address, code, inner, outer and inner stride, column
stride, V), targets (address, code).
"""

import numpy as np
from numba import carray, njit

from rskernels.kernels.cpu.dtypes import (
    as_f64,
    as_i64,
    logit_at,
    row_address,
    size_of,
    target_at,
)
from rskernels.kernels.cpu.parts import AHEAD, FIRST_PARTS, count_parts, prefetch_part
from rskernels.kernels.cpu.simd.memory import prefetch, stack_memory
from rskernels.kernels.cpu.simd.vectors import LANES, count, mask_of
from rskernels.kernels.cpu.softmax import UNREAD, is_short, parts_total, row_total, short_totals

# What is known of each of sixteen rows, 8 bytes apiece.
ROW, LOGIT, SCALE, HEADROOM, REFERENCE, TOTAL, BOUND, LOG_R, KNOWN = (
    LANES * 8 * at for at in range(9)
)
known_memory = stack_memory(KNOWN)


@njit
def locate_rows(known, start, end, logits, targets, ignore_index):
    """Find sixteen rows and their targets' logits; return bits (inside, ignored, outside)."""
    row, z = carray(as_i64(known + ROW), LANES), carray(as_f64(known + LOGIT), LANES)
    _, code, _, _, _, stride, V = logits
    inside, ignored, outside = 0, 0, 0
    for lane in range(min(LANES, end - start)):
        row[lane] = row_address(logits[:5], start + lane)
        target = target_at(targets, start + lane)
        if target == ignore_index:
            ignored |= 1 << lane
        elif target < 0 or target >= V:
            outside |= 1 << lane
        else:
            inside |= 1 << lane
            z[lane] = logit_at(row[lane], target, stride, code)
    return inside, ignored, outside


@njit
def prefetch_rows(start, end, logits, targets, order, heads):
    """Prefetch the targets' logits of sixteen rows from row ``start`` on and, it may be, heads."""
    _, code, _, _, _, stride, V = logits
    size = size_of(code)
    for n in range(start, min(start + LANES, end)):
        row = row_address(logits[:5], n)
        prefetch(row + target_at(targets, n) * stride * size)
        if heads:
            prefetch_part(row, 0, size, stride * size, V, order)


@njit(inline="always")
def read_rows(known, read, logits, scratch, reading, is_long, following, end):
    """Write (reference, total) of those of sixteen rows that are read, whichever way is fastest.

    Where ``is_long``, as the rows before, a row is read at once and not in turns with the others.
    Returns as bits which rows the first block did not decide.
    """
    _, code, _, _, _, stride, V = logits
    is_lazy, order = reading
    if is_short(V, stride, order):
        short_totals(
            known + ROW, read, code, V, known + SCALE, scratch, known + REFERENCE, known + TOTAL
        )
        return 0
    if is_lazy and not is_long:
        return totals_in_turns(known, read, logits, scratch, order, following, end)
    return totals_at_once(known, read, logits, scratch, reading, following, end)


@njit
def totals_in_turns(known, read, logits, scratch, order, following, end):
    """Write (reference, total) of sixteen rows, a part of each in turn.

    What is read of a row ends where its decision is certain; while the others have their turn, the
    part after is fetched. ``following`` is the row after the sixteen. Returns as bits which rows
    the first block did not decide.
    """
    row, z = carray(as_i64(known + ROW), LANES), carray(as_f64(known + LOGIT), LANES)
    headroom, bound = carray(as_f64(known + HEADROOM), LANES), carray(as_f64(known + BOUND), LANES)
    reference = carray(as_f64(known + REFERENCE), LANES)
    total = carray(as_f64(known + TOTAL), LANES)
    scale = carray(as_f64(known + SCALE), LANES)
    _, code, _, _, _, column_stride, V = logits
    size, parts, long_rows = size_of(code), count_parts(V, order), 0
    stride, turns = column_stride * size, min(FIRST_PARTS, parts)
    for lane in range(LANES):
        reference[lane], total[lane], bound[lane] = UNREAD
    for part in range(turns + 1):
        if part == FIRST_PARTS:
            long_rows = read
        until = part + 1 if part < turns else parts
        for lane in range(LANES):
            if part == 0 and following + lane < end:
                prefetch_part(row_address(logits[:5], following + lane), 0, size, stride, V, order)
            if not read >> lane & 1:
                continue
            state = reference[lane], total[lane], bound[lane]
            reference[lane], total[lane], bound[lane], done = parts_total(
                (row[lane], code, stride, V), scale[lane], scratch, order,
                (z[lane], headroom[lane]), (part, until, AHEAD if part < turns else 0), state,
            )  # fmt: skip
            if done < until:
                read &= ~(1 << lane)
            elif until < parts:
                prefetch_part(row[lane], until, size, stride, V, order)
    for lane in range(LANES):
        if not reference[lane] > -np.inf:
            reference[lane], total[lane] = np.nan, np.nan
    return long_rows


@njit
def totals_at_once(known, read, logits, scratch, reading, following, end):
    """Write (reference, total) of those of sixteen rows that are read, one after the other.

    Returns as bits which rows the first block did not decide.
    """
    row, z = carray(as_i64(known + ROW), LANES), carray(as_f64(known + LOGIT), LANES)
    headroom = carray(as_f64(known + HEADROOM), LANES)
    reference = carray(as_f64(known + REFERENCE), LANES)
    total = carray(as_f64(known + TOTAL), LANES)
    scale = carray(as_f64(known + SCALE), LANES)
    _, code, _, _, _, column_stride, V = logits
    is_lazy, order = reading
    size, long_rows = size_of(code), 0
    stride = column_stride * size
    for lane in range(LANES):
        if not read >> lane & 1:
            continue
        after = following - LANES + lane + 1
        if is_lazy and after < end:
            prefetch_part(row_address(logits[:5], after), 0, size, stride, V, order)
        stop = (z[lane], headroom[lane])
        reference[lane], total[lane], parts = row_total(
            (row[lane], code, stride, V), scale[lane], scratch, stop, order
        )
        if parts >= FIRST_PARTS:
            long_rows |= 1 << lane
    return long_rows


@njit
def is_majority(rows, others):
    """Say whether more than half of the others are among the rows, both as bits."""
    return 2 * count(mask_of(rows)) > count(mask_of(others))
