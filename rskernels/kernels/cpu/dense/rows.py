"""The loops over rows of the dense form, a kernel a dtype.

Kernels take plain tuples, which their first lines name; a density or M of entries is (address,
code, outer, inner and column stride, number), and temperatures of rows are (address, code, step,
number), where the code NONE says that it is the number.
"""

import math

import numpy as np
from numba import int64, njit

from rskernels.kernels.cpu.cache import cached, inner
from rskernels.kernels.cpu.dense.entries import (
    CHUNK,
    entries_of,
    leading_memory,
    logs_memory,
    logs_of,
    trailing_memory,
    weights_memory,
)
from rskernels.kernels.cpu.dense.rough import (
    SPANS,
    densities_of,
    rough_entries_of,
    rough_factor,
    weigher_of,
)
from rskernels.kernels.cpu.dtypes import (
    F64,
    NONE,
    Kernels,
    load_float,
    row_address,
    store_float,
)
from rskernels.kernels.cpu.law import (
    natural_log,
    natural_log_f32,
    scale_of,
    seed_of,
    temperature_of,
)
from rskernels.kernels.cpu.parts import LINE, count_parts, gather_block, scratch_memory
from rskernels.kernels.cpu.simd.functions import log
from rskernels.kernels.cpu.simd.memory import (
    add_f64,
    free_memory,
    part_loader,
    storer,
    take_memory,
    write_i8,
)
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.uniforms import SHORT_ROWS, draw_short_rows
from rskernels.kernels.cpu.simd.vectors import (
    LANES,
    first_lanes,
    named,
)
from rskernels.kernels.cpu.softmax import NEVER, UNREAD, parts_total_of
from rskernels.kernels.cpu.threads import next_share
from rskernels.law.numbers import (
    INVALID,
    LARGEST_SCALE,
    SUMMARY,
)

UNSIGNED = (1 << 63) - 1  # all bits of an int64 but the sign's

_load_f32, _store_f32, _load_f64, _store_f64 = (
    make(kind) for kind in ("f32", "f64") for make in (part_loader, storer)
)


@inner
def row_log(address, value_code, code, log_space):
    """Return the logarithm of the density or M of a row's every entry, as if each had its own."""
    value = load_float(address, value_code)
    return natural_log(value, log_space) if code == F64 else natural_log_f32(value, log_space)


@inner
def values_of_row(values, n, inner, shared, code, is_log):
    """Return the density or M of a row as (address, whether entries have their own, logarithm).

    The logarithm is that of all entries, where they share one.
    """
    address, value_code, outer_stride, inner_stride, stride, _ = values
    address = row_address((address, value_code, inner, outer_stride, inner_stride), n)
    log_value = shared
    if value_code != NONE and stride == 0:
        log_value = row_log(address, value_code, code, is_log)
    return address, value_code != NONE and stride != 0, log_value


@inner
def is_of_all_rows(values, N, V):
    """Say whether every row has the same densities or Ms, and few enough to take logs of once."""
    _, value_code, outer_stride, inner_stride, stride, _ = values
    shared = value_code != NONE and outer_stride == 0 and inner_stride == 0
    return shared and stride == 1 and V <= CHUNK and N > 0


@cached
@njit(nogil=True)
def log_entries(values, code, V, logs):
    """Write the logarithms of densities or Ms that every row shares."""
    mode = keep_subnormals(0)
    for i in range(0, V, 16):
        inside = first_lanes(V - i)
        if code == F64:
            _store_f64(logs + i * 8, inside, log(_load_f64(values + i * 8, inside)))
        else:
            _store_f32(logs + i * 4, inside, log(_load_f32(values + i * 4, inside)))
    restore(mode)


@inner
def reject_row(outputs, code, V):
    """Reject every entry of a row that has no softmax or temperature."""
    mask, log_prob, log_ratio, summary = outputs
    size = 8 if code == F64 else 4
    for column in range(V):
        write_i8(mask, column, 0)
        if log_prob != 0:
            store_float(log_prob + column * size, code, np.nan)
            store_float(log_ratio + column * size, code, np.nan)
    if log_prob != 0:
        add_f64(summary, INVALID, V)


@inner
def outputs_of_row(outputs, n, unit_rows, code, V):
    """Return where a row's mask, log_prob and log_ratio, and its unit's summary, are."""
    mask, log_prob, log_ratio, summaries = outputs
    if log_prob == 0:
        return mask + n * V, 0, 0, 0
    at = n * V * (8 if code == F64 else 4)
    return mask + n * V, log_prob + at, log_ratio + at, summaries + n // unit_rows * (SUMMARY * 8)


def _row_of(element):
    decide_entries, decide_rough_entries = entries_of(element), rough_entries_of(element)
    write_logs, write_densities = logs_of(element), densities_of(element)
    write_weights, span = weigher_of(element), SPANS[element.wide]
    size, wide_size = element.size, element.wide_size

    @inner
    @named(f"dense_row_{element.name}")
    def decide_row(row, draw, softmax, density, M, law, outputs, memory):
        """Decide the entries of a row whose total is known, a chunk after the other.

        ``kept`` are the row's weights, taken against its reference from the column ``settled`` on,
        and ``factor`` is what densities are multiplied by beside its total; NaN where no decision
        is to be rough.
        """
        address, stride, V = row
        row_id, seed, drawn = draw
        reference, total, inverse, scale, kept, settled, factor = softmax
        density, density_has_entries, log_density = density
        M, M_has_entries, log_M = M
        density_is_log, M_is_log, model_is_target = law
        mask, log_prob, log_ratio, summary = outputs
        scratch, words, trailing, density_logs, M_logs = memory
        if drawn != 0:
            words = drawn
        factor *= total
        is_rough = factor <= span and factor >= 1.0 / span
        if not is_rough:
            factor = np.nan
        for start in range(0, V, CHUNK):
            length = min(CHUNK, V - start)
            logits, log_d, log_m = address + start * stride, 0, 0
            if stride != size:
                gather_block(logits, stride, length, size, scratch)
                logits = scratch
            weights, densities, p = kept + start * 4, 0, 0
            if start < settled and is_rough:
                write_weights(logits, length, reference, scale, weights)
            if density_has_entries:
                densities = density + start * wide_size
                log_d, p = densities if density_is_log else density_logs, densities
                if density_is_log and is_rough:
                    p = density_logs
                    write_densities(densities, length, p)
            # It draws, whatever it decides.
            is_open = decide_rough_entries(
                logits, length, (words, drawn != 0, row_id, start, seed), weights, (p, factor),
                model_is_target, mask + start,
            )  # fmt: skip
            # The first column of the chunk, 0: as a literal it would be compiled for apart.
            begin, end = start % CHUNK, min(16, length)
            if not is_rough:
                end, is_open = length, 1
            if M_has_entries:
                log_m = M + start * wide_size
                if not M_is_log:
                    log_m = write_logs(log_m, length, M_logs)
            part = mask + start, 0, 0, 0
            if log_prob != 0:
                at = start * wide_size
                part = mask + start, log_prob + at, log_ratio + at, summary
            chunk = words, trailing, row_id, start, seed
            logs = log_d, log_density, log_m, log_M
            while is_open != 0:
                if is_open & 1:
                    if density_has_entries and not density_is_log:
                        at = begin * wide_size
                        write_logs(densities + at, end - begin, density_logs + at)
                    # Where decisions are rough it is rarely wanted.
                    row_softmax = reference, inverse, math.log(total)
                    decide_entries(
                        logits, begin, end, chunk, row_softmax, logs, model_is_target, part
                    )
                is_open = (is_open >> 1) & UNSIGNED
                begin, end = end, min(end + 16, length)

    return decide_row


def _rows_of(element):
    decide_row, write_logs = _row_of(element), logs_of(element)
    parts_total, size, code = parts_total_of(element, keeps=True), element.size, element.code

    @cached
    @njit(nogil=True)
    @named(f"dense_{element.dtype}")
    def dense_rows(share, arguments):
        """Decide every entry of the rows of the units that it takes.

        ``log_prob`` and ``log_ratio`` are 0 where only the mask is wanted; the sums are then left
        out.
        """
        mode = keep_subnormals(0)
        counter, grab, units, unit_rows, N = share
        logits, density, M, draw, law, outputs = arguments
        _, _, inner, _, _, stride, V = logits
        seed_address, seed, row_offset = draw
        temperatures, density_is_log, M_is_log, model_is_target = law
        memory = (
            scratch_memory(), leading_memory(), trailing_memory(), logs_memory(), logs_memory(),
        )  # fmt: skip
        temperature = temperatures[3]
        scale, factor = scale_of(temperature), min(1.0 / temperature, LARGEST_SCALE)
        shared_density = natural_log(density[5], density_is_log)
        shared_M = natural_log(M[5], M_is_log)
        is_rough = outputs[1] == 0 and (M[1] == NONE or M[4] == 0)
        if is_of_all_rows(density, N, V) and not (density_is_log or is_rough):
            write_logs(density[0], V, memory[3])
            density, density_is_log = (memory[3], code, 0, 0, 1, 0.0), True
        if is_of_all_rows(M, N, V) and not M_is_log:
            write_logs(M[0], V, memory[4])
            M, M_is_log = (memory[4], code, 0, 0, 1, 0.0), True
        seed, parts = seed_of(seed_address, seed), count_parts(V, int64(0))
        # One density of all entries, or one an entry, and one M.
        is_shared, rough = M[1] == NONE and (density[1] == NONE or density[4] != 0), np.nan
        if is_rough:
            log_density = shared_density if density[1] == NONE else 0.0
            rough = rough_factor(log_density, shared_M, model_is_target)
        taken, kept = int64(0), weights_memory()
        if V > CHUNK:
            taken = take_memory(V * 4 + 2 * LINE)
            if taken == 0:
                restore(mode)
                return 1
            kept = taken + LINE - taken % LINE
        begin = next_share(counter, -grab, grab)
        while begin < units:
            for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
                row, drawn = row_address(logits[:5], n), 0
                if V <= LANES:
                    place = (n - begin * unit_rows) % SHORT_ROWS
                    drawn = memory[1] + place * 4 * LANES
                    if place == 0:
                        draw_short_rows(drawn, row_offset + n, seed)
                if temperatures[1] != NONE:
                    temperature = temperature_of(temperatures, n)
                    scale, factor = scale_of(temperature), min(1.0 / temperature, LARGEST_SCALE)
                reference, total, _, settled = parts_total(
                    row, stride * size, V, scale, memory[0], int64(0), NEVER,
                    (int64(0), parts, kept), UNREAD,
                )  # fmt: skip
                row_outputs = outputs_of_row(outputs, n, unit_rows, code, V)
                if not (reference > -np.inf and total > 0.0 and temperature > 0.0):
                    reject_row(row_outputs, code, V)
                    continue
                of_density = values_of_row(density, n, inner, shared_density, code, density_is_log)
                of_M = values_of_row(M, n, inner, shared_M, code, M_is_log)
                if is_rough and not is_shared:
                    log_density = 0.0 if of_density[1] else of_density[2]
                    rough = rough_factor(log_density, of_M[2], model_is_target)
                decide_row(
                    (row, stride * size, V),
                    (row_offset + n, seed, drawn),
                    (reference, total, factor, scale, kept, settled, rough),
                    of_density,
                    of_M,
                    (density_is_log, M_is_log, model_is_target),
                    row_outputs,
                    memory,
                )
            begin = next_share(counter, begin, grab)
        if taken != 0:
            free_memory(taken)
        restore(mode)
        return 0

    return dense_rows


dense_rows = Kernels(_rows_of)
