"""The Triton dense form: every entry of a row is a decision of its own, a program a chunk."""

import sys

import triton
import triton.language as tl

from rskernels.kernels.gpu.decide import SUMMARY, store_summary
from rskernels.kernels.gpu.law import (
    ACCEPT,
    FLOAT32_MOST,
    accepts,
    excess_of,
    is_valid,
    load_seed,
    log_ratio_of,
    row_id_of,
    temperature_of,
    uniform,
    wide_log,
)
from rskernels.kernels.gpu.softmax import row_offset_of
from rskernels.law import numbers

FLOAT64_MOST = tl.constexpr(sys.float_info.max)
LARGEST_SCALE = tl.constexpr(numbers.LARGEST_SCALE)


@triton.jit(do_not_specialize=["seed", "row_offset"])
def dense_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    totals_ptr,  # [N, 2]
    density_ptr, density_outer, density_inner, density_stride, log_density: tl.float64,
    M_ptr, M_outer, M_inner, M_stride, log_M: tl.float64,
    seed_ptr, seed: tl.int64, row_offset: tl.int64,
    temperature_ptr, temperature_stride, temperature: tl.float64,
    mask_ptr,  # [N, V]
    log_prob_ptr,  # [N, V]
    log_ratio_ptr,  # [N, V]
    summary_ptr,  # [N, chunks, SUMMARY]
    CHUNK: tl.constexpr, WIDE: tl.constexpr,
    HAS_DENSITY: tl.constexpr, HAS_M: tl.constexpr, HAS_SEED: tl.constexpr,
    HAS_TEMPERATURE: tl.constexpr,
    LOG_SPACE: tl.constexpr, MODEL_IS_TARGET: tl.constexpr, HAS_OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Decide every entry of a chunk of a row, whose (top, total) is known."""
    program = tl.program_id(0)
    chunks = tl.cdiv(V, CHUNK)
    row = (program // chunks).to(tl.int64)
    columns = (program % chunks) * CHUNK + tl.arange(0, CHUNK)
    present = columns < V
    wide_columns = columns.to(tl.int64)
    offset = row_offset_of(row, inner, outer_stride, inner_stride)
    z = tl.load(logits_ptr + offset + wide_columns * stride, mask=present, other=float("-inf"))
    top = tl.load(totals_ptr + row * 2)
    total = tl.load(totals_ptr + row * 2 + 1)
    T, _ = temperature_of(temperature_ptr, temperature_stride, temperature, row, HAS_TEMPERATURE)
    log_total = tl.log(tl.where((total > 0.0) & (T > 0.0), total, float("nan"))).to(WIDE)
    inverse_temperature = tl.minimum(1.0 / T, LARGEST_SCALE).to(WIDE)
    log_q = (z.to(WIDE) - top.to(WIDE)) * inverse_temperature - log_total
    log_q = tl.where(log_q > 0.0, 0.0, log_q)
    # What is finite stays so.
    most = FLOAT32_MOST if tl.float32 == WIDE else FLOAT64_MOST
    log_q = tl.where((log_q < -most) & (z > float("-inf")), -most, log_q)
    if HAS_DENSITY:
        offset = row_offset_of(row, inner, density_outer, density_inner)
        value = tl.load(density_ptr + offset + wide_columns * density_stride, mask=present)
        log_d = wide_log(value, WIDE, LOG_SPACE)
    else:
        log_d = tl.full([CHUNK], log_density, WIDE)
    if HAS_M:
        offset = row_offset_of(row, inner, M_outer, M_inner)
        value = tl.load(M_ptr + offset + wide_columns * M_stride, mask=present)
        log_m = wide_log(value, WIDE, LOG_SPACE)
    else:
        log_m = tl.full([CHUNK], log_M, WIDE)
    log_w = log_ratio_of(log_q, log_d, MODEL_IS_TARGET)
    valid = present & is_valid(log_q, log_d, log_w, log_m)
    log_r = log_w - log_m
    row_id = row_id_of(row_offset, row)
    stream = tl.full([], ACCEPT, tl.int32)
    u = uniform(row_id, columns, stream, load_seed(seed_ptr, seed, HAS_SEED))
    accepted = valid & accepts(log_r, u)
    at = row * V + wide_columns
    tl.store(mask_ptr + at, accepted, mask=present)
    if HAS_OUTPUTS:
        tl.store(log_prob_ptr + at, log_q, mask=present)
        tl.store(log_ratio_ptr + at, tl.where(valid, log_w, float("nan")), mask=present)
        r = tl.where(valid, tl.exp(log_r), 0.0)
        invalid = present & (valid == 0)
        violations = valid & (log_w > log_m)
        store_summary(
            summary_ptr + program.to(tl.int64) * SUMMARY,
            tl.sum(accepted.to(tl.int32), 0), tl.sum(violations.to(tl.int32), 0),
            tl.sum(invalid.to(tl.int32), 0), program * 0,
            tl.sum(excess_of(r), 0), tl.sum(r, 0),
        )  # fmt: skip
