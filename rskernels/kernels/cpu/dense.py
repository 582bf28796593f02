"""The Numba dense form: every entry of a row is a decision of its own, sixteen at a time.

Kernels take plain tuples, which their first lines name; a density or M of entries is (address,
code, outer, inner and column stride, number), where the code NONE says that it is the number.
"""

import math

import numpy as np
from numba import carray, float64, njit

from rskernels.kernels.cpu.cache import cached
from rskernels.kernels.cpu.decide import tally
from rskernels.kernels.cpu.dtypes import (
    F64,
    NONE,
    as_u8,
    by_dtype,
    load_float,
    row_address,
    size_of,
    store_float,
)
from rskernels.kernels.cpu.law import (
    decide_by_words,
    natural_log,
    natural_log_f32,
    natural_logs,
    ratios,
    scale_of,
    seed_of,
    temperature_of,
)
from rskernels.kernels.cpu.parts import BLOCK, gather_block, scratch_memory
from rskernels.kernels.cpu.simd.functions import exp2, log
from rskernels.kernels.cpu.simd.memory import part_loader, store_mask, storer
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.uniforms import column_words
from rskernels.kernels.cpu.simd.vectors import (
    count,
    first_lanes,
    minimum,
    named,
    reduce_add,
    select,
    splat,
)
from rskernels.kernels.cpu.softmax import row_total
from rskernels.kernels.cpu.threads import next_share
from rskernels.law.numbers import (
    ACCEPTED,
    EXCESS,
    INVALID,
    LARGEST_SCALE,
    LOG2_E,
    MASS,
    SUMMARY,
    VIOLATIONS,
)


def _row_of(element):
    load, load_wide, store = (
        part_loader(element.name), part_loader(element.wide), storer(element.wide),
    )  # fmt: skip
    size, wide_size, scalar = element.size, element.wide_size, element.scalar
    zero, one, low, nan = (scalar(x) for x in (0.0, 1.0, -np.inf, np.nan))
    most = scalar(np.finfo(np.float64 if element.wide == "f64" else np.float32).max)

    @njit
    @named(f"dense_row_{element.name}")
    def decide_row(row, draw, softmax, density, M, law, outputs, scratch):
        address, stride, V = row
        row_id, seed = draw
        reference, total, temperature = softmax
        density, density_code, density_stride, log_density = density
        M, M_code, M_stride, log_M = M
        density_is_log, M_is_log, model_is_target = law
        mask, log_prob, log_ratio, summary = outputs

        base = splat(scalar(reference))
        factor = splat(scalar(min(1.0 / temperature, LARGEST_SCALE)))
        log_total = splat(scalar(math.log(total)))
        log_d, log_m = splat(scalar(log_density)), splat(scalar(log_M))
        accepted, violations, valid_entries = 0, 0, 0
        for start in range(0, V, BLOCK):
            length = min(BLOCK, V - start)
            block = address + start * stride
            if stride != size:
                gather_block(block, stride, length, size, scratch)
                block = scratch
            excess, mass = splat(zero), splat(zero)
            following = column_words(row_id, start, seed)
            for i in range(0, length, 16):
                column = start + i
                words = following
                # The next draw fills the time that this decision takes.
                if i + 16 < length:
                    following = column_words(row_id, column + 16, seed)
                inside = first_lanes(length - i)
                z = load(block + i * size, inside)
                log_q = minimum((z - base) * factor - log_total, splat(zero))
                # What is finite stays so.
                huge = (log_q < splat(-most)) & (z > splat(low))
                log_q = select(huge, splat(-most), log_q)
                if density_code != NONE and density_stride != 0:
                    log_d = load_wide(density + column * wide_size, inside)
                    log_d = natural_logs(log_d, density_is_log)
                if M_code != NONE and M_stride != 0:
                    log_m = natural_logs(load_wide(M + column * wide_size, inside), M_is_log)
                valid, log_w, log_r = ratios(log_q, log_d, log_m, model_is_target, False)
                chosen = decide_by_words(log_r, valid, words)
                store_mask(mask + column, inside, chosen)
                if log_prob != 0:
                    chosen, valid = chosen & inside, valid & inside
                    at = column * wide_size
                    store(log_prob + at, inside, log_q)
                    store(log_ratio + at, inside, select(valid, log_w, splat(nan)))
                    r = exp2(log_r * splat(scalar(LOG2_E)))
                    r = select(valid & (log_r > splat(low)), r, splat(zero))
                    over = valid & (log_r > splat(zero))
                    excess = excess + select(over, r - splat(one), splat(zero))
                    mass = mass + r
                    accepted += count(chosen)
                    violations += count(over)
                    valid_entries += count(valid)
            if log_prob != 0:
                tally(summary, EXCESS, float64(reduce_add(excess)))
                tally(summary, MASS, float64(reduce_add(mass)))
        if log_prob != 0:
            tally(summary, ACCEPTED, accepted)
            tally(summary, VIOLATIONS, violations)
            tally(summary, INVALID, V - valid_entries)

    return decide_row


decide_row = by_dtype(_row_of)
_load_f32, _store_f32, _load_f64, _store_f64 = (
    make(kind) for kind in ("f32", "f64") for make in (part_loader, storer)
)


@njit
def row_log(address, value_code, code, log_space):
    """Return the logarithm of the density or M of a row's every entry, as if each had its own."""
    value = load_float(address, value_code)
    return natural_log(value, log_space) if code == F64 else natural_log_f32(value, log_space)


@njit
def values_of_row(values, n, inner, shared, code, is_log):
    """Return the density or M of a row's entries as (address, code, column stride, logarithm).

    The logarithm is that of all entries, where they share one.
    """
    address, value_code, outer_stride, inner_stride, stride, _ = values
    address = row_address((address, value_code, inner, outer_stride, inner_stride), n)
    log_value = shared
    if value_code != NONE and stride == 0:
        log_value = row_log(address, value_code, code, is_log)
    return address, value_code, stride, log_value


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


@njit
def reject_row(outputs, code, V):
    """Reject every entry of a row that has no softmax."""
    mask, log_prob, log_ratio, summary = outputs
    size = 8 if code == F64 else 4
    for column in range(V):
        carray(as_u8(mask + column), 1)[0] = 0
        if log_prob != 0:
            store_float(log_prob + column * size, code, np.nan)
            store_float(log_ratio + column * size, code, np.nan)
    if log_prob != 0:
        tally(summary, INVALID, V)


@njit
def outputs_of_row(outputs, n, unit_rows, code, V):
    """Return where a row's mask, log_prob and log_ratio, and its unit's summary, are."""
    mask, log_prob, log_ratio, summaries = outputs
    if log_prob == 0:
        return mask + n * V, 0, 0, 0
    at = n * V * (8 if code == F64 else 4)
    return mask + n * V, log_prob + at, log_ratio + at, summaries + n // unit_rows * (SUMMARY * 8)


@cached
@njit(nogil=True)
def dense_rows(share, arguments):
    """Decide every entry of the rows of the units that it takes.

    ``log_prob`` and ``log_ratio`` are 0 where only the mask is wanted; the sums are then left out.
    """
    mode = keep_subnormals(0)
    counter, grab, units, unit_rows, N = share
    logits, density, M, draw, law, outputs = arguments
    _, code, inner, _, _, stride, V = logits
    seed_address, seed, row_offset = draw
    temperatures, density_is_log, M_is_log, model_is_target = law
    scratch, size = scratch_memory(), size_of(code)
    temperature, scale = temperatures[3], scale_of(temperatures[3])
    shared_density = natural_log(density[5], density_is_log)
    shared_M = natural_log(M[5], M_is_log)
    seed = seed_of(seed_address, seed)
    begin = next_share(counter, -grab, grab)
    while begin < units:
        for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
            row = row_address(logits[:5], n)
            if temperatures[1] != NONE:
                temperature = temperature_of(temperatures, n)
                scale = scale_of(temperature)
            reference, total, _ = row_total((row, code, stride * size, V), scale, scratch)
            row_outputs = outputs_of_row(outputs, n, unit_rows, code, V)
            if not (total > 0.0 and temperature > 0.0):
                reject_row(row_outputs, code, V)
                continue
            arguments = (
                (row, stride * size, V),
                (row_offset + n, seed),
                (reference, total, temperature),
                values_of_row(density, n, inner, shared_density, code, density_is_log),
                values_of_row(M, n, inner, shared_M, code, M_is_log),
                (density_is_log, M_is_log, model_is_target),
                row_outputs,
                scratch,
            )
            decide_row(code, arguments)
        begin = next_share(counter, begin, grab)
    restore(mode)
