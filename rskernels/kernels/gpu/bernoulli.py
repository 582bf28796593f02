"""The Triton kernels that read no logits: decisions on given ratios, and Philox words."""

import triton
import triton.language as tl

from rskernels.kernels.gpu.decide import SUMMARY, store_summary
from rskernels.kernels.gpu.law import (
    accepts,
    excess_of,
    load_seed,
    natural_log,
    philox_words,
    rounded,
    row_id_of,
    uniform,
)


@triton.jit(do_not_specialize=["seed", "row_offset", "stream_id"])
def bernoulli_kernel(
    log_ratio_ptr,  # [N]
    M_ptr, M_stride, log_M: tl.float64,
    seed_ptr, seed: tl.int64, row_offset: tl.int64, stream_id: tl.int64, N,
    ids_ptr,  # [N]
    mask_ptr,  # [N]
    valid_ratio_ptr,  # [N]
    summary_ptr,  # [programs, SUMMARY]
    BLOCK: tl.constexpr, WIDE: tl.constexpr, HAS_M: tl.constexpr, HAS_SEED: tl.constexpr,
    HAS_IDS: tl.constexpr, LOG_SPACE: tl.constexpr, HAS_OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Accept each log ratio where log r - log M >= log u, a block of rows a program."""
    program = tl.program_id(0)
    rows = program.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    present = rows < N
    log_w = tl.load(log_ratio_ptr + rows, mask=present).to(tl.float64)
    if HAS_M:
        log_m = tl.load(M_ptr + rows * M_stride, mask=present).to(tl.float64)
        log_m = natural_log(log_m, LOG_SPACE)
    else:
        log_m = tl.full([BLOCK], log_M, tl.float64)
    seed = load_seed(seed_ptr, seed, HAS_SEED)
    if HAS_IDS:
        row_ids = tl.load(ids_ptr + rows, mask=present, other=0)
    else:
        row_ids = row_id_of(row_offset, rows)
    u = uniform(row_ids, stream_id, seed)
    valid = (log_w < float("inf")) & (log_m > float("-inf"))
    accepted = valid & accepts(log_w - log_m, u)
    tl.store(mask_ptr + rows, accepted, mask=present)
    if HAS_OUTPUTS:
        tl.store(valid_ratio_ptr + rows, tl.where(valid, log_w, float("nan")), mask=present)
        valid &= present
        log_r = log_w - rounded(log_m, WIDE)
        r = tl.where(valid, tl.exp(log_r), 0.0)
        invalid = present & (valid == 0)
        store_summary(
            summary_ptr + program.to(tl.int64) * SUMMARY,
            tl.sum((accepted & present).to(tl.int32), 0),
            tl.sum((valid & (log_r > 0.0)).to(tl.int32), 0),
            tl.sum(invalid.to(tl.int32), 0), program * 0,
            tl.sum(excess_of(r), 0), tl.sum(r, 0),
        )  # fmt: skip


@triton.jit
def philox_kernel(
    counter_ptr,  # [N, 4]
    key_ptr,  # [N, 2]
    words_ptr,  # [N, 4]
    N,
    BLOCK: tl.constexpr,
):
    """Write the Philox words of counters and keys, a block of rows a program."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    present = rows < N
    low = tl.load(key_ptr + rows * 2, mask=present, other=0)
    high = tl.load(key_ptr + rows * 2 + 1, mask=present, other=0)
    c0 = tl.load(counter_ptr + rows * 4, mask=present, other=0).to(tl.uint32)
    c1 = tl.load(counter_ptr + rows * 4 + 1, mask=present, other=0).to(tl.uint32)
    c2 = tl.load(counter_ptr + rows * 4 + 2, mask=present, other=0).to(tl.uint32)
    c3 = tl.load(counter_ptr + rows * 4 + 3, mask=present, other=0).to(tl.uint32)
    w0, w1, w2, w3 = philox_words(c0, c1, c2, c3, low | (high << 32))
    tl.store(words_ptr + rows * 4, w0.to(tl.int64), mask=present)
    tl.store(words_ptr + rows * 4 + 1, w1.to(tl.int64), mask=present)
    tl.store(words_ptr + rows * 4 + 2, w2.to(tl.int64), mask=present)
    tl.store(words_ptr + rows * 4 + 3, w3.to(tl.int64), mask=present)
