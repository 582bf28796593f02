"""The Numba passes of ``target_log_prob``: the log-probabilities and their gradient."""

import numpy as np
from numba import carray, njit

from rskernels.kernels.cpu.cache import cached
from rskernels.kernels.cpu.dtypes import (
    F64,
    NONE,
    as_f64,
    as_u8,
    by_dtype,
    load_float,
    logit_at,
    row_address,
    size_of,
    store_float,
    target_at,
)
from rskernels.kernels.cpu.law import log_prob_of, scale_of, temperature_of
from rskernels.kernels.cpu.parts import BLOCK, gather_block, scratch_memory
from rskernels.kernels.cpu.simd.functions import exp2
from rskernels.kernels.cpu.simd.memory import part_loader, storer
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.vectors import first_lanes, lane_is, named, select, splat
from rskernels.kernels.cpu.softmax import row_total
from rskernels.kernels.cpu.threads import next_share


@cached
@njit(nogil=True)
def log_prob_rows(share, arguments):
    """Write log q of each row's target, and (reference, total) [N, 2] for the gradient.

    Returns how many targets lie outside ``[0, V)``.
    """
    mode = keep_subnormals(0)
    counter, grab, units, unit_rows, N = share
    logits, targets, law, outputs = arguments
    _, code, _, _, _, stride, V = logits
    temperatures, ignore_index = law
    log_prob, totals = outputs
    scratch, size = scratch_memory(), size_of(code)
    temperature, scale = temperatures[3], scale_of(temperatures[3])
    out_size = 8 if code == F64 else 4
    outside = 0
    begin = next_share(counter, -grab, grab)
    while begin < units:
        for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
            target = target_at(targets, n)
            kept = carray(as_f64(totals + n * 16), 2)
            log_q, kept[0], kept[1] = 0.0, np.nan, np.nan
            if target != ignore_index:
                log_q = np.nan
                if temperatures[1] != NONE:
                    temperature = temperature_of(temperatures, n)
                    scale = scale_of(temperature)
                if target < 0 or target >= V:
                    outside += 1
                elif temperature > 0.0:
                    row = row_address(logits[:5], n)
                    kept[0], kept[1], _ = row_total((row, code, stride * size, V), scale, scratch)
                    z = logit_at(row, target, stride, code)
                    log_q = log_prob_of(z, kept[0], kept[1], temperature)
            store_float(log_prob + n * out_size, code, log_q)
        begin = next_share(counter, begin, grab)
    restore(mode)
    return outside


def _gradient_row_of(element):
    load, store, scalar = part_loader(element.name), storer(element.name), element.scalar
    size, zero, low = element.size, scalar(0.0), scalar(-np.inf)

    @njit
    @named(f"gradient_row_{element.name}")
    def gradient_row(row, stride, V, softmax, slope, target, gradient, scratch):
        reference, total, scale = softmax
        base, factor = splat(scalar(reference)), splat(scalar(scale))
        weight = splat(scalar(-slope / total))
        for start in range(0, V, BLOCK):
            length = min(BLOCK, V - start)
            block = row + start * stride
            if stride != size:
                gather_block(block, stride, length, size, scratch)
                block = scratch
            for i in range(0, length, 16):
                inside = first_lanes(length - i)
                z = load(block + i * size, inside)
                value = exp2((z - base) * factor) * weight
                value = select(z > splat(low), value, splat(zero))
                hit = lane_is(target - start - i)
                value = select(hit, value + splat(scalar(slope)), value)
                store(gradient + (start + i) * size, inside, value)

    return gradient_row


gradient_row = by_dtype(_gradient_row_of)


@cached
@njit(nogil=True)
def gradient_rows(share, arguments):
    """Write the gradient [N, V] of ``target_log_prob``, slope * (1[v = target] - q_v).

    It is 0 for rows ignored or not used.
    """
    mode = keep_subnormals(0)
    counter, grab, units, unit_rows, N = share
    logits, targets, inputs, law, gradient = arguments
    _, code, _, _, _, stride, V = logits
    upstream, totals = inputs
    temperatures, ignore_index = law
    scratch, size = scratch_memory(), size_of(code)
    temperature, scale = temperatures[3], scale_of(temperatures[3])
    out_size = 8 if code == F64 else 4
    begin = next_share(counter, -grab, grab)
    while begin < units:
        for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
            target = target_at(targets, n)
            row, gradient_at = row_address(logits[:5], n), gradient + n * V * size
            kept = carray(as_f64(totals + n * 16), 2)
            if temperatures[1] != NONE:
                temperature = temperature_of(temperatures, n)
                scale = scale_of(temperature)
            height = load_float(upstream + n * out_size, code)
            slope = height / temperature
            if target == ignore_index or height == 0.0 or slope == 0.0:
                # A rejected row leaves no trace, not even of a NaN, and is not read.
                octets = carray(as_u8(gradient_at), V * size)
                for i in range(V * size):
                    octets[i] = 0
                continue
            softmax = kept[0], kept[1], scale
            gradient_row(
                code, (row, stride * size, V, softmax, slope, target, gradient_at, scratch)
            )
        begin = next_share(counter, begin, grab)
    restore(mode)
