"""A block of the product added to the rows' totals, in Numba, while it lies in the cache."""

from numba import int64, njit

from rskernels.kernels.cpu.cache import cached, inner
from rskernels.kernels.cpu.dtypes import Kernels
from rskernels.kernels.cpu.linear.rows import GROUP, TARGET
from rskernels.kernels.cpu.parts import count_parts, scratch_memory
from rskernels.kernels.cpu.simd.memory import (
    part_loader,
    read_f64,
    read_i64,
    storer,
    write_f32,
    write_f64,
    write_i8,
)
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.tanh import tanh
from rskernels.kernels.cpu.simd.vectors import LANES, first_lanes, named, splat
from rskernels.kernels.cpu.softmax import parts_total_of
from rskernels.kernels.cpu.threads import next_share
from rskernels.kernels.cpu.turns import (
    BOUND,
    HEADROOM,
    LOGIT,
    REFERENCE,
    SCALE,
    TOTAL,
    keep_state,
)


def finish_of(element):
    """Return ``finish(row, width, affine)`` of an element."""
    load, store, scalar = part_loader(element.name), storer(element.name), element.scalar
    size, one = element.size, scalar(1.0)

    @inner
    @named(f"linear_finish_{element.name}")
    def finish(row, width, affine):
        """Turn products into logits where they lie: scale, bias and softcap."""
        scale, softcap, bias = affine
        factor, cap = splat(scalar(scale)), splat(scalar(softcap))
        inverse = splat(one) / cap
        for i in range(0, width, LANES):
            inside = first_lanes(width - i)
            z = load(row + i * size, inside) * factor
            if bias != 0:
                z = z + load(bias + i * size, inside)
            if softcap != 0.0:
                z = tanh(z * inverse) * cap
            store(row + i * size, inside, z)

    return finish


def fold_rows_of(element):
    """Return the kernel that adds blocks of columns to the totals of a tile's rows.

    ``made`` is (address, stride, first column) of the logits, ``blocks`` (address, count) of pairs
    (start, width), ``affine`` (scale, softcap, bias), ``rows`` the address of the rows' numbers or,
    where it is 0, the first of them. Of each row of the tile it writes whether it is over: no other
    column can change its decision.
    """
    parts_total, finish = parts_total_of(element), finish_of(element)
    size, write = element.size, write_f64 if element.size == 8 else write_f32

    @cached
    @njit(nogil=True)
    @named(f"linear_fold_{element.name}")
    def fold(share, arguments):
        mode = keep_subnormals(0)
        counter, grab, units, unit_rows, N = share
        groups, made, blocks, affine, rows, is_over = arguments
        address, stride, first = made
        scale, softcap, bias = affine
        is_plain = scale == 1.0 and softcap == 0.0 and bias == 0
        scratch = scratch_memory()
        begin = next_share(counter, -grab, grab)
        while begin < units:
            for at in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
                n = read_i64(rows[0], at) if rows[0] != 0 else rows[1] + at
                known, lane = groups + n // LANES * GROUP, n % LANES
                z, over = read_f64(known + LOGIT, lane), 0
                for block in range(blocks[1]):
                    start = read_i64(blocks[0], 2 * block)
                    width = read_i64(blocks[0], 2 * block + 1)
                    row = address + (at * stride + start - first) * size
                    if not is_plain:
                        own_bias = bias + start * size if bias != 0 else bias
                        finish(row, width, (scale, softcap, own_bias))
                    target = read_i64(known + TARGET, lane) - start
                    if target >= 0 and target < width:
                        # As it is known already, so that a row's sum has the same number in it.
                        write(row, target, z)
                    parts = count_parts(width, 0)
                    state = parts_total(
                        row, size, width, read_f64(known + SCALE, lane), scratch, 0,
                        (z, read_f64(known + HEADROOM, lane)), (int64(0), parts, int64(0)),
                        (
                            read_f64(known + REFERENCE, lane),
                            read_f64(known + TOTAL, lane),
                            read_f64(known + BOUND, lane),
                        ),
                    )  # fmt: skip
                    keep_state(known, lane, state[:3])
                    if state[3] < parts:
                        # A part that is not read was over the bound, or the row has no softmax.
                        over = 1
                        break
                write_i8(is_over, at, over)
            begin = next_share(counter, begin, grab)
        restore(mode)
        return 0

    return fold


fold_kernels = Kernels(fold_rows_of)
