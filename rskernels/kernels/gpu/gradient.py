"""The Triton passes of ``target_log_prob``: the log-probabilities and their gradient."""

import triton
import triton.language as tl

from rskernels.kernels.gpu.law import log_prob_of
from rskernels.kernels.gpu.softmax import row_offset_of, row_total


@triton.jit(do_not_specialize=["ignore_index"])
def log_prob_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    partials_ptr,
    targets_ptr,  # [N]
    temperature: tl.float64, scale: tl.float64, ignore_index: tl.int64,
    log_prob_ptr,  # [N]
    totals_ptr,  # [N, 2]
    CHUNK: tl.constexpr, WIDE: tl.constexpr, IS_EVEN: tl.constexpr, IS_ALIGNED: tl.constexpr,
    HAS_PARTIALS: tl.constexpr,
    HAS_TARGETS: tl.constexpr,
):  # fmt: skip
    """Write a row's (top, total) and, where there are targets, log q of its target."""
    row = tl.program_id(0)
    row_ptr = logits_ptr + row_offset_of(row, inner, outer_stride, inner_stride)
    length = V
    if HAS_TARGETS:
        target = tl.load(targets_ptr + row).to(tl.int64)
        ignored = target == ignore_index
        inside = (target >= 0) & (target < V) & (ignored == 0)
        length = tl.where(inside, V, 0)
    scale = tl.full([], scale, WIDE)
    top, total = row_total(
        row_ptr, partials_ptr, totals_ptr, totals_ptr, row, stride, length, scale,
        CHUNK, WIDE, IS_EVEN, IS_ALIGNED, False, HAS_PARTIALS,
    )  # fmt: skip
    totals_ptr += row.to(tl.int64) * 2
    tl.store(totals_ptr, top)
    tl.store(totals_ptr + 1, total)
    if HAS_TARGETS:
        z = tl.load(row_ptr + tl.where(inside, target, 0) * stride).to(tl.float64)
        log_q = log_prob_of(z, top, total, tl.full([], temperature, tl.float64))
        tl.store(log_prob_ptr + row, tl.where(ignored, 0.0, log_q))


@triton.jit(do_not_specialize=["ignore_index"])
def gradient_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    targets_ptr,  # [N]
    upstream_ptr,  # [N]
    totals_ptr,  # [N, 2]
    temperature: tl.float64, scale: tl.float64, ignore_index: tl.int64,
    gradient_ptr,  # [N, V]
    CHUNK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Write slope * (1[v = target] - q_v) of a chunk of a row, 0 where it is not used."""
    program = tl.program_id(0)
    chunks = tl.cdiv(V, CHUNK)
    row = (program // chunks).to(tl.int64)
    columns = (program % chunks) * CHUNK + tl.arange(0, CHUNK)
    present = columns < V
    wide_columns = columns.to(tl.int64)
    target = tl.load(targets_ptr + row).to(tl.int64)
    top = tl.load(totals_ptr + row * 2)
    total = tl.load(totals_ptr + row * 2 + 1)
    upstream = tl.load(upstream_ptr + row).to(tl.float64)
    slope = upstream / tl.full([], temperature, tl.float64)
    # A rejected row leaves no trace, not even of a NaN, and is not read.
    is_used = (target != ignore_index) & (slope != 0.0)
    offset = row_offset_of(row, inner, outer_stride, inner_stride)
    z = tl.load(
        logits_ptr + offset + wide_columns * stride, mask=present & is_used, other=float("-inf")
    )
    weight = (slope / tl.where(total > 0.0, total, float("nan"))).to(WIDE)
    scale = tl.full([], scale, WIDE)
    q = tl.exp2((z.to(WIDE) - top.to(WIDE)) * scale) * weight
    value = tl.where(columns == target, slope.to(WIDE), 0.0) - q
    value = tl.where(is_used, value, 0.0)
    tl.store(gradient_ptr + row * V + wide_columns, value, mask=present)
