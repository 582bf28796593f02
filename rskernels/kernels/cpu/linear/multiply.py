"""Rows times columns in Numba: a block of logits, written where ``fold`` finds it."""

from numba import njit

from rskernels.kernels.cpu.cache import cached
from rskernels.kernels.cpu.dtypes import Kernels
from rskernels.kernels.cpu.linear.few import few_rows_of
from rskernels.kernels.cpu.linear.micro import FACTORS, FEW, product_of, tile_of
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.vectors import named
from rskernels.kernels.cpu.threads import next_share

CHUNK = 128  # columns of a unit: their weights stay in the cache for all groups of rows


def multiply_of(element):
    """Return the kernel that multiplies groups of packed rows by columns.

    A unit is a chunk of columns by a group of rows, as many as ``share`` says of a unit. ``rows``
    and ``low_rank`` are (address, words) of packed rows, ``weight`` and ``B`` (address, stride) of
    the first column, ``out`` (address, stride, columns) of the logits. Strides are in bytes.
    """
    name, wide_size = element.name, element.wide_size
    factor = FACTORS[name]
    columns, vectors = tile_of()
    lanes, size = factor.lanes, factor.size
    many, one = product_of(factor, vectors), product_of(factor, 1)
    few_rows = few_rows_of(factor)

    @cached
    @njit(nogil=True)
    @named(f"linear_multiply_{name}")
    def multiply(share, arguments):
        mode = keep_subnormals(0)
        counter, grab, units, group, N = share
        rows, weight, low_rank, B, out = arguments
        groups = -(-N // group)
        begin = next_share(counter, -grab, grab)
        while begin < units:
            for unit in range(begin, min(begin + grab, units)):
                chunk, at = unit // groups, unit % groups
                left = N - at * group
                hidden = rows[0] + at * rows[1] * group * size, rows[1]
                low = low_rank[0] + at * low_rank[1] * group * wide_size, low_rank[1]
                start = chunk * CHUNK
                end = min(start + CHUNK, out[2])
                for c in range(start, end, lanes if group == FEW else columns):
                    place = out[0] + at * group * out[1] + c * wide_size, out[1]
                    column, more = weight[0] + c * weight[1], B[0] + c * B[1]
                    if group == FEW:
                        here = place[0], place[1], end - c
                        few_rows(hidden, (column, weight[1]), low, (more, B[1]), here)
                    elif left > lanes:
                        many(hidden, (column, weight[1]), low, (more, B[1]), place)
                    else:
                        one(hidden, (column, weight[1]), low, (more, B[1]), place)
            begin = next_share(counter, begin, grab)
        restore(mode)
        return 0

    return multiply


multiply_kernels = Kernels(multiply_of)
