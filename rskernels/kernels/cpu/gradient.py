"""The Numba passes of ``target_log_prob``: the log-probabilities and their gradient."""

import numpy as np
from numba import carray, float32, float64, njit

from rskernels.kernels.cpu.lanemath import exp2
from rskernels.kernels.cpu.law import log_prob_of, scale_of
from rskernels.kernels.cpu.shares import next_share
from rskernels.kernels.cpu.simd import (
    first_lanes,
    lane_is,
    named,
    part_loader,
    select,
    splat,
    storer,
)
from rskernels.kernels.cpu.softmax import (
    BF16,
    BLOCK,
    F16,
    F32,
    F64,
    as_f64,
    as_u8,
    gather_block,
    load_float,
    load_integer,
    load_logit,
    row_total,
    scratch_memory,
    size_of,
    store_float,
)
from rskernels.kernels.cpu.turns import row_address


@njit(nogil=True, cache=True)
def log_prob_rows(
    counter, grab, units, unit_rows, N, logits, code, inner, outer_stride, inner_stride, stride, V,
    targets, target_code, temperature, ignore_index, log_prob, totals,
):  # fmt: skip
    """Write log q of each row's target, and (reference, total) [N, 2] for the gradient.

    Returns how many targets lie outside ``[0, V)``.
    """
    scratch = scratch_memory()
    scale = scale_of(temperature)
    size, target_size = size_of(code), size_of(target_code)
    out_size = 8 if code == F64 else 4
    outside = 0
    begin = next_share(counter, -grab, grab)
    while begin < units:
        for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
            target = load_integer(targets + n * target_size, target_code)
            kept = carray(as_f64(totals + n * 16), 2)
            log_q, kept[0], kept[1] = 0.0, np.nan, np.nan
            if target != ignore_index:
                log_q = np.nan
                if target < 0 or target >= V:
                    outside += 1
                else:
                    row = row_address(logits, n, inner, outer_stride, inner_stride, size)
                    kept[0], kept[1], _ = row_total(row, code, stride * size, V, scale, scratch)
                    z = load_logit(row + target * stride * size, code)
                    log_q = log_prob_of(z, kept[0], kept[1], temperature)
            store_float(log_prob + n * out_size, code, log_q)
        begin = next_share(counter, begin, grab)
    return outside


def _row_of(dtype, size, scalar):
    """Return ``gradient_row`` for logits, and their gradient, of one dtype."""
    load, store = part_loader(dtype), storer(dtype)

    @njit
    @named(f"gradient_row_{dtype}")
    def gradient_row(row, stride, V, reference, total, scale, slope, target, gradient, scratch):
        """Write slope * (1[v = target] - q_v)."""
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
                value = select(z > splat(scalar(-np.inf)), value, splat(scalar(0.0)))
                hit = lane_is(target - start - i)
                value = select(hit, value + splat(scalar(slope)), value)
                store(gradient + (start + i) * size, inside, value)

    return gradient_row


_row_f32 = _row_of("f32", 4, float32)
_row_bf16 = _row_of("bf16", 2, float32)
_row_f16 = _row_of("f16", 2, float32)
_row_f64 = _row_of("f64", 8, float64)


@njit(nogil=True, cache=True)
def gradient_rows(
    counter, grab, units, unit_rows, N, logits, code, inner, outer_stride, inner_stride, stride, V,
    targets, target_code, upstream, totals, temperature, ignore_index, gradient,
):  # fmt: skip
    """Write the gradient [N, V] of ``target_log_prob``: 0 for rows ignored or not used."""
    scratch = scratch_memory()
    scale = scale_of(temperature)
    size, target_size = size_of(code), size_of(target_code)
    out_size = 8 if code == F64 else 4
    begin = next_share(counter, -grab, grab)
    while begin < units:
        for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
            target = load_integer(targets + n * target_size, target_code)
            row = row_address(logits, n, inner, outer_stride, inner_stride, size)
            kept = carray(as_f64(totals + n * 16), 2)
            slope = load_float(upstream + n * out_size, code) / temperature
            if target == ignore_index or slope == 0.0:
                # A rejected row leaves no trace, not even of a NaN, and is not read.
                octets = carray(as_u8(gradient + n * V * size), V * size)
                for i in range(V * size):
                    octets[i] = 0
                continue
            reference, total = kept[0], kept[1]
            arguments = (
                row, stride * size, V, reference, total, scale, slope, target,
                gradient + n * V * size, scratch,
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
