"""The Numba loops of XXH64."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from rskernels.kernels.cpu.cache import cached, inner
from rskernels.kernels.cpu.simd.memory import read_i32, read_i64, write_i64
from rskernels.kernels.reference import hashes

P1, P2, P3, P4, P5 = (np.uint64(getattr(hashes, f"P{n}")) for n in range(1, 6))
START1, START2, START3, START4 = (np.uint64(start) for start in hashes.STARTS)
EMPTY = np.uint64(hashes.EMPTY)


def word(bits):
    """Return an intrinsic that reads bits at any address, as uint64."""

    @intrinsic
    def read(typingctx, address):
        def codegen(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], ir.IntType(bits).as_pointer())
            value = builder.load(pointer, align=1)
            return value if bits == 64 else builder.zext(value, ir.IntType(64))

        return types.uint64(types.int64), codegen

    return read


word8, word32, word64 = word(8), word(32), word(64)


@inner
def rotated(value, turn):
    """Return a number whose bits are turned to the left."""
    return (value << np.uint64(turn)) | (value >> np.uint64(64 - turn))


@inner
def mixed(part, value):
    """Return a part into which eight bytes are mixed."""
    return rotated(part + value * P2, 31) * P1


@inner
def with_eight(total, value):
    """Return a total into which eight more bytes are mixed."""
    return rotated(total ^ mixed(np.uint64(0), value), 27) * P1 + P4


@inner
def finished(total):
    """Return the hash of a total."""
    total = (total ^ (total >> np.uint64(33))) * P2
    total = (total ^ (total >> np.uint64(29))) * P3
    return total ^ (total >> np.uint64(32))


@inner
def of_bytes(address, size):
    """Return the hash of bytes at an address."""
    at, end = address, address + size
    total = P5
    if size >= 32:
        a, b, c, d = START1, START2, START3, START4
        while at + 32 <= end:
            a, b = mixed(a, word64(at)), mixed(b, word64(at + 8))
            c, d = mixed(c, word64(at + 16)), mixed(d, word64(at + 24))
            at += 32
        total = rotated(a, 1) + rotated(b, 7) + rotated(c, 12) + rotated(d, 18)
        for part in (a, b, c, d):
            total = (total ^ mixed(np.uint64(0), part)) * P1 + P4
    total += np.uint64(size)
    while at + 8 <= end:
        total = with_eight(total, word64(at))
        at += 8
    if at + 4 <= end:
        total = rotated(total ^ (word32(at) * P1), 23) * P2 + P3
        at += 4
    while at < end:
        total = rotated(total ^ (word8(at) * P5), 11) * P1
        at += 1
    return finished(total)


@inner
def of_pair(first, second):
    """Return the hash of two numbers."""
    return finished(with_eight(with_eight(P5 + np.uint64(16), first), second))


@cached
@njit(nogil=True)
def hash_strings(data, offsets, is_large, hashes, N):
    """Write the hash of each string between offsets that are int32 or, of large ones, int64."""
    for n in range(N):
        if is_large:
            start, end = read_i64(offsets, n), read_i64(offsets, n + 1)
        else:
            start, end = read_i32(offsets, n), read_i32(offsets, n + 1)
        write_i64(hashes, n, np.int64(of_bytes(data + start, end - start)))
    return 0


@cached
@njit(nogil=True)
def hash_pairs(first, second, hashes, N):
    """Write the hash of each pair."""
    for n in range(N):
        pair = of_pair(np.uint64(read_i64(first, n)), np.uint64(read_i64(second, n)))
        write_i64(hashes, n, np.int64(pair))
    return 0


@cached
@njit(nogil=True)
def hash_lists(numbers, starts, ends, hashes, N):
    """Write the hash of each list, the numbers from its start to its end."""
    for n in range(N):
        total = EMPTY
        for at in range(read_i64(starts, n), read_i64(ends, n)):
            total = of_pair(total, np.uint64(read_i64(numbers, at)))
        write_i64(hashes, n, np.int64(total))
    return 0
