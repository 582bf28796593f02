"""One pass over a row of logits in Numba: its reference and the total of its exponentials.

Rows are addresses with a byte stride and a dtype code: one compiled function serves every dtype
and layout, and bf16, which NumPy does not know, needs no detour. The entry points of the other
``cpu_`` modules take strides in elements, as torch gives them.
"""

import numpy as np
from numba import carray, float32, float64, njit, types
from numba.extending import intrinsic

from rskernels.kernels.lanemath import exp2
from rskernels.kernels.simd import (
    count,
    first,
    first_lanes,
    isnan,
    loader,
    maximum,
    named,
    part_loader,
    prefetch,
    reduce_add,
    reduce_max,
    splat,
)

NONE, F32, F64, BF16, F16, I64, I32 = range(7)

BLOCK = 4096  # a fixed partition of the row, so that a decision depends on nothing but the row
LIMIT = 2.0 * BLOCK  # twice what a block sums to that lies at its reference throughout
STEP = 64  # four vectors at a time hide the latency of the additions
PAGE = 4096  # bytes; asking for the next block's pages side by side reads faster than in turn


def _pointer(ctype):
    @intrinsic
    def pointer(typingctx, address):
        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(ctype)(types.int64), codegen

    return pointer


as_f32, as_f64, as_i64, as_i32, as_u16, as_u8 = (
    _pointer(ctype)
    for ctype in (types.float32, types.float64, types.int64, types.int32, types.uint16, types.uint8)
)


@njit
def size_of(code):
    """Return the bytes of an element."""
    if code in (F64, I64):
        return 8
    return 2 if code in (BF16, F16) else 4


@njit
def address_of(array):
    """Return where an array's memory begins."""
    return np.int64(array.ctypes.data)


@njit
def load_float(address, code):
    """Return the float32 or float64 at an address as float64."""
    if code == F64:
        return carray(as_f64(address), 1)[0]
    return float64(carray(as_f32(address), 1)[0])


@njit
def load_integer(address, code):
    """Return the int64 or int32 at an address."""
    if code == I64:
        return carray(as_i64(address), 1)[0]
    return np.int64(carray(as_i32(address), 1)[0])


@njit
def store_float(address, code, value):
    """Write a float64, rounded to float32 unless the code is F64."""
    if code == F64:
        carray(as_f64(address), 1)[0] = value
    else:
        carray(as_f32(address), 1)[0] = float32(value)


@njit
def gather_block(source, stride, length, size, scratch):
    """Copy elements that do not lie side by side into the scratch memory."""
    if size == 2:
        halves = carray(as_u16(scratch), BLOCK)
        for i in range(length):
            halves[i] = carray(as_u16(source + i * stride), 1)[0]
    elif size == 4:
        words = carray(as_i32(scratch), BLOCK)
        for i in range(length):
            words[i] = carray(as_i32(source + i * stride), 1)[0]
    else:
        longs = carray(as_i64(scratch), BLOCK)
        for i in range(length):
            longs[i] = carray(as_i64(source + i * stride), 1)[0]


def _total_of(dtype, size, scalar):
    """Return ``row_total`` for one dtype of logits."""
    load, load_part = loader(dtype), part_loader(dtype)
    low, zero = scalar(-np.inf), scalar(0.0)

    @njit
    @named(f"block_sum_{dtype}")
    def block_sum(block, length, reference, scale, following):
        base, factor = splat(scalar(reference)), splat(scalar(scale))
        s0, s1, s2, s3 = splat(zero), splat(zero), splat(zero), splat(zero)
        whole = length - length % STEP
        for i in range(0, whole, STEP):
            at = block + i * size
            # A block has as many pages as an element has bytes, and a step a line of each.
            for page in range(size):
                prefetch(following + page * PAGE + i)
            s0 = s0 + exp2((load(at) - base) * factor)
            s1 = s1 + exp2((load(at + 16 * size) - base) * factor)
            s2 = s2 + exp2((load(at + 32 * size) - base) * factor)
            s3 = s3 + exp2((load(at + 48 * size) - base) * factor)
        for i in range(whole, length, 16):
            z = load_part(block + i * size, first_lanes(length - i))
            s0 = s0 + exp2((z - base) * factor)
        return float64(reduce_add((s0 + s1) + (s2 + s3)))

    @njit
    @named(f"block_top_{dtype}")
    def block_top(block, length):
        m0, m1, m2, m3 = splat(low), splat(low), splat(low), splat(low)
        nan = isnan(m0)
        whole = length - length % STEP
        for i in range(0, whole, STEP):
            at = block + i * size
            z0, z1 = load(at), load(at + 16 * size)
            z2, z3 = load(at + 32 * size), load(at + 48 * size)
            nan = nan | isnan(z0) | isnan(z1) | isnan(z2) | isnan(z3)
            m0, m1, m2, m3 = maximum(z0, m0), maximum(z1, m1), maximum(z2, m2), maximum(z3, m3)
        for i in range(whole, length, 16):
            z = load_part(block + i * size, first_lanes(length - i))
            nan = nan | isnan(z)
            m0 = maximum(z, m0)
        return float64(reduce_max(maximum(maximum(m0, m1), maximum(m2, m3)))), count(nan) > 0

    @njit
    @named(f"row_total_{dtype}")
    def row_total(row, stride, V, scale, scratch):
        """Return (reference, Σ 2**((z - reference) * scale)); NaN for a row without a softmax.

        The reference is the maximum of the first block. A later block is summed against it as
        well, unless its sum says that a logit lies so far above that float32 would round it more,
        or is NaN or +inf: then its own maximum becomes the reference and it is summed again.
        """
        reference, total = -np.inf, 0.0
        for start in range(0, V, BLOCK):
            length = min(BLOCK, V - start)
            block = row + start * stride
            if stride != size:
                gather_block(block, stride, length, size, scratch)
                block = scratch
            following = block + BLOCK * size
            part = LIMIT
            if reference > -np.inf:
                part = block_sum(block, length, reference, scale, following)
            if part >= LIMIT:
                top, nan = block_top(block, length)
                if nan or top == np.inf:
                    return np.nan, np.nan
                if top == -np.inf:
                    continue
                if total > 0.0:
                    total *= 2.0 ** ((reference - top) * scale)
                reference = top
                part = block_sum(block, length, reference, scale, following)
            total += part
        if not reference > -np.inf:
            return np.nan, np.nan
        return reference, total

    return row_total


_total_f32 = _total_of("f32", 4, float32)
_total_bf16 = _total_of("bf16", 2, float32)
_total_f16 = _total_of("f16", 2, float32)
_total_f64 = _total_of("f64", 8, float64)
_part_bf16, _part_f16 = part_loader("bf16"), part_loader("f16")


@njit
def row_total(row, code, stride, V, scale, scratch):
    """Return (reference, total) of a row of any dtype."""
    if code == F32:
        return _total_f32(row, stride, V, scale, scratch)
    if code == BF16:
        return _total_bf16(row, stride, V, scale, scratch)
    if code == F16:
        return _total_f16(row, stride, V, scale, scratch)
    return _total_f64(row, stride, V, scale, scratch)


@njit
def load_logit(address, code):
    """Return one logit as float64."""
    if code == F32:
        return float64(carray(as_f32(address), 1)[0])
    if code == BF16:
        return float64(first(_part_bf16(address, first_lanes(1))))
    if code == F16:
        return float64(first(_part_f16(address, first_lanes(1))))
    return carray(as_f64(address), 1)[0]
