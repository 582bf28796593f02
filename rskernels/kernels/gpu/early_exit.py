"""When the rest of a row need not be read, in Triton: its total can only grow.

``is_possible`` and ``is_likely`` decide what no total can change; ``headroom_of`` says how far the
total may rise above the target's term before the decision is certain; ``enough_total`` reads until
it has.
"""

import triton
import triton.language as tl

from rskernels.kernels.gpu.law import log_ratio_of, rounded
from rskernels.kernels.gpu.softmax import finished_total, fixed_shift, part_lanes
from rskernels.law import numbers

LOG2_E = tl.constexpr(numbers.LOG2_E)
MARGIN = tl.constexpr(numbers.MARGIN)
PART_MARGIN = tl.constexpr(2.0**-22)  # what each part adds to it
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
def headroom_of(log_density, log_M, log_u, V, PART: tl.constexpr, MODEL_IS_TARGET: tl.constexpr):
    """Return the log2 of total/exp(z/T) from which the target's decision is certain.

    Beyond it a model that is the target is rejected, and one that is the proposal accepted.
    """
    log_r = log_M + log_u
    room = -(log_r + log_density) if MODEL_IS_TARGET else log_r - log_density
    size = tl.abs(log_r) + tl.abs(log_M)
    margin = MARGIN + tl.cdiv(V, PART) * PART_MARGIN + FLOAT32_ROUNDING * size
    return (room + margin + FLOAT64_ROUNDING * tl.abs(log_density)) * LOG2_E


@triton.jit
def enough_total(
    row_ptr, order_ptr, stride, V, exact_scale, reference, headroom,
    LANES: tl.constexpr, STEPS: tl.constexpr, WIDE: tl.constexpr, HAS_ORDER: tl.constexpr,
):  # fmt: skip
    """Return (top, total, is_enough) of a row that is read until it passes its target's term.

    ``reference`` is the target's logit and ``headroom`` by how many octaves the total must pass its
    term. The lanes and their order are those of ``softmax.row_total``; where the row is not read to
    its end, ``is_enough`` alone counts.
    """
    PART: tl.constexpr = LANES * STEPS
    scale = exact_scale.to(WIDE)
    shift, rest = fixed_shift(reference, exact_scale, 0.0, WIDE)
    against = reference.to(WIDE)
    # Rounded up: what passes it has passed the headroom.
    least = (tl.exp2(headroom - rest) * (1.0 + FLOAT32_ROUNDING)).to(WIDE)
    lanes = tl.zeros([LANES], WIDE)
    whole = V // PART * PART
    is_enough = V < 0
    start = whole * 0
    while (start < whole) & (is_enough == 0):
        lanes += part_lanes(
            row_ptr, order_ptr, start, stride, V, scale, against, shift,
            LANES, STEPS, WIDE, True, HAS_ORDER,
        )  # fmt: skip
        # A NaN fails, and the row is read to its end.
        neighbours = tl.sum(tl.reshape(lanes, [LANES // 4, 4]), 1)
        is_enough = tl.sum(neighbours, 0) > least
        start += PART
    top, total = reference, reference
    if is_enough == 0:
        if whole < V:
            lanes += part_lanes(
                row_ptr, order_ptr, whole, stride, V, scale, against, shift,
                LANES, STEPS, WIDE, False, HAS_ORDER,
            )  # fmt: skip
        top, total = finished_total(row_ptr, lanes, stride, V, scale, reference, rest, LANES, WIDE)
    return top, total, is_enough
