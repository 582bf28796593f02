"""The parts of a row, which are summed one after the other, and what of them is fetched ahead.

A fixed partition, so that a decision depends on nothing but the row: its head, parts that end
GROWTH octaves further each up to a block, and then a block at a time. In an order of the caller's,
ORDER_BLOCK at a time.
"""

from numba import njit

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.simd.memory import (
    prefetch,
    read_i16,
    read_i32,
    read_i64,
    stack_memory,
    write_i16,
    write_i32,
    write_i64,
)
from rskernels.kernels.cpu.simd.vectors import named
from rskernels.kernels.layout import ORDER_BLOCK

HEAD = 512
GROWTH = 2
BLOCK = 8192
FIRST_PARTS = 3  # parts that make up the first block
STEP = 64  # four vectors at a time hide the latency of the additions
LINE = 64  # bytes of a cache line
PAGE = 4096  # bytes; asking for pages side by side reads faster than one after the other
WINDOW = 8 * PAGE  # bytes that are asked for together
AHEAD = 4096  # bytes of a part that are asked for before it is its turn, and from then on

# For the elements of a block that do not lie side by side, or the lanes of sixteen rows.
scratch_memory = stack_memory(BLOCK * 8)


@inner
def count_parts(V, order):
    """Return how many parts of a row are summed one after the other."""
    if order != 0:
        return -(-V // ORDER_BLOCK)
    if V > BLOCK:
        return FIRST_PARTS - 1 - (-V // BLOCK)
    parts, end = 1, HEAD
    while end < V:
        parts, end = parts + 1, end << GROWTH
    return parts


@inner
def part_of(part, V, order):
    """Return where a part begins and how long it is; ``order`` is an address of int64, or 0."""
    if order != 0:
        start = read_i64(order, part) * ORDER_BLOCK
        return start, min(ORDER_BLOCK, V - start)
    if part < FIRST_PARTS:
        start, end = 0 if part == 0 else HEAD << GROWTH * (part - 1), HEAD << GROWTH * part
    else:
        start = (part - FIRST_PARTS + 1) * BLOCK
        end = start + BLOCK
    return start, min(end, V) - start


@njit(inline="always")
def gather_block(source, stride, length, size, scratch):
    """Copy elements that do not lie side by side into the scratch memory."""
    for i in range(length):
        if size == 2:
            write_i16(scratch, i, read_i16(source + i * stride, 0))
        elif size == 4:
            write_i32(scratch, i, read_i32(source + i * stride, 0))
        else:
            write_i64(scratch, i, read_i64(source + i * stride, 0))


@inner
def prefetch_bytes(address, length):
    """Prefetch bytes."""
    for line in range(address, address + length, LINE):
        prefetch(line)


@inner
def prefetch_part(row, part, size, stride, V, order):
    """Prefetch the first bytes of a part of a row; the stride is in bytes."""
    start, length = part_of(part, V, order)
    prefetch_bytes(row + start * stride, min(length * size, AHEAD))


def asker(size):
    """Return ``ask_ahead(address)``: of the next window, prefetch what a step reads of this one.

    The bytes of a step become lines of ``size`` pages of the next window, eight pages in all.
    """
    groups = 8 // size

    @inner
    @named(f"ask_ahead_{size}")
    def ask_ahead(address):
        step = (address % WINDOW) // (STEP * size)
        window = address - address % WINDOW + WINDOW
        line = window + (step % groups) * size * PAGE + (step // groups) * LINE
        for page in range(size):
            prefetch(line + page * PAGE)

    return ask_ahead
