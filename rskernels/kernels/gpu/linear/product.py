"""A tile of logits in Triton: rows of hidden states times columns of the vocabulary.

The loop over D takes DEPTH elements at a time in one order, so that a logit's bits follow from its
row, its column and the tile's sizes; a tensor core computes each element of a tile alike, wherever
it stands. Accumulated in WIDE: float64 for float64, else float32. Rows and columns beyond the last
repeat it: they are left out where a tile is reduced.
"""

import triton
import triton.language as tl

from rskernels.law import numbers

LOG2_E = tl.constexpr(numbers.LOG2_E)


@triton.jit
def dot_rows(
    left_ptr, left_step, left_stride, right_ptr, right_step, right_stride, D,
    rows,  # [ROWS]
    columns,  # [COLUMNS]
    sums,  # [ROWS, COLUMNS]
    DEPTH: tl.constexpr, IS_EVEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the inner products of rows of two matrices over D, DEPTH at a time."""
    depth = tl.arange(0, DEPTH)
    left = left_ptr + rows.to(tl.int64)[:, None] * left_step + depth[None, :] * left_stride
    right = right_ptr + columns.to(tl.int64)[None, :] * right_step + depth[:, None] * right_stride
    for start in range(0, D, DEPTH):
        if IS_EVEN:
            left_tile, right_tile = tl.load(left), tl.load(right)
        else:
            is_inside = depth < D - start
            left_tile = tl.load(left, mask=is_inside[None, :], other=0.0)
            right_tile = tl.load(right, mask=is_inside[:, None], other=0.0)
        sums = tl.dot(left_tile, right_tile, sums, input_precision=PRECISION, out_dtype=sums.dtype)
        left += DEPTH * left_stride
        right += DEPTH * right_stride
    return sums


@triton.jit
def add_low_rank(
    sums,  # [ROWS, COLUMNS]
    low_ptr, B_ptr, B_step, B_stride, R, N,
    rows,  # [ROWS]
    columns,  # [COLUMNS]
    RANK: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the product of rows' low ranks, which are PARTS summands in B's dtype, and B."""
    for start in tl.range(0, R, RANK, num_stages=1):
        ranks = start + tl.arange(0, RANK)
        is_inside = ranks < R
        at = B_ptr + columns.to(tl.int64)[None, :] * B_step + ranks[:, None] * B_stride
        B = tl.load(at, mask=is_inside[:, None], other=0.0)
        at = low_ptr + rows.to(tl.int64)[:, None] * R + ranks[None, :]
        for _ in tl.static_range(PARTS):
            low = tl.load(at, mask=is_inside[None, :], other=0.0)
            sums = tl.dot(low, B, sums, input_precision=PRECISION, out_dtype=sums.dtype)
            at += tl.full([], N, tl.int64) * R
    return sums


@triton.jit
def store_parts(at, step, value, mask, dtype: tl.constexpr, PARTS: tl.constexpr):
    """Write a value as PARTS summands in a dtype, each the rounding of what the others leave."""
    for part in tl.static_range(PARTS):
        rounded = value.to(dtype)
        tl.store(at + part * step, rounded, mask=mask)
        value -= rounded.to(value.dtype)


@triton.jit
def tanh(x):
    """Return tanh(x): a polynomial where 1 - 2/(e^2x + 1) would lose digits of float32.

    The polynomial is that of Moshier's Cephes, within two roundings of float32.
    """
    size = tl.abs(x)
    far = 1.0 - 2.0 / (tl.exp2(size * (2.0 * LOG2_E)) + 1.0)
    far = tl.where(x < 0.0, -far, far)
    if x.dtype == tl.float64:
        return far
    else:
        square = x * x
        near = -5.70498872745e-3 * square + 2.06390887954e-2
        near = near * square - 5.37397155531e-2
        near = near * square + 1.33314422036e-1
        near = near * square - 3.33332819422e-1
        return tl.where(size < 0.625, near * square * x + x, far)


@triton.jit
def logits_tile(
    hidden_ptr, hidden_step, hidden_stride, weight_ptr, weight_step, weight_stride,
    bias_ptr, bias_stride, low_ptr, B_ptr, B_step, B_stride, scale, softcap, D, R, N,
    rows,  # [ROWS]
    columns,  # [COLUMNS]
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, RANK: tl.constexpr,
    PARTS: tl.constexpr,
    WIDE: tl.constexpr, PRECISION: tl.constexpr, IS_EVEN: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, HAS_LORA: tl.constexpr,
):  # fmt: skip
    """Return the logits of rows and columns, WIDE [ROWS, COLUMNS]."""
    z = tl.zeros([ROWS, COLUMNS], WIDE)
    z = dot_rows(
        hidden_ptr, hidden_step, hidden_stride, weight_ptr, weight_step, weight_stride, D,
        rows, columns, z, DEPTH, IS_EVEN, PRECISION,
    )  # fmt: skip
    if HAS_LORA:
        z = add_low_rank(
            z, low_ptr, B_ptr, B_step, B_stride, R, N, rows, columns, RANK, PARTS, PRECISION
        )
    z *= tl.full([], scale, WIDE)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + columns.to(tl.int64) * bias_stride)
        z += bias.to(WIDE)[None, :]
    if HAS_SOFTCAP:
        cap = tl.full([], softcap, WIDE)
        z = tanh(z / cap) * cap
    return z


@triton.jit
def grouped(item, tiles, blocks, GROUP: tl.constexpr):
    """Return (row tile, place of a block) of an item, so that neighbours share both.

    Programs that run together then read GROUP tiles of rows and few blocks of the weight, which
    stay in the second-level cache.
    """
    group = item // (GROUP * blocks)
    first = group * GROUP
    size = tl.minimum(tiles - first, GROUP)
    within = item - group * GROUP * blocks
    return first + within % size, within // size


@triton.jit
def low_rank_kernel(
    hidden_ptr, hidden_step, hidden_stride, A_ptr, A_step, A_stride, lora_scale: tl.float64,
    D, R, N,
    low_ptr,  # [PARTS, N, R]
    ROWS: tl.constexpr, RANK: tl.constexpr, DEPTH: tl.constexpr, PARTS: tl.constexpr,
    WIDE: tl.constexpr, PRECISION: tl.constexpr, IS_EVEN: tl.constexpr,
):  # fmt: skip
    """Write s (h A^T) of a tile of rows and of ranks, in PARTS summands of the inputs' dtype.

    So tensor cores multiply all that float32 holds of it.
    """
    places = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    ranks = tl.program_id(1) * RANK + tl.arange(0, RANK)
    low = dot_rows(
        hidden_ptr, hidden_step, hidden_stride, A_ptr, A_step, A_stride, D,
        tl.minimum(places, N - 1), tl.minimum(ranks, R - 1), tl.zeros([ROWS, RANK], WIDE),
        DEPTH, IS_EVEN, PRECISION,
    )  # fmt: skip
    is_inside = (places < N)[:, None] & (ranks < R)[None, :]
    at = low_ptr + places.to(tl.int64)[:, None] * R + ranks[None, :]
    low *= tl.full([], lora_scale, WIDE)
    step = tl.full([], N, tl.int64) * R
    store_parts(at, step, low, is_inside, low_ptr.dtype.element_ty, PARTS)
