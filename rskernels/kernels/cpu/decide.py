"""The Numba decisions: sixteen rows at a time accepted or rejected, and what happened counted.

A density or M is an address with strides, or a value where its code is NONE. Rows are worked in
units of ``unit_rows``; what happened in a unit is added up in its own row of ``summaries``, so
that sums do not depend on threads. All loops release the GIL and touch their own rows only.
"""

import math

import numpy as np
from numba import carray, njit

from rskernels.kernels.cpu.lanemath import log_of_normal, philox_words, row_words, uniforms
from rskernels.kernels.cpu.law import (
    decide,
    decide_by_words,
    decide_unread,
    log_probs,
    natural_logs,
    row_logs,
    scale_of,
)
from rskernels.kernels.cpu.shares import next_share
from rskernels.kernels.cpu.simd import (
    LANES,
    bits_of,
    count,
    first_lanes,
    loader,
    mask_of,
    narrow,
    part_loader,
    select,
    splat,
    store_mask,
    storer,
    widen,
)
from rskernels.kernels.cpu.softmax import (
    F64,
    FIRST_PARTS,
    I64,
    NONE,
    as_f64,
    as_i64,
    is_short,
    load_integer,
    row_total,
    scratch_memory,
    short_totals,
    size_of,
)
from rskernels.kernels.cpu.turns import (
    HEADROOM,
    LOG_R,
    LOGIT,
    REFERENCE,
    ROW,
    TOTAL,
    ask_part,
    ask_rows,
    known_memory,
    locate_rows,
    row_address,
    totals_in_turns,
)

_load_f64, _store_f32, _store_f64 = loader("f64"), storer("f32"), storer("f64")
_load_some_f32, _load_some_f64 = part_loader("f32"), part_loader("f64")
_word0, _word1, _word2, _word3 = philox_words
ACCEPTED, VIOLATIONS, INVALID, IGNORED, EXCESS, MASS, SUMMARY = range(7)


@njit
def tally(summary, which, amount):
    """Add to one entry of a unit's summary."""
    carray(as_f64(summary + which * 8), 1)[0] += amount


@njit
def tally_rows(
    summaries, n, unit_rows, ignored, read, valid, accepted, violations, log_r_address
):  # fmt: skip
    """Add sixteen rows from row ``n`` on to their units' summaries; bit n of a mask is a row."""
    log_r = carray(as_f64(log_r_address), LANES)
    for lane in range(LANES):
        if not (ignored | read) >> lane & 1:
            continue
        summary = summaries + (n + lane) // unit_rows * (SUMMARY * 8)
        if ignored >> lane & 1:
            tally(summary, IGNORED, 1)
        elif not valid >> lane & 1:
            tally(summary, INVALID, 1)
        else:
            r = math.exp(log_r[lane])
            tally(summary, ACCEPTED, accepted >> lane & 1)
            tally(summary, VIOLATIONS, violations >> lane & 1)
            tally(summary, EXCESS, max(r - 1.0, 0.0))
            tally(summary, MASS, r)


@njit
def store_rows(address, code, n, inside, values):
    """Write values of sixteen rows from row ``n`` on, rounded to float32 unless for F64."""
    if code == F64:
        _store_f64(address + n * 8, inside, values)
    else:
        _store_f32(address + n * 4, inside, narrow(values))


@njit(nogil=True, cache=True)
def target_rows(
    counter, grab, units, unit_rows, N,
    logits, code, inner, outer_stride, inner_stride, stride, V,
    targets, target_code, density, density_code, density_step, density_value,
    M, M_code, M_step, M_value, seed_address, seed, row_offset, temperature, log_space,
    model_is_target, ignore_index, is_lazy, order, mask, log_prob, log_ratio, summaries,
):  # fmt: skip
    """Decide the target's entry of each row of the units that it takes, sixteen rows at a time.

    Where ``is_lazy``, a row is read until its decision is certain. ``order`` is 0 or the address
    of its blocks, int64, in the order in which they are visited. ``log_prob``, ``log_ratio`` and
    ``summaries`` are 0 where only the mask is wanted. Returns how many targets lie outside
    ``[0, V)``.
    """
    known, scratch = known_memory(), scratch_memory()
    row, z = carray(as_i64(known + ROW), LANES), carray(as_f64(known + LOGIT), LANES)
    headroom = carray(as_f64(known + HEADROOM), LANES)
    reference = carray(as_f64(known + REFERENCE), LANES)
    total = carray(as_f64(known + TOTAL), LANES)
    size, is_float32, is_mask_only = size_of(code), code != F64, log_prob == 0
    place = (inner, outer_stride, inner_stride, size)
    scale = scale_of(temperature)
    log_density = natural_logs(splat(density_value), log_space)
    log_M = natural_logs(splat(M_value), log_space)
    if seed_address != 0:
        seed = load_integer(seed_address, I64)
    whole = first_lanes(LANES)
    outside = 0
    is_long = False  # as the last rows, so the next
    begin = next_share(counter, -grab, grab)
    while begin < units:
        end = min(N, (begin + grab) * unit_rows)
        if is_lazy:
            ask_rows(
                begin * unit_rows, end, logits, place, stride, V, targets, target_code, order,
                not is_long,
            )  # fmt: skip
        for start in range(begin * unit_rows, end, LANES):
            inside = first_lanes(end - start)
            if is_lazy:
                ask_rows(
                    start + LANES, end, logits, place, stride, V, targets, target_code, order,
                    False,
                )  # fmt: skip
            read, ignored, lost = locate_rows(
                known, start, end, logits, code, place, stride, V, targets, target_code,
                ignore_index,
            )  # fmt: skip
            outside += count(mask_of(lost))
            if density_code != NONE:
                log_density = row_logs(
                    density, density_code, density_step, start, inside, log_space
                )
            if M_code != NONE:
                log_M = row_logs(M, M_code, M_step, start, inside, log_space)
            log_u = log_of_normal(widen(uniforms(row_words(row_offset + start, 0, seed))))
            logits_of_targets = _load_f64(known + LOGIT)
            chosen, rooms = 0, splat(np.inf)
            if is_mask_only:
                is_open, accepted, rooms = decide_unread(
                    logits_of_targets, log_density, log_M, log_u,
                    model_is_target, is_lazy, is_float32,
                )  # fmt: skip
                chosen, read = read & bits_of(accepted), read & bits_of(is_open)
            _store_f64(known + HEADROOM, whole, rooms)
            if is_short(V, stride, order):
                short_totals(
                    known + ROW, read, code, V, scale, scratch, known + REFERENCE, known + TOTAL
                )
            elif is_lazy and not is_long:
                long_rows = totals_in_turns(
                    known, read, logits, code, place, stride * size, V, scale, scratch, order,
                    start + LANES, end,
                )  # fmt: skip
                is_long = 2 * count(mask_of(long_rows)) > count(mask_of(read))
            else:
                long_rows = 0
                for lane in range(LANES):
                    if not read >> lane & 1:
                        continue
                    if is_lazy and start + lane + 1 < end:
                        following = row_address(logits, start + lane + 1, *place)
                        ask_part(following, 0, size, stride * size, V, order)
                    reference[lane], total[lane], parts = row_total(
                        row[lane], code, stride * size, V, scale, scratch, z[lane],
                        headroom[lane], order,
                    )  # fmt: skip
                    long_rows += parts >= FIRST_PARTS
                is_long = 2 * long_rows > count(mask_of(read))
            log_q = log_probs(
                logits_of_targets,
                _load_f64(known + REFERENCE), _load_f64(known + TOTAL), temperature,
            )  # fmt: skip
            accepted, valid, log_w, log_r = decide(
                log_q, log_density, log_M, log_u, model_is_target, is_float32
            )
            chosen |= read & bits_of(accepted)
            store_mask(mask + start, inside, mask_of(chosen))
            if not is_mask_only:
                is_read, none = mask_of(read), splat(np.nan)
                store_rows(log_prob, code, start, inside, select(is_read, log_q, none))
                store_rows(log_ratio, code, start, inside, select(is_read & valid, log_w, none))
                _store_f64(known + LOG_R, whole, log_r)
                violations = bits_of(log_r > splat(0.0))
                tally_rows(
                    summaries, start, unit_rows, ignored, read, bits_of(valid),
                    chosen, violations, known + LOG_R,
                )  # fmt: skip
        begin = next_share(counter, begin, grab)
    return outside


@njit(nogil=True, cache=True)
def bernoulli_rows(
    counter, grab, units, unit_rows, N, log_ratio, code, M, M_code, M_step, M_value,
    seed_address, seed, row_offset, stream, log_space, mask,
):  # fmt: skip
    """Accept each log ratio of the units that it takes where log r - log M >= log u."""
    log_M = natural_logs(splat(M_value), log_space)
    low, top = splat(-np.inf), splat(np.inf)
    if seed_address != 0:
        seed = load_integer(seed_address, I64)
    begin = next_share(counter, -grab, grab)
    while begin < units:
        end = min(N, (begin + grab) * unit_rows)
        for n in range(begin * unit_rows, end, LANES):
            inside = first_lanes(end - n)
            if M_code != NONE:
                log_M = row_logs(M, M_code, M_step, n, inside, log_space)
            if code == F64:
                values = _load_some_f64(log_ratio + n * 8, inside)
            else:
                values = widen(_load_some_f32(log_ratio + n * 4, inside))
            words = row_words(row_offset + n, stream, seed)
            valid = (values < top) & (log_M > low)
            store_mask(mask + n, inside, decide_by_words(values - log_M, valid, words))
        begin = next_share(counter, begin, grab)


@njit(nogil=True, cache=True)
def philox_rows(shares, grab, units, unit_rows, N, counter, key, words):
    """Write the Philox words of counters [N, 4] and keys [N, 2], all int64."""
    counters, keys = carray(as_i64(counter), (N, 4)), carray(as_i64(key), (N, 2))
    out = carray(as_i64(words), (N, 4))
    begin = next_share(shares, -grab, grab)
    while begin < units:
        for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
            low = counters[n, 0] | (counters[n, 1] << 32)
            high = counters[n, 2] | (counters[n, 3] << 32)
            both = keys[n, 0] | (keys[n, 1] << 32)
            out[n, 0] = _word0(low, high, both)
            out[n, 1] = _word1(low, high, both)
            out[n, 2] = _word2(low, high, both)
            out[n, 3] = _word3(low, high, both)
        begin = next_share(shares, begin, grab)
