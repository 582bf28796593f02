"""What is known of rows whose logits are not stored, in Numba: opened, and settled at the end.

Rows lie in groups of sixteen, each with ``GROUP`` bytes of memory: those of ``turns``, with the
target in the place of the row's address, and what decides beside the logits. In between ``fold``
adds the blocks of the product to their totals.
"""

import numpy as np
from numba import njit

from rskernels.kernels.cpu.cache import cached
from rskernels.kernels.cpu.decide import ACCEPT, settle_rows
from rskernels.kernels.cpu.dtypes import F64, NONE, Kernels, target_at
from rskernels.kernels.cpu.early_exit import decide_unread
from rskernels.kernels.cpu.law import (
    draw_uniforms,
    natural_logs,
    row_logs,
    row_temperatures,
    scales_of,
    seed_of,
)
from rskernels.kernels.cpu.linear.dot import dot_of
from rskernels.kernels.cpu.parts import prefetch_bytes, scratch_memory
from rskernels.kernels.cpu.simd.functions import log_of_normal
from rskernels.kernels.cpu.simd.memory import (
    loader,
    read_f32,
    read_f64,
    read_i64,
    storer,
    write_f64,
    write_i8,
    write_i64,
)
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.tanh import tanh
from rskernels.kernels.cpu.simd.vectors import (
    LANES,
    bits_of,
    first,
    first_lanes,
    named,
    narrow,
    splat,
    widen,
)
from rskernels.kernels.cpu.softmax import UNREAD
from rskernels.kernels.cpu.threads import next_share
from rskernels.kernels.cpu.turns import HEADROOM, KNOWN, LOGIT, REFERENCE, ROW, SCALE, keep_state

TARGET = ROW
TEMPERATURE, LOG_DENSITY, LOG_M, LOG_U, BITS, GROUP = (KNOWN + LANES * 8 * at for at in range(6))
IGNORED, READ, ACCEPTED = range(3)  # the order of the bits
FETCHED = 1 << 14  # bytes of a target's weight that are asked for ahead, of sixteen at once

_load_f64, _store_f64 = loader("f64"), storer("f64")


def _target_logit_of(element):
    code, size = element.code, element.size
    dot, low_rank_dot = dot_of(element.name, element.name), dot_of(element.wide, element.name)
    wide_size, read_wide = element.wide_size, read_f64 if code == F64 else read_f32

    @njit(inline="always")
    @named(f"target_logit_{element.dtype}")
    def target_logit(n, target, product, scratch):
        """Return one logit, rounded as those of a block are."""
        hidden, weight, low_rank, affine = product
        x, row = hidden[0] + n * hidden[1] * size, weight[0] + target * weight[1] * size
        z = dot(x, row, weight[2] * size, hidden[2], scratch)
        if low_rank[0] != 0:
            x, row = low_rank[0] + n * low_rank[1] * wide_size, low_rank[3]
            row += target * low_rank[4] * size
            z += low_rank_dot(x, row, low_rank[5] * size, low_rank[2], scratch)
        scale, softcap, bias = affine
        z *= scale
        if bias != 0:
            z += read_wide(bias, target)
        if softcap != 0.0:
            z = softcap * first(tanh(splat(z / softcap)))
        return z if code == F64 else first(widen(narrow(splat(z))))

    return target_logit


@njit(inline="always")
def prefetch_weights(targets, start, rows, V, weight):
    """Prefetch what targets' logits are made of, (address, bytes to the next, bytes of one)."""
    address, stride, length = weight
    for n in range(start, start + rows):
        target = target_at(targets, n)
        if target >= 0 and target < V:
            prefetch_bytes(address + target * stride, min(length, FETCHED))


def target_logits_of(element):
    """Return the kernel that writes one logit of each row, float64, as ``open_rows_of`` has it.

    A row without one, whose target lies outside ``[0, V)``, is left as it is. ``logits`` is
    (address, bytes to the next row's).
    """
    target_logit = _target_logit_of(element)

    @cached
    @njit(nogil=True)
    @named(f"linear_target_logits_{element.dtype}")
    def target_logits(share, arguments):
        mode = keep_subnormals(0)
        counter, grab, units, unit_rows, N = share
        product, V, targets, logits = arguments
        scratch = scratch_memory()
        begin = next_share(counter, -grab, grab)
        while begin < units:
            for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
                target = target_at(targets, n)
                if 0 <= target < V:
                    z = target_logit(n, target, product, scratch)
                    write_f64(logits[0] + n * logits[1], 0, z)
            begin = next_share(counter, begin, grab)
        restore(mode)
        return 0

    return target_logits


def open_rows_of(element):
    """Return the kernel that opens rows: all that is known of them before the product.

    It writes their groups, and which of them have to be read, a byte a row. ``form`` is whether
    the mask alone is wanted, and whether a row may be left once it is certain. The kernel returns
    how many targets lie outside ``[0, V)``.
    """
    code, target_logit, size = element.code, _target_logit_of(element), element.size

    @cached
    @njit(nogil=True)
    @named(f"linear_open_{element.dtype}")
    def open_rows(share, arguments):
        mode = keep_subnormals(0)
        counter, grab, units, _, N = share
        product, V, targets, density, M, draw, law, form, outputs = arguments
        seed_address, seed, row_offset = draw
        weight = product[1][0], product[1][1] * size, product[0][2] * size
        temperature, log_space, model_is_target, ignore_index = law
        is_mask_only, is_lazy = form
        groups, reading = outputs
        scratch, seed = scratch_memory(), seed_of(seed_address, seed)
        whole, temperatures = first_lanes(LANES), splat(temperature[3])
        shared_density = natural_logs(splat(density[3]), log_space)
        shared_M = natural_logs(splat(M[3]), log_space)
        outside = 0
        begin = next_share(counter, -grab, grab)
        while begin < units:
            for group in range(begin, min(begin + grab, units)):
                known, start = groups + group * GROUP, group * LANES
                inside, rows = first_lanes(N - start), min(LANES, N - start)
                ignored, read = 0, 0
                prefetch_weights(targets, start, rows, V, weight)
                for lane in range(LANES):
                    keep_state(known, lane, UNREAD)
                for lane in range(rows):
                    target = target_at(targets, start + lane)
                    write_i64(known + TARGET, lane, target)
                    if target == ignore_index:
                        ignored |= 1 << lane
                    elif target < 0 or target >= V:
                        outside += 1
                    else:
                        read |= 1 << lane
                        z = target_logit(start + lane, target, product, scratch)
                        write_f64(known + LOGIT, lane, z)

                readable = read
                if temperature[1] != NONE:
                    temperatures = row_temperatures(temperature, start, inside)
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

                _store_f64(known + SCALE, whole, scales_of(temperatures))
                _store_f64(known + TEMPERATURE, whole, temperatures)
                _store_f64(known + HEADROOM, whole, headrooms)
                _store_f64(known + LOG_DENSITY, whole, log_density)
                _store_f64(known + LOG_M, whole, log_M)
                _store_f64(known + LOG_U, whole, log_u)
                write_i64(known + BITS, IGNORED, ignored)
                write_i64(known + BITS, READ, read)
                write_i64(known + BITS, ACCEPTED, accepted)
                for lane in range(rows):
                    write_i8(reading, start + lane, readable >> lane & 1)
            begin = next_share(counter, begin, grab)
        restore(mode)
        return outside

    return open_rows


def settle_rows_of(element):
    """Return the kernel that decides rows by their totals; it takes what ``settle_rows`` takes."""
    code = element.code

    @cached
    @njit(nogil=True)
    @named(f"linear_settle_{element.wide}")
    def settle(share, arguments):
        mode = keep_subnormals(0)
        counter, grab, units, unit_rows, N = share
        groups, model_is_target, is_mask_only, outputs = arguments
        begin = next_share(counter, -grab, grab)
        while begin < units:
            for start in range(begin * unit_rows, min(N, (begin + grab) * unit_rows), LANES):
                known = groups + start // LANES * GROUP
                for lane in range(LANES):
                    if not read_f64(known + REFERENCE, lane) > -np.inf:
                        keep_state(known, lane, (np.nan, np.nan, np.inf))
                bits = read_i64(known + BITS, IGNORED), read_i64(known + BITS, READ)
                logs = (
                    _load_f64(known + LOG_DENSITY), _load_f64(known + LOG_M),
                    _load_f64(known + LOG_U),
                )  # fmt: skip
                settle_rows(
                    known, start, first_lanes(N - start), bits, logs,
                    read_i64(known + BITS, ACCEPTED),
                    (_load_f64(known + TEMPERATURE), model_is_target), code, is_mask_only,
                    unit_rows, outputs,
                )  # fmt: skip
            begin = next_share(counter, begin, grab)
        restore(mode)
        return 0

    return settle


open_kernels, settle_kernels = Kernels(open_rows_of), Kernels(settle_rows_of)
target_logit_kernels = Kernels(target_logits_of)
