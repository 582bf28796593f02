"""Products whose sums are added to what lies in memory: what a block of slopes gives gradients.

A gradient is a sum over k of slopes times features: ``out[c] += alpha sum_k slope[c, k] row[k]``.
The features lie in the lanes, packed side by side, and a slope is read as it lies in memory.
"""

from __future__ import annotations

import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from rskernels.kernels.cpu.cache import cached
from rskernels.kernels.cpu.dtypes import Kernels
from rskernels.kernels.cpu.launch import CODE
from rskernels.kernels.cpu.linear.micro import FACTORS, Factor, emit_product, tile_of
from rskernels.kernels.cpu.linear.store import add_lanes
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.vectors import DOUBLE, I64, named
from rskernels.kernels.cpu.threads import next_share, run_units

CHUNK = 64  # columns of a unit


def pack_features(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return rows [K, D] as [groups, K, lanes of a group], with zeros after the last feature."""
    (K, D), group = rows.shape, _factor_of(dtype).group
    packed = torch.empty((-(-D // group), K, group), dtype=dtype, device="cpu")
    whole, rest = divmod(D, group)
    packed[:whole] = rows[:, : D - rest].unflatten(1, (whole, group)).transpose(0, 1)
    if rest:
        packed[whole, :, :rest] = rows[:, D - rest :]
        packed[whole, :, rest:] = 0.0
    return packed


def _factor_of(dtype: torch.dtype) -> Factor:
    return FACTORS["f64" if dtype == torch.float64 else "f32"]


def _tile_of(factor, vectors):
    """Return ``add(packed, columns, out, how)`` of one tile; see ``add_products``."""
    count = tile_of()[0]

    @intrinsic
    def add(typingctx, packed, columns, out, how):
        def codegen(context, builder, signature, args):
            rows, slopes, target, numbers = (
                [builder.extract_value(pair, at) for at in range(signature.args[n].count)]
                for n, pair in enumerate(args)
            )
            if factor.lane != DOUBLE:
                numbers = [builder.fptrunc(number, factor.lane) for number in numbers]
            vector = ir.VectorType(factor.lane, factor.lanes)
            address, stride, apart = slopes
            word = factor.lane.as_pointer()
            places = [
                builder.inttoptr(builder.add(address, builder.mul(stride, I64(c))), word)
                for c in range(count)
            ]
            totals = emit_product(
                builder, factor, [ir.Constant(vector, [0.0] * factor.lanes)] * (count * vectors),
                builder.inttoptr(rows[0], vector.as_pointer()), [*places, None], rows[1],
                (factor.group // factor.lanes, vectors, apart),
            )  # fmt: skip
            add_lanes(builder, factor, totals, count, vectors, target, numbers)
            return context.get_dummy_value()

        number = types.int64
        return types.void(
            types.UniTuple(number, 2), types.UniTuple(number, 3), types.UniTuple(number, 4),
            types.UniTuple(types.float64, 2),
        ), codegen  # fmt: skip

    return add


def _accumulate_of(element):
    factor, size = FACTORS[element.name], element.size
    columns, vectors = tile_of()
    lanes, group = factor.lanes, factor.group
    many, few = _tile_of(factor, vectors), _tile_of(factor, 1)

    @cached
    @njit(nogil=True)
    @named(f"linear_accumulate_{element.name}")
    def accumulate(share, arguments):
        """Add the products of units, each a chunk of columns by a group of features.

        ``packed`` is (address, words), ``slopes`` (address, bytes to the next column, words to the
        next word of a column), ``out`` (address, stride in bytes, features), ``how`` (alpha, beta).
        """
        mode = keep_subnormals(0)
        counter, grab, units, _, N = share
        packed, slopes, out, how = arguments
        address, words = packed
        groups = -(-out[2] // group)
        begin = next_share(counter, -grab, grab)
        while begin < units:
            for unit in range(begin, min(begin + grab, units)):
                chunk, at = unit // groups, unit % groups
                rows = address + at * words * group * size, words
                left = out[2] - at * group
                start = chunk * CHUNK
                for c in range(start, min(start + CHUNK, N), columns):
                    column = slopes[0] + c * slopes[1], slopes[1], slopes[2]
                    place = out[0] + c * out[1] + at * group * size, out[1], left, N - c
                    if left > lanes:
                        many(rows, column, place, how)
                    else:
                        few(rows, column, place, how)
            begin = next_share(counter, begin, grab)
        restore(mode)
        return 0

    return accumulate


accumulate_kernels = Kernels(_accumulate_of)


def add_products(packed: Tensor, slopes: Tensor, out: Tensor, alpha: float, beta: float) -> None:
    """Set ``out`` [C, D] to ``beta * out + alpha * slopes @ rows``; a beta of 0 reads nothing.

    ``packed`` is of rows [K, D]. ``slopes`` is [C, K] in any layout of which the first dimension
    may be read up to the next multiple of the columns that are multiplied together.
    """
    C, K = slopes.shape
    size, D = out.element_size(), out.shape[1]
    chunks, groups = -(-C // CHUNK), len(packed)
    run_units(
        accumulate_kernels[CODE[out.dtype]],
        (chunks * groups, 1, C),
        C * K * D // 16,
        (packed.data_ptr(), K),
        (slopes.data_ptr(), slopes.stride(0) * size, slopes.stride(1)),
        (out.data_ptr(), out.stride(0) * size, D),
        (float(alpha), float(beta)),
    )
