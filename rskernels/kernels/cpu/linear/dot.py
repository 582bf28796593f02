"""A single logit: the product of a row of the hidden states with a row of the weight, in Numba.

It is summed in float64 in a fixed order, so that the target's logit is known before any block of
the product is, with the same bits in every batch.
"""

from functools import cache

from numba import njit

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.dtypes import ELEMENTS
from rskernels.kernels.cpu.parts import BLOCK, STEP, gather_block
from rskernels.kernels.cpu.simd.memory import loader, part_loader
from rskernels.kernels.cpu.simd.vectors import (
    first_lanes,
    fused,
    named,
    reduce_add,
    select,
    splat,
    widen,
)

SIZE = {element.name: element.size for element in ELEMENTS}


@cache
def _block_dot_of(a, b):
    load_a, load_b = loader(a), loader(b)
    part_a, part_b = part_loader(a), part_loader(b)
    size_a, size_b = SIZE[a], SIZE[b]

    @inner
    @named(f"block_dot_{a}_{b}")
    def block_dot(x, y, length):
        zero = splat(0.0)
        s0, s1, s2, s3 = zero, zero, zero, zero
        whole = length - length % STEP
        for i in range(0, whole, STEP):
            at, bt = x + i * size_a, y + i * size_b
            s0 = fused(widen(load_a(at)), widen(load_b(bt)), s0)
            s1 = fused(widen(load_a(at + 16 * size_a)), widen(load_b(bt + 16 * size_b)), s1)
            s2 = fused(widen(load_a(at + 32 * size_a)), widen(load_b(bt + 32 * size_b)), s2)
            s3 = fused(widen(load_a(at + 48 * size_a)), widen(load_b(bt + 48 * size_b)), s3)
        for i in range(whole, length, 16):
            inside = first_lanes(length - i)
            left, right = part_a(x + i * size_a, inside), part_b(y + i * size_b, inside)
            s0 = s0 + select(inside, widen(left) * widen(right), zero)
        return reduce_add((s0 + s1) + (s2 + s3))

    return block_dot


@cache
def dot_of(a, b):
    """Return ``dot(x, y, stride, length, scratch)`` of two dtypes by name, which gives a float64.

    ``x`` and ``y`` are addresses; the elements of ``y`` are ``stride`` bytes apart, those of ``x``
    side by side.
    """
    block_dot, size_a, size_b = _block_dot_of(a, b), SIZE[a], SIZE[b]

    @njit(inline="always")
    @named(f"dot_{a}_{b}")
    def dot(x, y, stride, length, scratch):
        total = 0.0
        for start in range(0, length, BLOCK):
            count = min(BLOCK, length - start)
            block = y + start * stride
            if stride != size_b:
                gather_block(block, stride, count, size_b, scratch)
                block = scratch
            total += block_dot(x + start * size_a, block, count)
        return total

    return dot
