"""The Numba decisions: sixteen rows at a time accepted or rejected, and what happened counted.

Kernels take a tuple of tuples, which their first lines name; a density, M or temperature is
(address, code, step, number), where the code NONE says that it is the number. Rows are worked in
units of ``unit_rows``; what happened in a unit is added up in its own row of ``summaries``, so that
sums do not depend on threads. All loops release the GIL and touch their own rows only.
"""

import math
from functools import partial

import numpy as np
from numba import njit

from rskernels.kernels.cpu.cache import cached, inner
from rskernels.kernels.cpu.dtypes import F64, NONE, Kernels
from rskernels.kernels.cpu.early_exit import decide_unread
from rskernels.kernels.cpu.law import (
    decide,
    draw_uniforms,
    excess_of,
    log_probs,
    natural_logs,
    row_logs,
    row_temperatures,
    scales_of,
    seed_of,
)
from rskernels.kernels.cpu.parts import scratch_memory
from rskernels.kernels.cpu.simd.functions import log_of_normal
from rskernels.kernels.cpu.simd.memory import (
    add_f64,
    loader,
    read_f64,
    store_mask,
    storer,
    write_f64,
)
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.vectors import (
    LANES,
    bits_of,
    count,
    first_lanes,
    mask_of,
    named,
    narrow,
    select,
    splat,
    widen,
)
from rskernels.kernels.cpu.threads import next_share
from rskernels.kernels.cpu.turns import (
    HEADROOM,
    LOG_R,
    LOGIT,
    REFERENCE,
    SCALE,
    TOTAL,
    is_majority,
    known_memory,
    locate_rows_of,
    prefetch_rows,
    read_rows_of,
)
from rskernels.law.numbers import ACCEPTED, EXCESS, IGNORED, INVALID, MASS, SUMMARY, VIOLATIONS
from rskernels.law.streams import Stream

ACCEPT = int(Stream.ACCEPT)
MASK, LAZY_MASK, OUTCOME = "mask", "lazy_mask", "outcome"

tally = add_f64  # to one entry of a unit's summary
_load_f64, _store_f32, _store_f64 = loader("f64"), storer("f32"), storer("f64")


@inner
def tally_rows(summaries, n, unit_rows, decided, accepted, violations, log_r_address):
    """Add sixteen rows from row ``n`` on to their units' summaries; bit n of a mask is a row.

    ``decided`` is which rows are (ignored, read, valid).
    """
    ignored, read, valid = decided
    for lane in range(LANES):
        if not (ignored | read) >> lane & 1:
            continue
        summary = summaries + (n + lane) // unit_rows * (SUMMARY * 8)
        if ignored >> lane & 1:
            tally(summary, IGNORED, 1)
        elif not valid >> lane & 1:
            tally(summary, INVALID, 1)
        else:
            r = math.exp(read_f64(log_r_address, lane))
            tally(summary, ACCEPTED, accepted >> lane & 1)
            tally(summary, VIOLATIONS, violations >> lane & 1)
            tally(summary, EXCESS, excess_of(r))
            tally(summary, MASS, r)


@inner
def store_rows(address, code, n, inside, values):
    """Write values of sixteen rows from row ``n`` on, rounded to float32 unless for F64."""
    if code == F64:
        _store_f64(address + n * 8, inside, values)
    else:
        _store_f32(address + n * 4, inside, narrow(values))


@inner
def store_totals(address, known, n, end, read):
    """Write (reference, total) of up to sixteen rows from row ``n`` on, NaN of those not read."""
    for lane in range(min(LANES, end - n)):
        is_read = read >> lane & 1
        place = 2 * (n + lane)
        write_f64(address, place, read_f64(known + REFERENCE, lane) if is_read else np.nan)
        write_f64(address, place + 1, read_f64(known + TOTAL, lane) if is_read else np.nan)


@njit(inline="always")
def settle_rows(
    known, n, inside, rows, logs, accepted_unread, law, code, is_mask_only, unit_rows, outputs
):
    """Decide sixteen rows from row ``n`` on, whose totals are known, and write what is wanted.

    ``rows`` are the bits (ignored, read), ``logs`` the log density, log M and log u.
    """
    ignored, read = rows
    log_density, log_M, log_u = logs
    temperatures, model_is_target = law
    mask, log_prob, log_ratio, summaries = outputs
    references, totals = _load_f64(known + REFERENCE), _load_f64(known + TOTAL)
    log_q = log_probs(_load_f64(known + LOGIT), references, totals, temperatures)
    accepted, valid, log_w, log_r = decide(
        log_q, log_density, log_M, log_u, model_is_target, code != F64
    )
    chosen = accepted_unread | read & bits_of(accepted)
    store_mask(mask + n, inside, mask_of(chosen))
    if is_mask_only:
        return
    is_read, none = mask_of(read), splat(np.nan)
    store_rows(log_prob, code, n, inside, select(is_read, log_q, none))
    store_rows(log_ratio, code, n, inside, select(is_read & valid, log_w, none))
    _store_f64(known + LOG_R, first_lanes(LANES), log_r)
    decided = ignored, read, bits_of(valid)
    violations = bits_of(log_r > splat(0.0))
    tally_rows(summaries, n, unit_rows, decided, chosen, violations, known + LOG_R)


def target_rows_of(element, form):
    """Return the kernel of a form, which decides the target's entry of each row of its units.

    A ``MASK`` is returned alone. So is a ``LAZY_MASK``: a row is read only until its decision is
    certain. An ``OUTCOME`` also tells what happened. ``order`` is 0 or the address of a row's
    blocks, int64, in the order in which they are visited. ``outputs`` are the addresses of
    (mask, log_prob, log_ratio, summaries, totals), 0 but for the mask where it alone is returned;
    the totals, (reference, total) of each row, are 0 where they are not wanted. The kernel returns
    how many targets lie outside ``[0, V)``.
    """
    is_lazy, is_mask_only = form == LAZY_MASK, form != OUTCOME
    code, size = element.code, element.size
    locate_rows, read_rows = locate_rows_of(element), read_rows_of(element, is_lazy)

    @cached
    @njit(nogil=True)
    @named(f"target_{form}_{element.dtype}")
    def target_rows(share, arguments):
        """Decide sixteen rows at a time; see ``target_rows_of``."""
        mode = keep_subnormals(0)
        counter, grab, units, unit_rows, N = share
        logits, targets, density, M, draw, law, order, outputs = arguments
        seed_address, seed, row_offset = draw
        temperature, log_space, model_is_target, ignore_index = law
        known, scratch, whole = known_memory(), scratch_memory(), first_lanes(LANES)
        seed, temperatures = seed_of(seed_address, seed), splat(temperature[3])
        _store_f64(known + SCALE, whole, scales_of(temperatures))
        shared_density = natural_logs(splat(density[3]), log_space)
        shared_M = natural_logs(splat(M[3]), log_space)
        outside, is_long = 0, False
        begin = next_share(counter, -grab, grab)
        while begin < units:
            end = min(N, (begin + grab) * unit_rows)
            if is_lazy:
                heads = 0 if is_long else end
                prefetch_rows(begin * unit_rows, end, heads, logits, size, targets, order)
            for start in range(begin * unit_rows, end, LANES):
                inside = first_lanes(end - start)
                if is_lazy:
                    prefetch_rows(start + LANES, end, start, logits, size, targets, order)
                read, ignored, misplaced = locate_rows(
                    known, start, end, logits, targets, ignore_index
                )
                outside += count(mask_of(misplaced))

                readable = read
                if temperature[1] != NONE:
                    temperatures = row_temperatures(temperature, start, inside)
                    _store_f64(known + SCALE, whole, scales_of(temperatures))
                    readable = read & bits_of(temperatures > splat(0.0))
                log_density = row_logs(density, shared_density, start, inside, log_space)
                log_M = row_logs(M, shared_M, start, inside, log_space)
                log_u = log_of_normal(widen(draw_uniforms(row_offset, start, ACCEPT, seed)))

                accepted, headrooms = 0, splat(np.inf)
                if is_mask_only:
                    is_open, is_certain, headrooms = decide_unread(
                        _load_f64(known + LOGIT), log_density, log_M, log_u,
                        model_is_target, is_lazy, code != F64,
                    )  # fmt: skip
                    accepted, read = readable & bits_of(is_certain), readable & bits_of(is_open)
                    readable = read
                _store_f64(known + HEADROOM, whole, headrooms)
                long_rows = read_rows(
                    known, readable, logits, scratch, order, is_long, start + LANES, end
                )
                if is_lazy:
                    # As these rows, so the next.
                    is_long = long_rows != 0 and is_majority(long_rows, readable)

                settle_rows(
                    known, start, inside, (ignored, read), (log_density, log_M, log_u), accepted,
                    (temperatures, model_is_target), code, is_mask_only, unit_rows, outputs[:4],
                )  # fmt: skip
                if not is_mask_only and outputs[4] != 0:
                    store_totals(outputs[4], known, start, end, readable)
            begin = next_share(counter, begin, grab)
        restore(mode)
        return outside

    return target_rows


mask_rows, lazy_mask_rows, outcome_rows = (
    Kernels(partial(target_rows_of, form=form)) for form in (MASK, LAZY_MASK, OUTCOME)
)
