"""The Triton decisions: a row's target accepted or rejected, and what happened counted.

What happens once a row is float64; what happens to every logit is WIDE: float64 for float64
logits, else float32. Row offsets are int64. All steps are in elements.
"""

import triton
import triton.language as tl

from rskernels.kernels.gpu.early_exit import enough_total, headroom_of, is_likely, is_possible
from rskernels.kernels.gpu.law import (
    excess_of,
    is_valid,
    load_seed,
    log_prob_of,
    log_ratio_of,
    log_uniform,
    natural_log,
    rounded,
    row_id_of,
    target_of,
    temperature_of,
)
from rskernels.kernels.gpu.softmax import row_offset_of, row_total
from rskernels.law import numbers

ACCEPTED, VIOLATIONS = tl.constexpr(numbers.ACCEPTED), tl.constexpr(numbers.VIOLATIONS)
INVALID, IGNORED = tl.constexpr(numbers.INVALID), tl.constexpr(numbers.IGNORED)
EXCESS, MASS = tl.constexpr(numbers.EXCESS), tl.constexpr(numbers.MASS)
SUMMARY = tl.constexpr(numbers.SUMMARY)


@triton.jit
def store_summary(summary_ptr, accepted, violations, invalid, ignored, excess, mass):
    """Write what a program counted and summed."""
    tl.store(summary_ptr + ACCEPTED, accepted.to(tl.float64))
    tl.store(summary_ptr + VIOLATIONS, violations.to(tl.float64))
    tl.store(summary_ptr + INVALID, invalid.to(tl.float64))
    tl.store(summary_ptr + IGNORED, ignored.to(tl.float64))
    tl.store(summary_ptr + EXCESS, excess.to(tl.float64))
    tl.store(summary_ptr + MASS, mass.to(tl.float64))


@triton.jit
def log_of_row(
    value_ptr, value_stride, log_value, row, HAS_VALUE: tl.constexpr, LOG_SPACE: tl.constexpr
):
    """Return the logarithm of a row's density or M, float64."""
    if HAS_VALUE:
        value = tl.load(value_ptr + row.to(tl.int64) * value_stride).to(tl.float64)
        return natural_log(value, LOG_SPACE)
    else:
        # Of the rows' shape: in the interpreter, a comparison of one number does not spread.
        return tl.full([], log_value, tl.float64) + row * 0


@triton.jit
def decision_of(log_q, log_d, log_m, inside, WIDE: tl.constexpr, MODEL_IS_TARGET: tl.constexpr):
    """Return (whether a row may be decided, log p - log q, log r)."""
    # What is compared is what is returned, so that an M that equals it is not violated.
    log_w = rounded(log_ratio_of(log_q, log_d, MODEL_IS_TARGET), WIDE)
    valid = inside & is_valid(log_q, log_d, log_w, log_m)
    return valid, log_w, log_w - rounded(log_m, WIDE)


@triton.jit
def store_outcome(
    log_prob_ptr, log_ratio_ptr, summary_ptr, row, log_q, log_w, log_r, valid, accepted, ignored
):
    """Write what else is told of a row's decision."""
    tl.store(log_prob_ptr + row, log_q)
    tl.store(log_ratio_ptr + row, tl.where(valid, log_w, float("nan")))
    r = tl.where(valid, tl.exp(log_r), 0.0)
    store_summary(
        summary_ptr + row.to(tl.int64) * SUMMARY,
        accepted, valid & (log_r > 0.0), (valid | ignored) == 0, ignored, excess_of(r), r,
    )  # fmt: skip


@triton.jit(do_not_specialize=["seed", "row_offset", "ignore_index"])
def target_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    partials_ptr,
    order_ptr,  # [blocks]
    targets_ptr,  # [N]
    density_ptr, density_stride, log_density: tl.float64,
    M_ptr, M_stride, log_M: tl.float64,
    seed_ptr, seed: tl.int64, row_offset: tl.int64,
    temperature_ptr, temperature_stride, temperature: tl.float64, ignore_index: tl.int64,
    mask_ptr,  # [N]
    log_prob_ptr,  # [N]
    log_ratio_ptr,  # [N]
    summary_ptr,  # [N, SUMMARY]
    totals_ptr,  # [N, 2]
    LANES: tl.constexpr, STEPS: tl.constexpr, WIDE: tl.constexpr,
    HAS_ORDER: tl.constexpr, HAS_PARTIALS: tl.constexpr, IS_LAZY: tl.constexpr,
    HAS_DENSITY: tl.constexpr, HAS_M: tl.constexpr, HAS_SEED: tl.constexpr,
    HAS_TEMPERATURE: tl.constexpr,
    LOG_SPACE: tl.constexpr, MODEL_IS_TARGET: tl.constexpr, HAS_OUTPUTS: tl.constexpr,
    HAS_TOTALS: tl.constexpr,
):  # fmt: skip
    """Decide the target's entry of a row, a program a row."""
    row = tl.program_id(0)
    row_ptr = logits_ptr + row_offset_of(row, inner, outer_stride, inner_stride)
    T, scale = temperature_of(
        temperature_ptr, temperature_stride, temperature, row, HAS_TEMPERATURE
    )
    target, ignored, inside = target_of(targets_ptr, row, ignore_index, V, T, HAS_TEMPERATURE)
    log_d = log_of_row(density_ptr, density_stride, log_density, row, HAS_DENSITY, LOG_SPACE)
    log_m = log_of_row(M_ptr, M_stride, log_M, row, HAS_M, LOG_SPACE)
    row_id = row_id_of(row_offset, row)
    z = tl.load(row_ptr + tl.where(inside, target, 0) * stride).to(tl.float64)
    # A row that is not decided is not read.
    length = tl.where(inside, V, 0)
    certain = tl.full([], 0, tl.int1)
    is_enough = tl.full([], 0, tl.int1)
    if not HAS_OUTPUTS:
        length = tl.where(is_possible(z, log_d, log_m), length, 0)
    if IS_LAZY:
        log_u = log_uniform(row_id, load_seed(seed_ptr, seed, HAS_SEED))
        likely = is_likely(log_d, log_m, log_u, WIDE, MODEL_IS_TARGET)
        if MODEL_IS_TARGET:
            length = tl.where(likely, length, 0)
        else:
            certain = likely & (length > 0)
            length = tl.where(likely, 0, length)
        headroom = headroom_of(log_d, log_m, log_u, V, LANES * STEPS, MODEL_IS_TARGET)
        top, total, is_enough = enough_total(
            row_ptr, order_ptr, stride, length, scale, z, headroom, LANES, STEPS, WIDE, HAS_ORDER
        )
        if not MODEL_IS_TARGET:
            certain |= is_enough
    else:
        top, total = row_total(
            row_ptr, partials_ptr, order_ptr, row, stride, length, scale, z,
            LANES, STEPS, WIDE, HAS_ORDER, HAS_PARTIALS,
        )  # fmt: skip
        log_u = log_uniform(row_id, load_seed(seed_ptr, seed, HAS_SEED))
    log_q = log_prob_of(z, top, total, T)
    valid, log_w, log_r = decision_of(log_q, log_d, log_m, inside, WIDE, MODEL_IS_TARGET)
    accepted = (valid & (log_r >= log_u) & (is_enough == 0)) | certain
    tl.store(mask_ptr + row, accepted)
    if HAS_OUTPUTS:
        store_outcome(
            log_prob_ptr, log_ratio_ptr, summary_ptr, row,
            log_q, log_w, log_r, valid, accepted, ignored,
        )  # fmt: skip
    if HAS_TOTALS:
        totals_ptr += row.to(tl.int64) * 2
        tl.store(totals_ptr, top)
        tl.store(totals_ptr + 1, total)
