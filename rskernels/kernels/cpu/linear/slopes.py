"""The derivatives of the targets' log q with respect to a block of products, in Numba."""

import numpy as np
from numba import njit

from rskernels.kernels.cpu.cache import cached, inner
from rskernels.kernels.cpu.dtypes import Kernels
from rskernels.kernels.cpu.simd.functions import exp2
from rskernels.kernels.cpu.simd.memory import part_loader, read_f64, read_i64, storer
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.tanh import tanh
from rskernels.kernels.cpu.simd.vectors import LANES, first_lanes, lane_is, named, select, splat
from rskernels.kernels.cpu.threads import next_share

# What the kernel knows of a row, float64, side by side.
REFERENCE, TOTAL, SCALE, SLOPE, LOGIT, KNOWN = range(6)


def _slope_row_of(element):
    load, store, scalar, size = (
        part_loader(element.name), storer(element.name), element.scalar, element.size,
    )  # fmt: skip
    zero, low, one = scalar(0.0), scalar(-np.inf), scalar(1.0)

    @inner
    @named(f"linear_slope_row_{element.name}")
    def slope_row(row, width, softmax, slope, own, affine):
        """Turn products into slopes where they lie.

        ``own`` is (column, slope) of the target, which may be none of the block.
        """
        reference, total, scale = softmax
        factor, softcap, bias = affine
        base, octave = splat(scalar(reference)), splat(scalar(scale))
        target, height = own
        weight, height = splat(scalar(-slope / total)), splat(scalar(height))
        by, cap = splat(scalar(factor)), splat(scalar(softcap))
        inverse = splat(one) / cap
        for i in range(0, width, LANES):
            inside = first_lanes(width - i)
            z = load(row + i * size, inside) * by
            if bias != 0:
                z = z + load(bias + i * size, inside)
            steepness = splat(one)
            if softcap != 0.0:
                bent = tanh(z * inverse)
                z, steepness = bent * cap, splat(one) - bent * bent
            value = exp2((z - base) * octave) * weight
            value = select(z <= splat(low), splat(zero), value)
            value = select(lane_is(target - i), height, value)
            store(row + i * size, inside, value * steepness)

    return slope_row


def slope_rows_of(element):
    """Return the kernel that turns a block of products into slope (1[v = target] - q_v) f'(v).

    f' is the derivative of the softcap; that of the scale is left to who multiplies by the block.
    ``block`` is (address, stride, start, width) of the products, ``rows`` the addresses of what is
    known of each row and of its target, ``affine`` (scale, softcap, address of the bias).
    """
    slope_row, size = _slope_row_of(element), element.size

    @cached
    @njit(nogil=True)
    @named(f"linear_slopes_{element.name}")
    def slopes(share, arguments):
        mode = keep_subnormals(0)
        counter, grab, units, unit_rows, N = share
        block, rows, affine = arguments
        address, stride, start, width = block
        known, targets = rows
        scale, softcap, bias = affine
        if bias != 0:
            bias += start * size
        begin = next_share(counter, -grab, grab)
        while begin < units:
            for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
                of_row = known + n * (KNOWN * 8)
                reference, total = read_f64(of_row, REFERENCE), read_f64(of_row, TOTAL)
                softmax = reference, total, read_f64(of_row, SCALE)
                slope, target = read_f64(of_row, SLOPE), read_i64(targets, n) - start
                # By the logit that the total holds: of a confident row 1 - q is all rounding else.
                octaves = (read_f64(of_row, LOGIT) - reference) * softmax[2]
                own = target, slope * (1.0 - 2.0**octaves / total)
                row = address + n * stride * size
                slope_row(row, width, softmax, slope, own, (scale, softcap, bias))
            begin = next_share(counter, begin, grab)
        restore(mode)
        return 0

    return slopes


slope_kernels = Kernels(slope_rows_of)
