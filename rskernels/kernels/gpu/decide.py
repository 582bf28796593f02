"""The Triton kernels that decide: a target a row, every entry of a row, or a given log ratio.

What happens once a row is float64; what happens to every entry is WIDE: float64 for float64
logits, else float32. Row offsets are int64. All steps are in elements.
"""

import sys

import triton
import triton.language as tl

from rskernels.kernels.gpu.softmax import (
    FLOAT64_ROUNDING,
    _enough_total,
    _log_prob,
    _row_offset,
    _row_total,
)
from rskernels.law import philox

SUMMARY = tl.constexpr(6)  # accepted, violations, invalid, ignored, excess, mass
SMALL_WORD = tl.constexpr(philox.SMALL_WORD)
SMALL_UNIT = tl.constexpr(2.0**-65)
LARGE_UNIT = tl.constexpr(2.0**-32)
LOG2_E = tl.constexpr(1.4426950408889634)
# What two passes over a row can differ by, in log q: at all, a chunk, and of a float32 log ratio.
MARGIN, CHUNK_MARGIN = tl.constexpr(2.0**-14), tl.constexpr(2.0**-22)
FLOAT32_ROUNDING = tl.constexpr(2.0**-23)
FLOAT32_MOST, FLOAT64_MOST = tl.constexpr(2.0**128 - 2.0**104), tl.constexpr(sys.float_info.max)


@triton.jit
def _headroom(log_density, log_M, log_u, V, CHUNK: tl.constexpr, MODEL_IS_TARGET: tl.constexpr):
    """Return the log2 of total/exp(z/T) from which the target's decision is certain.

    Beyond it a model that is the target is rejected, and one that is the proposal accepted.
    """
    log_r = log_M + log_u
    room = -(log_r + log_density) if MODEL_IS_TARGET else log_r - log_density
    rounded = tl.abs(log_r) + tl.abs(log_M)
    margin = MARGIN + tl.cdiv(V, CHUNK) * CHUNK_MARGIN + FLOAT32_ROUNDING * rounded
    return (room + margin + FLOAT64_ROUNDING * tl.abs(log_density)) * LOG2_E


@triton.jit
def _natural_log(value, LOG_SPACE: tl.constexpr):
    """Return the logarithm of a density or M; NaN where it has none."""
    if LOG_SPACE:
        return value
    else:
        negative = tl.where(value == 0.0, float("-inf"), float("nan"))
        return tl.where(value > 0.0, tl.log(tl.where(value > 0.0, value, 1.0)), negative)


@triton.jit
def _wide_log(value, WIDE: tl.constexpr, LOG_SPACE: tl.constexpr):
    """Return the logarithm in WIDE, taken in float64 where float32 may not hold the value."""
    if value.dtype == tl.float64:
        return _natural_log(value, LOG_SPACE).to(WIDE)
    else:
        return _natural_log(value.to(WIDE), LOG_SPACE)


@triton.jit
def _rounded(value, WIDE: tl.constexpr):
    """Return float64 rounded to WIDE; what is finite stays so."""
    if tl.float32 == WIDE:
        huge = (tl.abs(value) > FLOAT32_MOST) & (tl.abs(value) < float("inf"))
        value = tl.where(huge, tl.where(value > 0.0, FLOAT32_MOST, -FLOAT32_MOST), value)
    return value.to(WIDE).to(tl.float64)


@triton.jit
def _log_ratio(log_q, log_density, MODEL_IS_TARGET: tl.constexpr):
    """Return log p - log q; a target density of 0 is a ratio of 0, whatever the proposal's."""
    if MODEL_IS_TARGET:
        return tl.where(log_q == float("-inf"), float("-inf"), log_q - log_density)
    else:
        return tl.where(log_density == float("-inf"), float("-inf"), log_density - log_q)


@triton.jit
def _is_valid(log_q, log_density, log_ratio, log_M):
    """Say whether a decision may be taken; a NaN anywhere fails."""
    finite = (log_density < float("inf")) & (log_ratio < float("inf"))
    return finite & (log_q <= 0.0) & (log_M > float("-inf"))


@triton.jit
def _uniform(row_id, column, stream, seed):
    """Return the uniform of (seed, row id, column, stream), float32 in (0, 1]."""
    row_id = row_id.to(tl.uint64)
    low = (row_id & 0xFFFFFFFF).to(tl.uint32)
    high = (row_id >> 32).to(tl.uint32)
    w0, w1, _, _ = tl.philox(seed, low, high, column.to(tl.uint32), stream.to(tl.uint32))
    # As in philox.word_uniform: the numerator is odd, so a sticky bit rounds it once.
    small = w0 < SMALL_WORD
    numerator = (w0.to(tl.int64) << 33) + (w1.to(tl.int64) << 1) + 1
    u_small = tl.where(small, numerator, 0).to(tl.float32) * SMALL_UNIT
    u_large = (w0 | 1).to(tl.float32) * LARGE_UNIT
    return tl.where(small, u_small, u_large)


@triton.jit
def _log_uniform(row_id, seed):
    """Return log u of a row's one decision, float64."""
    column = (row_id * 0).to(tl.int32)
    return tl.log(_uniform(row_id, column, column, seed).to(tl.float64))


@triton.jit
def _load_seed(seed_ptr, seed, HAS_SEED: tl.constexpr):
    return tl.load(seed_ptr) if HAS_SEED else seed.to(tl.int64)


@triton.jit(do_not_specialize=["seed", "row_offset", "ignore_index"])
def _target_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    partials_ptr,
    order_ptr,  # [blocks]
    targets_ptr,  # [N]
    density_ptr, density_stride, log_density: tl.float64,
    M_ptr, M_stride, log_M: tl.float64,
    seed_ptr, seed: tl.int64, row_offset: tl.int64,
    temperature: tl.float64, scale: tl.float64, ignore_index: tl.int64,
    mask_ptr,  # [N]
    log_prob_ptr,  # [N]
    log_ratio_ptr,  # [N]
    summary_ptr,  # [N, SUMMARY]
    CHUNK: tl.constexpr, WIDE: tl.constexpr, IS_EVEN: tl.constexpr, IS_ALIGNED: tl.constexpr,
    HAS_ORDER: tl.constexpr, HAS_PARTIALS: tl.constexpr, IS_LAZY: tl.constexpr,
    HAS_DENSITY: tl.constexpr, HAS_M: tl.constexpr, HAS_SEED: tl.constexpr,
    LOG_SPACE: tl.constexpr, MODEL_IS_TARGET: tl.constexpr, HAS_OUTPUTS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    row_ptr = logits_ptr + _row_offset(row, inner, outer_stride, inner_stride)
    target = tl.load(targets_ptr + row).to(tl.int64)
    ignored = target == ignore_index
    inside = (target >= 0) & (target < V) & (ignored == 0)
    if HAS_DENSITY:
        value = tl.load(density_ptr + row.to(tl.int64) * density_stride).to(tl.float64)
        log_d = _natural_log(value, LOG_SPACE)
    else:
        log_d = tl.full([], log_density, tl.float64)
    if HAS_M:
        log_m = tl.load(M_ptr + row.to(tl.int64) * M_stride).to(tl.float64)
        log_m = _natural_log(log_m, LOG_SPACE)
    else:
        log_m = tl.full([], log_M, tl.float64)
    row_id = row_offset.to(tl.int64) + row
    z = tl.load(row_ptr + tl.where(inside, target, 0) * stride).to(tl.float64)
    factor = tl.full([], scale, WIDE)
    # A row that is not decided is not read.
    length = tl.where(inside, V, 0)
    certain = tl.full([], 0, tl.int1)
    if not HAS_OUTPUTS:
        infinity = float("inf")
        possible = (tl.abs(z) < infinity) & (tl.abs(log_d) < infinity) & (tl.abs(log_m) < infinity)
        length = tl.where(possible, length, 0)
    if IS_LAZY:
        log_u = _log_uniform(row_id, _load_seed(seed_ptr, seed, HAS_SEED))
        # With log q = 0 a target is most, and a proposal least, likely accepted.
        likely = _rounded(_log_ratio(log_d * 0.0, log_d, MODEL_IS_TARGET), WIDE)
        likely = likely - _rounded(log_m, WIDE) >= log_u
        if MODEL_IS_TARGET:
            length = tl.where(likely, length, 0)
        else:
            certain = likely & (length > 0)
            length = tl.where(likely, 0, length)
        wide_scale = tl.full([], scale, tl.float64)
        headroom = _headroom(log_d, log_m, log_u, V, CHUNK, MODEL_IS_TARGET)
        top, total = _enough_total(
            row_ptr, mask_ptr, order_ptr, stride, length, factor, wide_scale, z, headroom,
            CHUNK, WIDE, IS_EVEN, IS_ALIGNED, HAS_ORDER,
        )  # fmt: skip
    else:
        top, total = _row_total(
            row_ptr, partials_ptr, mask_ptr, order_ptr, row, stride, length, factor,
            CHUNK, WIDE, IS_EVEN, IS_ALIGNED, HAS_ORDER, HAS_PARTIALS,
        )  # fmt: skip
        log_u = _log_uniform(row_id, _load_seed(seed_ptr, seed, HAS_SEED))
    log_q = _log_prob(z, top, total, tl.full([], temperature, tl.float64))
    # What is compared is what is returned, so that an M that equals it is not violated.
    log_w = _rounded(_log_ratio(log_q, log_d, MODEL_IS_TARGET), WIDE)
    valid = inside & _is_valid(log_q, log_d, log_w, log_m)
    log_r = log_w - _rounded(log_m, WIDE)
    accepted = (valid & (log_r >= log_u)) | certain
    tl.store(mask_ptr + row, accepted)
    if HAS_OUTPUTS:
        tl.store(log_prob_ptr + row, log_q)
        tl.store(log_ratio_ptr + row, tl.where(valid, log_w, float("nan")))
        r = tl.where(valid, tl.exp(log_r), 0.0)
        summary_ptr += row.to(tl.int64) * SUMMARY
        tl.store(summary_ptr, accepted.to(tl.float64))
        tl.store(summary_ptr + 1, (valid & (log_r > 0.0)).to(tl.float64))
        tl.store(summary_ptr + 2, ((valid | ignored) == 0).to(tl.float64))
        tl.store(summary_ptr + 3, ignored.to(tl.float64))
        tl.store(summary_ptr + 4, tl.where(r > 1.0, r - 1.0, 0.0))
        tl.store(summary_ptr + 5, r)


@triton.jit(do_not_specialize=["seed", "row_offset"])
def _dense_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    totals_ptr,  # [N, 2]
    density_ptr, density_outer, density_inner, density_stride, log_density: tl.float64,
    M_ptr, M_outer, M_inner, M_stride, log_M: tl.float64,
    seed_ptr, seed: tl.int64, row_offset: tl.int64, temperature: tl.float64,
    mask_ptr,  # [N, V]
    log_prob_ptr,  # [N, V]
    log_ratio_ptr,  # [N, V]
    summary_ptr,  # [N, chunks, SUMMARY]
    CHUNK: tl.constexpr, WIDE: tl.constexpr,
    HAS_DENSITY: tl.constexpr, HAS_M: tl.constexpr, HAS_SEED: tl.constexpr,
    LOG_SPACE: tl.constexpr, MODEL_IS_TARGET: tl.constexpr, HAS_OUTPUTS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    chunks = tl.cdiv(V, CHUNK)
    row = (program // chunks).to(tl.int64)
    columns = (program % chunks) * CHUNK + tl.arange(0, CHUNK)
    present = columns < V
    wide_columns = columns.to(tl.int64)
    offset = _row_offset(row, inner, outer_stride, inner_stride)
    z = tl.load(logits_ptr + offset + wide_columns * stride, mask=present, other=float("-inf"))
    top = tl.load(totals_ptr + row * 2)
    total = tl.load(totals_ptr + row * 2 + 1)
    log_total = tl.log(tl.where(total > 0.0, total, float("nan"))).to(WIDE)
    factor = tl.minimum(1.0 / tl.full([], temperature, tl.float64), 3.0e38).to(WIDE)
    log_q = (z.to(WIDE) - top.to(WIDE)) * factor - log_total
    log_q = tl.where(log_q > 0.0, 0.0, log_q)
    # What is finite stays so.
    most = FLOAT32_MOST if tl.float32 == WIDE else FLOAT64_MOST
    log_q = tl.where((log_q < -most) & (z > float("-inf")), -most, log_q)
    if HAS_DENSITY:
        offset = _row_offset(row, inner, density_outer, density_inner)
        value = tl.load(density_ptr + offset + wide_columns * density_stride, mask=present)
        log_d = _wide_log(value, WIDE, LOG_SPACE)
    else:
        log_d = tl.full([CHUNK], log_density, WIDE)
    if HAS_M:
        offset = _row_offset(row, inner, M_outer, M_inner)
        value = tl.load(M_ptr + offset + wide_columns * M_stride, mask=present)
        log_m = _wide_log(value, WIDE, LOG_SPACE)
    else:
        log_m = tl.full([CHUNK], log_M, WIDE)
    log_w = _log_ratio(log_q, log_d, MODEL_IS_TARGET)
    valid = present & _is_valid(log_q, log_d, log_w, log_m)
    log_r = log_w - log_m
    row_id = row_offset.to(tl.int64) + row
    u = _uniform(row_id, columns, program * 0, _load_seed(seed_ptr, seed, HAS_SEED))
    accepted = valid & (log_r >= tl.log(u.to(WIDE)))
    at = row * V + wide_columns
    tl.store(mask_ptr + at, accepted, mask=present)
    if HAS_OUTPUTS:
        tl.store(log_prob_ptr + at, log_q, mask=present)
        tl.store(log_ratio_ptr + at, tl.where(valid, log_w, float("nan")), mask=present)
        r = tl.where(valid, tl.exp(log_r), 0.0)
        invalid = present & (valid == 0)
        violations = valid & (log_w > log_m)
        summary_ptr += program.to(tl.int64) * SUMMARY
        tl.store(summary_ptr, tl.sum(accepted.to(tl.int32), 0).to(tl.float64))
        tl.store(summary_ptr + 1, tl.sum(violations.to(tl.int32), 0).to(tl.float64))
        tl.store(summary_ptr + 2, tl.sum(invalid.to(tl.int32), 0).to(tl.float64))
        tl.store(summary_ptr + 3, 0.0)
        tl.store(summary_ptr + 4, tl.sum(tl.where(r > 1.0, r - 1.0, 0.0), 0).to(tl.float64))
        tl.store(summary_ptr + 5, tl.sum(r, 0).to(tl.float64))


@triton.jit(do_not_specialize=["seed", "row_offset", "stream"])
def _bernoulli_kernel(
    log_ratio_ptr,  # [N]
    M_ptr, M_stride, log_M: tl.float64,
    seed_ptr, seed: tl.int64, row_offset: tl.int64, stream: tl.int64, N,
    mask_ptr,  # [N]
    BLOCK: tl.constexpr, HAS_M: tl.constexpr, HAS_SEED: tl.constexpr, LOG_SPACE: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    present = rows < N
    log_w = tl.load(log_ratio_ptr + rows, mask=present).to(tl.float64)
    if HAS_M:
        log_m = tl.load(M_ptr + rows * M_stride, mask=present).to(tl.float64)
        log_m = _natural_log(log_m, LOG_SPACE)
    else:
        log_m = tl.full([BLOCK], log_M, tl.float64)
    seed = _load_seed(seed_ptr, seed, HAS_SEED)
    u = _uniform(row_offset.to(tl.int64) + rows, (rows * 0).to(tl.int32), stream, seed)
    valid = (log_w < float("inf")) & (log_m > float("-inf"))
    accepted = valid & (log_w - log_m >= tl.log(u.to(tl.float64)))
    tl.store(mask_ptr + rows, accepted, mask=present)


@triton.jit
def _philox_kernel(
    counter_ptr,  # [N, 4]
    key_ptr,  # [N, 2]
    words_ptr,  # [N, 4]
    N,
    BLOCK: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    present = rows < N
    low = tl.load(key_ptr + rows * 2, mask=present, other=0)
    high = tl.load(key_ptr + rows * 2 + 1, mask=present, other=0)
    c0 = tl.load(counter_ptr + rows * 4, mask=present, other=0).to(tl.uint32)
    c1 = tl.load(counter_ptr + rows * 4 + 1, mask=present, other=0).to(tl.uint32)
    c2 = tl.load(counter_ptr + rows * 4 + 2, mask=present, other=0).to(tl.uint32)
    c3 = tl.load(counter_ptr + rows * 4 + 3, mask=present, other=0).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(low | (high << 32), c0, c1, c2, c3)
    tl.store(words_ptr + rows * 4, w0.to(tl.int64), mask=present)
    tl.store(words_ptr + rows * 4 + 1, w1.to(tl.int64), mask=present)
    tl.store(words_ptr + rows * 4 + 2, w2.to(tl.int64), mask=present)
    tl.store(words_ptr + rows * 4 + 3, w3.to(tl.int64), mask=present)
