"""When the rest of a row need not be read, in Triton: its total can only grow.

``is_possible`` and ``is_likely`` decide what no total can change; ``headroom_of`` says how far the
total may rise above the target's term before the decision is certain; ``enough_total`` reads until
it has.
"""

import triton
import triton.language as tl

from rskernels.kernels.gpu.law import log_ratio_of, rounded
from rskernels.kernels.gpu.softmax import chunk_total, combine
from rskernels.law import numbers

LOG2_E = tl.constexpr(numbers.LOG2_E)
MARGIN = tl.constexpr(numbers.MARGIN)
CHUNK_MARGIN = tl.constexpr(2.0**-22)  # what each chunk adds to it
FLOAT32_ROUNDING = tl.constexpr(numbers.FLOAT32_ROUNDING)
FLOAT64_ROUNDING = tl.constexpr(numbers.FLOAT64_ROUNDING)


@triton.jit
def is_possible(z, log_density, log_M):
    """Say whether a row may be accepted, by what is known before it is read."""
    infinity = float("inf")
    return (tl.abs(z) < infinity) & (tl.abs(log_density) < infinity) & (tl.abs(log_M) < infinity)


@triton.jit
def is_likely(log_density, log_M, log_u, WIDE: tl.constexpr, MODEL_IS_TARGET: tl.constexpr):
    """Say whether the row is accepted with log q = 0.

    There a target is most, and a proposal least, likely accepted.
    """
    log_w = rounded(log_ratio_of(log_density * 0.0, log_density, MODEL_IS_TARGET), WIDE)
    return log_w - rounded(log_M, WIDE) >= log_u


@triton.jit
def headroom_of(log_density, log_M, log_u, V, CHUNK: tl.constexpr, MODEL_IS_TARGET: tl.constexpr):
    """Return the log2 of total/exp(z/T) from which the target's decision is certain.

    Beyond it a model that is the target is rejected, and one that is the proposal accepted.
    """
    log_r = log_M + log_u
    room = -(log_r + log_density) if MODEL_IS_TARGET else log_r - log_density
    size = tl.abs(log_r) + tl.abs(log_M)
    margin = MARGIN + tl.cdiv(V, CHUNK) * CHUNK_MARGIN + FLOAT32_ROUNDING * size
    return (room + margin + FLOAT64_ROUNDING * tl.abs(log_density)) * LOG2_E


@triton.jit
def enough_total(
    row_ptr, aligned_ptr, order_ptr, stride, V, scale, exact_scale, z, headroom,
    CHUNK: tl.constexpr, WIDE: tl.constexpr, IS_EVEN: tl.constexpr, IS_ALIGNED: tl.constexpr,
    HAS_ORDER: tl.constexpr,
):  # fmt: skip
    """Return the (top, total) of as many chunks as pass the term of ``z`` by ``headroom`` octaves.

    The chunks, their order and their totals are those of ``softmax.row_total``.
    """
    top = tl.full([], float("-inf"), WIDE)
    total = tl.full([], 0.0, WIDE)
    chunks = tl.cdiv(V, CHUNK)
    chunk = chunks * 0
    while chunk < chunks:
        chunk_top, part = chunk_total(
            row_ptr, aligned_ptr, order_ptr, chunk * CHUNK, stride, V, scale,
            CHUNK, WIDE, IS_EVEN, IS_ALIGNED, HAS_ORDER,
        )  # fmt: skip
        top, total = combine(top, total, chunk_top, part, scale)
        octaves = (z - top.to(tl.float64)) * exact_scale
        bound = octaves + tl.abs(octaves) * FLOAT64_ROUNDING + headroom
        # A NaN fails, and the row is read to its end.
        is_enough = tl.log2(total.to(tl.float64)) > bound
        chunk = tl.where(is_enough, chunks, chunk + 1)
    return top.to(tl.float64), total.to(tl.float64)
