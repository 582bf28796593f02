"""Sixteen rows of logits: where they are, what is known of them, and their totals in turn.

A row whose decision is soon certain is over before memory has answered: what the others read is
prefetched while it has its turn. Logits are (address, code, inner, outer and inner stride, column
stride, V), targets (address, code).
"""

from functools import cache

import numpy as np
from numba import int64, njit

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.dtypes import logit_of, row_address, target_at
from rskernels.kernels.cpu.parts import AHEAD, FIRST_PARTS, count_parts, prefetch_part
from rskernels.kernels.cpu.simd.memory import (
    prefetch,
    read_f64,
    read_i64,
    stack_memory,
    write_f64,
    write_i64,
)
from rskernels.kernels.cpu.simd.vectors import LANES, count, mask_of, named
from rskernels.kernels.cpu.softmax import (
    UNREAD,
    is_short,
    parts_total_of,
    row_total_of,
    short_totals_of,
)

# What is known of each of sixteen rows, 8 bytes apiece.
ROW, LOGIT, SCALE, HEADROOM, REFERENCE, TOTAL, BOUND, LOG_R, KNOWN = (
    LANES * 8 * at for at in range(9)
)
known_memory = stack_memory(KNOWN)


@cache
def locate_rows_of(element):
    """Return ``locate_rows(known, start, end, logits, targets, ignore_index)`` of an element.

    It finds sixteen rows and their targets' logits, and returns bits (inside, ignored, outside).
    """
    logit_at = logit_of(element)

    @inner
    @named(f"locate_rows_{element.name}")
    def locate_rows(known, start, end, logits, targets, ignore_index):
        _, _, _, _, _, stride, V = logits
        inside, ignored, outside = 0, 0, 0
        for lane in range(min(LANES, end - start)):
            row = row_address(logits[:5], start + lane)
            write_i64(known + ROW, lane, row)
            target = target_at(targets, start + lane)
            if target == ignore_index:
                ignored |= 1 << lane
            elif target < 0 or target >= V:
                outside |= 1 << lane
            else:
                inside |= 1 << lane
                write_f64(known + LOGIT, lane, logit_at(row, target, stride))
        return inside, ignored, outside

    return locate_rows


@inner
def prefetch_rows(start, end, heads, logits, size, targets, order):
    """Prefetch the targets' logits of sixteen rows from row ``start`` on, and heads up to a row."""
    _, _, _, _, _, stride, V = logits
    for n in range(start, min(start + LANES, end)):
        row = row_address(logits[:5], n)
        prefetch(row + target_at(targets, n) * stride * size)
        if n < heads:
            prefetch_part(row, int64(0), size, stride * size, V, order)


@cache
def read_rows_of(element, is_lazy):
    """Return ``read_rows(known, read, logits, scratch, order, is_long, following, end)``.

    It writes (reference, total) of those of sixteen rows that are read, whichever way is fastest.
    Where ``is_long``, as the rows before, a row is read at once and not in turns with the others.
    It returns as bits which rows the first block did not decide.
    """
    short_totals, at_once = short_totals_of(element), totals_at_once_of(element, is_lazy)
    in_turns = totals_in_turns_of(element) if is_lazy else at_once

    @njit(inline="always")
    @named(f"read_rows_{element.name}_{is_lazy}")
    def read_rows(known, read, logits, scratch, order, is_long, following, end):
        _, _, _, _, _, stride, V = logits
        if is_short(V, stride, order):
            short_totals(
                known + ROW, read, V, known + SCALE, scratch, known + REFERENCE, known + TOTAL
            )
            return 0
        if is_lazy and not is_long:
            return in_turns(known, read, logits, scratch, order, following, end)
        return at_once(known, read, logits, scratch, order, following, end)

    return read_rows


@cache
def totals_in_turns_of(element):
    """Return ``totals_in_turns(known, read, logits, scratch, order, following, end)``.

    It writes (reference, total) of sixteen rows, a part of each in turn.
    What is read of a row ends where its decision is certain; while the others have their turn, the
    part after is fetched. ``following`` is the row after the sixteen. Returns as bits which rows
    the first block did not decide.
    """
    parts_total, size = parts_total_of(element), element.size

    @inner
    @named(f"totals_in_turns_{element.name}")
    def totals_in_turns(known, read, logits, scratch, order, following, end):
        _, _, _, _, _, column_stride, V = logits
        parts, long_rows = count_parts(V, order), 0
        stride, turns = column_stride * size, min(FIRST_PARTS, parts)
        for lane in range(LANES):
            keep_state(known, lane, UNREAD)
        for part in range(turns + 1):
            if part == FIRST_PARTS:
                long_rows = read
            until = part + 1 if part < turns else parts
            for lane in range(LANES):
                if part == 0 and following + lane < end:
                    after = row_address(logits[:5], following + lane)
                    prefetch_part(after, int64(0), size, stride, V, order)
                if not read >> lane & 1:
                    continue
                row = read_i64(known + ROW, lane)
                state = parts_total(
                    row, stride, V, read_f64(known + SCALE, lane), scratch, order,
                    (read_f64(known + LOGIT, lane), read_f64(known + HEADROOM, lane)),
                    (part, until, int64(AHEAD if part < turns else 0)),
                    (
                        read_f64(known + REFERENCE, lane),
                        read_f64(known + TOTAL, lane),
                        read_f64(known + BOUND, lane),
                    ),
                )  # fmt: skip
                keep_state(known, lane, state[:3])
                if state[3] < until:
                    read &= ~(1 << lane)
                elif until < parts:
                    prefetch_part(row, until, size, stride, V, order)
        for lane in range(LANES):
            if not read_f64(known + REFERENCE, lane) > -np.inf:
                keep_state(known, lane, (np.nan, np.nan, np.inf))
        return long_rows

    return totals_in_turns


@njit(inline="always")
def keep_state(known, lane, state):
    """Write the (reference, total, bound) of one of sixteen rows."""
    write_f64(known + REFERENCE, lane, state[0])
    write_f64(known + TOTAL, lane, state[1])
    write_f64(known + BOUND, lane, state[2])


@cache
def totals_at_once_of(element, is_lazy):
    """Return ``totals_at_once(known, read, logits, scratch, order, following, end)``.

    It writes (reference, total) of those of sixteen rows that are read, one after the other, and
    returns as bits which rows the first block did not decide.
    """
    row_total, size = row_total_of(element), element.size

    @inner
    @named(f"totals_at_once_{element.name}_{is_lazy}")
    def totals_at_once(known, read, logits, scratch, order, following, end):
        _, _, _, _, _, column_stride, V = logits
        long_rows, stride = 0, column_stride * size
        for lane in range(LANES):
            if not read >> lane & 1:
                continue
            if is_lazy:
                after = following - LANES + lane + 1
                if after < end:
                    prefetch_part(row_address(logits[:5], after), int64(0), size, stride, V, order)
            reference, total, parts = row_total(
                read_i64(known + ROW, lane), stride, V, read_f64(known + SCALE, lane), scratch,
                order, (read_f64(known + LOGIT, lane), read_f64(known + HEADROOM, lane)),
            )  # fmt: skip
            write_f64(known + REFERENCE, lane, reference)
            write_f64(known + TOTAL, lane, total)
            if parts >= FIRST_PARTS:
                long_rows |= 1 << lane
        return long_rows

    return totals_at_once


@inner
def is_majority(rows, others):
    """Say whether more than half of the others are among the rows, both as bits."""
    return 2 * count(mask_of(rows)) > count(mask_of(others))
