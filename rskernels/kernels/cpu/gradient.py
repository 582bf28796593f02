"""The Numba passes of ``target_log_prob``: the log-probabilities and their gradient."""

import numpy as np
from numba import njit

from rskernels.kernels.cpu.cache import cached, inner
from rskernels.kernels.cpu.dtypes import (
    NONE,
    Kernels,
    load_float,
    logit_of,
    row_address,
    store_float,
    target_at,
)
from rskernels.kernels.cpu.law import log_prob_of, scale_of, temperature_of
from rskernels.kernels.cpu.parts import BLOCK, gather_block, scratch_memory
from rskernels.kernels.cpu.simd.functions import exp2
from rskernels.kernels.cpu.simd.memory import part_loader, read_f64, storer, write_f64, write_i8
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.vectors import first_lanes, lane_is, named, select, splat
from rskernels.kernels.cpu.softmax import NEVER, row_total_of
from rskernels.kernels.cpu.threads import next_share


def log_prob_rows_of(element):
    """Return the kernel that writes log q of each row's target, and what the gradient needs.

    That is (reference, total) [N, 2]. It returns how many targets lie outside ``[0, V)``.
    """
    code, size, out_size = element.code, element.size, element.wide_size
    row_total, logit_at = row_total_of(element), logit_of(element)

    @cached
    @njit(nogil=True)
    @named(f"log_prob_{element.dtype}")
    def log_prob_rows(share, arguments):
        mode = keep_subnormals(0)
        counter, grab, units, unit_rows, N = share
        logits, targets, law, outputs = arguments
        _, _, _, _, _, stride, V = logits
        temperatures, ignore_index = law
        log_prob, totals = outputs
        scratch, outside = scratch_memory(), 0
        temperature, scale = temperatures[3], scale_of(temperatures[3])
        begin = next_share(counter, -grab, grab)
        while begin < units:
            for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
                target = target_at(targets, n)
                log_q, reference, total = 0.0, np.nan, np.nan
                if target != ignore_index:
                    log_q = np.nan
                    if temperatures[1] != NONE:
                        temperature = temperature_of(temperatures, n)
                        scale = scale_of(temperature)
                    if target < 0 or target >= V:
                        outside += 1
                    elif temperature > 0.0:
                        row = row_address(logits[:5], n)
                        reference, total, _ = row_total(
                            row, stride * size, V, scale, scratch, 0, NEVER
                        )
                        z = logit_at(row, target, stride)
                        log_q = log_prob_of(z, reference, total, temperature)
                write_f64(totals, 2 * n, reference)
                write_f64(totals, 2 * n + 1, total)
                store_float(log_prob + n * out_size, code, log_q)
            begin = next_share(counter, begin, grab)
        restore(mode)
        return outside

    return log_prob_rows


def _gradient_row_of(element):
    load, store, scalar = part_loader(element.name), storer(element.name), element.scalar
    size, zero, low = element.size, scalar(0.0), scalar(-np.inf)

    @inner
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


def gradient_rows_of(element):
    """Return the kernel that writes the gradient [N, V] of ``target_log_prob``.

    It is slope * (1[v = target] - q_v), and 0 for rows ignored or not used.
    """
    code, size, out_size = element.code, element.size, element.wide_size
    gradient_row = _gradient_row_of(element)

    @cached
    @njit(nogil=True)
    @named(f"gradient_{element.dtype}")
    def gradient_rows(share, arguments):
        mode = keep_subnormals(0)
        counter, grab, units, unit_rows, N = share
        logits, targets, inputs, law, gradient = arguments
        _, _, _, _, _, stride, V = logits
        upstream, totals = inputs
        temperatures, ignore_index = law
        scratch = scratch_memory()
        temperature, scale = temperatures[3], scale_of(temperatures[3])
        begin = next_share(counter, -grab, grab)
        while begin < units:
            for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
                target = target_at(targets, n)
                row, gradient_at = row_address(logits[:5], n), gradient + n * V * size
                if temperatures[1] != NONE:
                    temperature = temperature_of(temperatures, n)
                    scale = scale_of(temperature)
                height = load_float(upstream + n * out_size, code)
                slope = height / temperature
                if target == ignore_index or height == 0.0 or slope == 0.0:
                    # A rejected row leaves no trace, not even of a NaN, and is not read.
                    for i in range(V * size):
                        write_i8(gradient_at, i, 0)
                    continue
                softmax = read_f64(totals, 2 * n), read_f64(totals, 2 * n + 1), scale
                gradient_row(row, stride * size, V, softmax, slope, target, gradient_at, scratch)
            begin = next_share(counter, begin, grab)
        restore(mode)
        return 0

    return gradient_rows


log_prob_rows, gradient_rows = Kernels(log_prob_rows_of), Kernels(gradient_rows_of)
