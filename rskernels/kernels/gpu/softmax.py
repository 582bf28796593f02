"""The Triton pass over a row of logits: the total of its exponentials against a reference.

The reference is fixed before the row is read, so a logit costs one multiply-add, one exponential
and one addition. Column v adds to lane v mod LANES, and a lane adds its columns in order, part by
part: bits that no layout over threads changes. Many rows: a program loops over its row's parts. Few
rows: a program a part writes its lanes, and a second kernel adds them in the same order. Lanes meet
once a row, in pairs.

A total that is not finite sends the row, alone, to ``careful_total``. What happens once a row is
float64; what happens to every logit is WIDE: float64 for float64 logits, else float32. Row offsets
are int64. All steps are in elements.
"""

import triton
import triton.language as tl

from rskernels.kernels.gpu.law import temperature_of
from rskernels.kernels.layout import ORDER_BLOCK as COLUMNS_MOVED_TOGETHER

ORDER_BLOCK = tl.constexpr(COLUMNS_MOVED_TOGETHER)


@triton.jit
def row_offset_of(row, inner, outer_stride, inner_stride):
    """Return where a row begins, from its number and two leading strides."""
    row = row.to(tl.int64)
    return (row // inner) * outer_stride + (row % inner) * inner_stride


@triton.jit
def safe_top(top):
    """Return a maximum that may be subtracted: where all is -inf, 0."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def load_step(
    row_ptr, order_ptr, start, stride, V,
    LANES: tl.constexpr, WIDE: tl.constexpr, IS_WHOLE: tl.constexpr, HAS_ORDER: tl.constexpr,
):  # fmt: skip
    """Return the LANES logits from place ``start`` on, -inf where there are no more."""
    columns = start + tl.arange(0, LANES)
    if HAS_ORDER:
        blocks = tl.cdiv(V, ORDER_BLOCK)
        place = start // ORDER_BLOCK
        block = tl.load(order_ptr + place, mask=place < blocks, other=blocks).to(tl.int32)
        columns = block * ORDER_BLOCK + tl.arange(0, LANES)
    addresses = row_ptr + columns.to(tl.int64) * stride
    if IS_WHOLE and not HAS_ORDER:
        return tl.load(addresses).to(WIDE)
    else:
        return tl.load(addresses, mask=columns < V, other=float("-inf")).to(WIDE)


@triton.jit
def fixed_shift(reference, scale, log2_total, WIDE: tl.constexpr):
    """Return (shift, rest), in octaves, for :func:`octaves` below a reference and a total.

    ``rest`` is what float32 leaves of the shift, the same for every logit of the row. All float64.
    """
    if tl.float32 == WIDE:
        exact = -(reference * scale.to(WIDE).to(tl.float64)) - log2_total
        shift = exact.to(WIDE)
        return shift, exact - shift.to(tl.float64)
    else:
        return -log2_total, log2_total * 0.0


@triton.jit
def octaves(z, scale, reference, shift, WIDE: tl.constexpr):
    """Return (z - reference) * scale, less what else is in the shift, rounded once in float32."""
    if tl.float32 == WIDE:
        return tl.fma(z, scale, shift)
    else:
        return (z - reference) * scale + shift


@triton.jit
def part_lanes(
    row_ptr, order_ptr, start, stride, V, scale, reference, shift,
    LANES: tl.constexpr, STEPS: tl.constexpr, WIDE: tl.constexpr,
    IS_WHOLE: tl.constexpr, HAS_ORDER: tl.constexpr,
):  # fmt: skip
    """Return the lanes' sums of 2**octaves over a part, LANES * STEPS logits."""
    lanes = tl.zeros([LANES], WIDE)
    for step in tl.static_range(STEPS):
        z = load_step(
            row_ptr, order_ptr, start + step * LANES, stride, V, LANES, WIDE, IS_WHOLE, HAS_ORDER
        )
        lanes += tl.exp2(octaves(z, scale, reference, shift, WIDE))
    return lanes


@triton.jit
def sum_of_lanes(lanes, LANES: tl.constexpr):
    """Add lanes in pairs of neighbours, then the pairs: one order, whoever holds which lane."""
    if LANES == 1:
        return tl.sum(lanes, 0)
    else:
        pairs = tl.reshape(lanes, [LANES // 2, 2])
        return sum_of_lanes(tl.sum(pairs, 1), LANES // 2)


@triton.jit
def reference_of(row_ptr, stride, V, LANES: tl.constexpr, WIDE: tl.constexpr):
    """Return the largest of a row's first logits, float64."""
    z = load_step(row_ptr, row_ptr, 0, stride, V, LANES, WIDE, False, False)
    return tl.max(z, 0).to(tl.float64)


@triton.jit
def careful_total(row_ptr, stride, V, scale, LANES: tl.constexpr, WIDE: tl.constexpr):
    """Return the (top, total) of any row, with a running maximum a lane; NaN for NaN or +inf."""
    tops = tl.full([LANES], float("-inf"), WIDE)
    lanes = tl.zeros([LANES], WIDE)
    for start in range(0, V, LANES):
        z = load_step(row_ptr, row_ptr, start, stride, V, LANES, WIDE, False, False)
        both = tl.maximum(tops, z)
        safe = safe_top(both)
        lanes = lanes * tl.exp2((tops - safe) * scale) + tl.exp2((z - safe) * scale)
        tops = both
    top = tl.max(tops, 0)
    lanes *= tl.exp2((tops - safe_top(top)) * scale)
    return top.to(tl.float64), sum_of_lanes(lanes, LANES).to(tl.float64)


@triton.jit
def finished_total(
    row_ptr, lanes, stride, V, scale, reference, rest, LANES: tl.constexpr, WIDE: tl.constexpr
):
    """Return the (top, total) of a row from its lanes, or anew where they are not finite."""
    total = sum_of_lanes(lanes, LANES).to(tl.float64) * tl.exp2(rest)
    top = reference
    if (total < float("inf")) & (tl.abs(reference) < float("inf")):
        top, total = reference, total
    else:
        top, total = careful_total(row_ptr, stride, V, scale, LANES, WIDE)
    return top, total


@triton.jit
def row_total(
    row_ptr, partials_ptr, order_ptr, row, stride, V, exact_scale, reference,
    LANES: tl.constexpr, STEPS: tl.constexpr, WIDE: tl.constexpr,
    HAS_ORDER: tl.constexpr, HAS_PARTIALS: tl.constexpr,
):  # fmt: skip
    """Return the (top, total) of a row, from its logits or from its parts' lanes; float64."""
    PART: tl.constexpr = LANES * STEPS
    scale = exact_scale.to(WIDE)
    shift, rest = fixed_shift(reference, exact_scale, 0.0, WIDE)
    against = reference.to(WIDE)
    lanes = tl.zeros([LANES], WIDE)
    if HAS_PARTIALS:
        parts = tl.cdiv(V, PART)
        place = partials_ptr + row.to(tl.int64) * parts * LANES + tl.arange(0, LANES)
        for _ in range(0, parts):
            lanes += tl.load(place)
            place += LANES
    else:
        whole = V // PART * PART
        for start in range(0, whole, PART):
            lanes += part_lanes(
                row_ptr, order_ptr, start, stride, V, scale, against, shift,
                LANES, STEPS, WIDE, True, HAS_ORDER,
            )  # fmt: skip
        if whole < V:
            lanes += part_lanes(
                row_ptr, order_ptr, whole, stride, V, scale, against, shift,
                LANES, STEPS, WIDE, False, HAS_ORDER,
            )  # fmt: skip
    return finished_total(row_ptr, lanes, stride, V, scale, reference, rest, LANES, WIDE)


@triton.jit(do_not_specialize=["ignore_index"])
def partials_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    partials_ptr,  # [N, parts, LANES]
    order_ptr,  # [blocks]
    targets_ptr,  # [N]
    temperature_ptr, temperature_stride, temperature: tl.float64,
    LANES: tl.constexpr, STEPS: tl.constexpr, WIDE: tl.constexpr,
    HAS_ORDER: tl.constexpr, HAS_TARGETS: tl.constexpr, HAS_TEMPERATURE: tl.constexpr,
):  # fmt: skip
    """Write the lanes of a part of a row."""
    PART: tl.constexpr = LANES * STEPS
    program = tl.program_id(0)
    parts = tl.cdiv(V, PART)
    row, part = program // parts, program % parts
    row_ptr = logits_ptr + row_offset_of(row, inner, outer_stride, inner_stride)
    if HAS_TARGETS:
        target = tl.load(targets_ptr + row).to(tl.int64)
        inside = (target >= 0) & (target < V)
        reference = tl.load(row_ptr + tl.where(inside, target, 0) * stride).to(tl.float64)
    else:
        reference = reference_of(row_ptr, stride, V, LANES, WIDE)
    _, exact_scale = temperature_of(
        temperature_ptr, temperature_stride, temperature, row, HAS_TEMPERATURE
    )
    shift, _ = fixed_shift(reference, exact_scale, 0.0, WIDE)
    lanes = part_lanes(
        row_ptr, order_ptr, part * PART, stride, V, exact_scale.to(WIDE), reference.to(WIDE), shift,
        LANES, STEPS, WIDE, False, HAS_ORDER,
    )  # fmt: skip
    tl.store(partials_ptr + program.to(tl.int64) * LANES + tl.arange(0, LANES), lanes)
