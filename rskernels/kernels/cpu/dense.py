"""The Numba dense form: every entry of a row is a decision of its own, sixteen at a time."""

import math

import numpy as np
from numba import carray, float32, float64, njit

from rskernels.kernels.cpu.decide import (
    ACCEPTED,
    EXCESS,
    INVALID,
    MASS,
    SUMMARY,
    VIOLATIONS,
    tally,
)
from rskernels.kernels.cpu.lanemath import column_words, exp2, log
from rskernels.kernels.cpu.law import (
    LOG2_E,
    decide_by_words,
    natural_log,
    natural_log_f32,
    natural_logs,
    ratios,
    scale_of,
)
from rskernels.kernels.cpu.shares import next_share
from rskernels.kernels.cpu.simd import (
    count,
    first_lanes,
    minimum,
    named,
    part_loader,
    reduce_add,
    select,
    splat,
    store_mask,
    storer,
)
from rskernels.kernels.cpu.softmax import (
    BF16,
    BLOCK,
    F16,
    F32,
    F64,
    I64,
    NONE,
    as_u8,
    gather_block,
    load_float,
    load_integer,
    row_total,
    scratch_memory,
    size_of,
    store_float,
)
from rskernels.kernels.cpu.turns import row_address


def _row_of(dtype, size, kind, scalar, wide_size):
    """Return ``decide_row`` for logits of one dtype; densities and outputs are of ``kind``."""
    load, load_wide, store = part_loader(dtype), part_loader(kind), storer(kind)
    zero, one, low, nan = (scalar(x) for x in (0.0, 1.0, -np.inf, np.nan))
    most = scalar(np.finfo(np.float64 if kind == "f64" else np.float32).max)

    @njit
    @named(f"dense_row_{dtype}")
    def decide_row(
        row, row_id, stride, V, reference, total, temperature,
        density, density_code, density_stride, log_density,
        M, M_code, M_stride, log_M,
        seed, density_is_log, M_is_log, model_is_target,
        mask, log_prob, log_ratio, scratch, summary,
    ):  # fmt: skip
        base, factor = splat(scalar(reference)), splat(scalar(min(1.0 / temperature, 3.0e38)))
        log_total = splat(scalar(math.log(total)))
        log_d, log_m = splat(scalar(log_density)), splat(scalar(log_M))
        accepted, violations, valid_entries = 0, 0, 0
        for start in range(0, V, BLOCK):
            length = min(BLOCK, V - start)
            block = row + start * stride
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


_load_f32, _store_f32, _load_f64, _store_f64 = (
    make(kind) for kind in ("f32", "f64") for make in (part_loader, storer)
)
_row_f32 = _row_of("f32", 4, "f32", float32, 4)
_row_bf16 = _row_of("bf16", 2, "f32", float32, 4)
_row_f16 = _row_of("f16", 2, "f32", float32, 4)
_row_f64 = _row_of("f64", 8, "f64", float64, 8)


@njit
def row_log(address, value_code, code, log_space):
    """Return the logarithm of the density or M of a row's every entry, as if each had its own."""
    value = load_float(address, value_code)
    return natural_log(value, log_space) if code == F64 else natural_log_f32(value, log_space)


@njit(nogil=True, cache=True)
def log_entries(values, code, V, logs):
    """Write the logarithms of densities or Ms that every row shares."""
    for i in range(0, V, 16):
        inside = first_lanes(V - i)
        if code == F64:
            _store_f64(logs + i * 8, inside, log(_load_f64(values + i * 8, inside)))
        else:
            _store_f32(logs + i * 4, inside, log(_load_f32(values + i * 4, inside)))


@njit
def reject_row(mask, log_prob, log_ratio, code, V):
    """Reject every entry of a row that has no softmax."""
    size = 8 if code == F64 else 4
    for column in range(V):
        carray(as_u8(mask + column), 1)[0] = 0
        if log_prob != 0:
            store_float(log_prob + column * size, code, np.nan)
            store_float(log_ratio + column * size, code, np.nan)


@njit(nogil=True, cache=True)
def dense_rows(
    counter, grab, units, unit_rows, N,
    logits, code, inner, outer_stride, inner_stride, stride, V,
    density, density_code, density_outer, density_inner, density_stride, density_value,
    M, M_code, M_outer, M_inner, M_stride, M_value,
    seed_address, seed, row_offset, temperature, density_is_log, M_is_log, model_is_target,
    mask, log_prob, log_ratio, summaries,
):  # fmt: skip
    """Decide every entry of the rows of the units that it takes.

    ``log_prob`` and ``log_ratio`` are 0 where only the mask is wanted; the sums are then left out.
    """
    scratch = scratch_memory()
    scale = scale_of(temperature)
    log_density = natural_log(density_value, density_is_log)
    log_M = natural_log(M_value, M_is_log)
    if seed_address != 0:
        seed = load_integer(seed_address, I64)
    size, out_size = size_of(code), 8 if code == F64 else 4
    density_size, M_size = size_of(density_code), size_of(M_code)
    begin = next_share(counter, -grab, grab)
    while begin < units:
        for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
            summary = summaries + n // unit_rows * (SUMMARY * 8) if log_prob != 0 else 0
            row = row_address(logits, n, inner, outer_stride, inner_stride, size)
            reference, total, _ = row_total(row, code, stride * size, V, scale, scratch)
            mask_row = mask + n * V
            log_prob_row = log_prob + n * V * out_size if log_prob != 0 else 0
            log_ratio_row = log_ratio + n * V * out_size
            if not total > 0.0:
                reject_row(mask_row, log_prob_row, log_ratio_row, code, V)
                if log_prob != 0:
                    tally(summary, INVALID, V)
                continue
            density_row = row_address(density, n, inner, density_outer, density_inner, density_size)
            if density_code != NONE and density_stride == 0:
                log_density = row_log(density_row, density_code, code, density_is_log)
            M_row = row_address(M, n, inner, M_outer, M_inner, M_size)
            if M_code != NONE and M_stride == 0:
                log_M = row_log(M_row, M_code, code, M_is_log)
            arguments = (
                row, row_offset + n, stride * size, V, reference, total, temperature,
                density_row, density_code, density_stride, log_density,
                M_row, M_code, M_stride, log_M,
                seed, density_is_log, M_is_log, model_is_target,
                mask_row, log_prob_row, log_ratio_row, scratch, summary,
            )  # fmt: skip
            if code == F32:
                _row_f32(*arguments)
            elif code == BF16:
                _row_bf16(*arguments)
            elif code == F16:
                _row_f16(*arguments)
            else:
                _row_f64(*arguments)
        begin = next_share(counter, begin, grab)
