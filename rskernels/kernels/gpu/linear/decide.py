"""The Triton decisions from sums of blocks: rows open, closed between rounds, and decided."""

import triton
import triton.language as tl

from rskernels.kernels.gpu.decide import decision_of, log_of_row, store_outcome
from rskernels.kernels.gpu.early_exit import headroom_of, is_likely, is_possible
from rskernels.kernels.gpu.law import (
    load_seed,
    log_prob_of,
    log_uniform,
    row_id_of,
    target_of,
    temperature_of,
)
from rskernels.kernels.gpu.linear.packing import (
    ACCEPTED,
    OPEN,
    REJECTED,
    packed_rows,
    store_verdict,
)
from rskernels.kernels.gpu.linear.sums import load_blocks, sum_of_columns, total_of_blocks


@triton.jit(do_not_specialize=["N", "seed", "row_offset", "ignore_index"])
def open_mask_kernel(
    targets_ptr,  # [N]
    reference_ptr,  # [N]
    V, N,
    density_ptr, density_stride, log_density: tl.float64,
    M_ptr, M_stride, log_M: tl.float64,
    seed_ptr, seed: tl.int64, row_offset: tl.int64,
    temperature_ptr, temperature_stride, temperature: tl.float64, ignore_index: tl.int64,
    verdict_ptr,  # [N]
    headroom_ptr,  # [N]
    passed_ptr,  # [N]
    counts_ptr,  # [chunks]
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr, IS_LAZY: tl.constexpr,
    HAS_DENSITY: tl.constexpr, HAS_M: tl.constexpr, HAS_SEED: tl.constexpr,
    HAS_TEMPERATURE: tl.constexpr, LOG_SPACE: tl.constexpr, MODEL_IS_TARGET: tl.constexpr,
):  # fmt: skip
    """Open the rows whose decision their target's logit leaves open.

    Where it is lazy, the octaves by which a row's total must pass its target's term are written as
    well, and that none are passed yet.
    """
    rows, is_inside = packed_rows(targets_ptr, targets_ptr, N, CHUNK, False)
    T, _ = temperature_of(temperature_ptr, temperature_stride, temperature, rows, HAS_TEMPERATURE)
    _, _, inside = target_of(targets_ptr, rows, ignore_index, V, T, HAS_TEMPERATURE)
    log_d = log_of_row(density_ptr, density_stride, log_density, rows, HAS_DENSITY, LOG_SPACE)
    log_m = log_of_row(M_ptr, M_stride, log_M, rows, HAS_M, LOG_SPACE)
    z = tl.load(reference_ptr + rows)
    verdict = tl.where(inside & is_possible(z, log_d, log_m), OPEN, REJECTED)
    if IS_LAZY:
        row_ids = row_id_of(row_offset, rows)
        log_u = log_uniform(row_ids, load_seed(seed_ptr, seed, HAS_SEED))
        likely = is_likely(log_d, log_m, log_u, WIDE, MODEL_IS_TARGET)
        if MODEL_IS_TARGET:
            verdict = tl.where(likely, verdict, REJECTED)
        else:
            verdict = tl.where(likely & (verdict == OPEN), ACCEPTED, verdict)
        headroom = headroom_of(log_d, log_m, log_u, V, BLOCK, MODEL_IS_TARGET)
        tl.store(headroom_ptr + rows, headroom, mask=is_inside)
        tl.store(passed_ptr + rows, z * 0.0, mask=is_inside)
    store_verdict(verdict_ptr, counts_ptr, rows, is_inside, verdict)


@triton.jit(do_not_specialize=["N", "first", "blocks"])
def look_kernel(
    rows_ptr,  # [N]
    count_ptr,  # [1]
    order_ptr,  # [all blocks]
    first, blocks,  # places in the order
    reference_ptr,  # [N]
    headroom_ptr,  # [N]
    temperature_ptr, temperature_stride, temperature: tl.float64,
    N,
    tops_ptr,  # [all blocks, N]
    sums_ptr,  # [all blocks, N]
    passed_ptr,  # [N]
    verdict_ptr,  # [N]
    counts_ptr,  # [chunks]
    CHUNK: tl.constexpr, STEP: tl.constexpr, HAS_ORDER: tl.constexpr,
    HAS_TEMPERATURE: tl.constexpr, MODEL_IS_TARGET: tl.constexpr,
):  # fmt: skip
    """Add a round's blocks to rows' totals, and close the rows that have passed their headroom."""
    rows, is_inside = packed_rows(rows_ptr, count_ptr, N, CHUNK, True)
    _, steepness = temperature_of(
        temperature_ptr, temperature_stride, temperature, rows, HAS_TEMPERATURE
    )
    z = tl.load(reference_ptr + rows, mask=is_inside, other=0.0)
    headroom = tl.load(headroom_ptr + rows, mask=is_inside, other=0.0)
    passed = tl.load(passed_ptr + rows, mask=is_inside, other=0.0)
    across = (tl.zeros([CHUNK], tl.float64) + steepness)[:, None]
    for start in range(first, first + blocks, STEP):
        tops, sums = load_blocks(
            tops_ptr, sums_ptr, order_ptr, start + tl.arange(0, STEP), first + blocks, rows,
            is_inside, N, HAS_ORDER,
        )  # fmt: skip
        # A block of only -inf has a sum of 0.
        terms = sums * tl.exp2((tops - z[:, None]) * across)
        passed += sum_of_columns(tl.where(sums == 0.0, 0.0, terms), CHUNK, STEP)
    tl.store(passed_ptr + rows, passed, mask=is_inside)
    # A NaN fails, and the row is computed to its end.
    enough = REJECTED if MODEL_IS_TARGET else ACCEPTED
    verdict = tl.where(passed > tl.exp2(headroom), enough, OPEN)
    store_verdict(verdict_ptr, counts_ptr, rows, is_inside, verdict)


@triton.jit(do_not_specialize=["N", "seed", "row_offset", "ignore_index", "blocks"])
def decide_kernel(
    targets_ptr,  # [N]
    reference_ptr,  # [N]
    tops_ptr,  # [blocks, N]
    sums_ptr,  # [blocks, N]
    verdict_ptr,  # [N]
    V, N, blocks,
    density_ptr, density_stride, log_density: tl.float64,
    M_ptr, M_stride, log_M: tl.float64,
    seed_ptr, seed: tl.int64, row_offset: tl.int64,
    temperature_ptr, temperature_stride, temperature: tl.float64, ignore_index: tl.int64,
    mask_ptr,  # [N]
    log_prob_ptr,  # [N]
    log_ratio_ptr,  # [N]
    summary_ptr,  # [N, SUMMARY]
    totals_ptr,  # [N, 2]
    FEW: tl.constexpr, STEP: tl.constexpr, WIDE: tl.constexpr,
    HAS_DENSITY: tl.constexpr, HAS_M: tl.constexpr, HAS_SEED: tl.constexpr,
    HAS_TEMPERATURE: tl.constexpr,
    LOG_SPACE: tl.constexpr, MODEL_IS_TARGET: tl.constexpr, HAS_OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Decide FEW rows from their blocks, or as they were closed."""
    # Past the last, the last row is decided again, alike.
    rows = tl.minimum(tl.program_id(0) * FEW + tl.arange(0, FEW), N - 1)
    T, steepness = temperature_of(
        temperature_ptr, temperature_stride, temperature, rows, HAS_TEMPERATURE
    )
    _, ignored, inside = target_of(targets_ptr, rows, ignore_index, V, T, HAS_TEMPERATURE)
    verdict = tl.load(verdict_ptr + rows)
    is_open = verdict == OPEN
    z = tl.load(reference_ptr + rows)
    top, total = total_of_blocks(
        tops_ptr,
        sums_ptr,
        rows,
        is_open,
        N,
        blocks,
        tl.zeros([FEW], tl.float64) + steepness,
        FEW,
        STEP,
    )
    log_d = log_of_row(density_ptr, density_stride, log_density, rows, HAS_DENSITY, LOG_SPACE)
    log_m = log_of_row(M_ptr, M_stride, log_M, rows, HAS_M, LOG_SPACE)
    log_u = log_uniform(row_id_of(row_offset, rows), load_seed(seed_ptr, seed, HAS_SEED))
    log_q = log_prob_of(z, top, total, T)
    valid, log_w, log_r = decision_of(log_q, log_d, log_m, inside, WIDE, MODEL_IS_TARGET)
    accepted = (valid & (log_r >= log_u) & is_open) | (verdict == ACCEPTED)
    tl.store(mask_ptr + rows, accepted)
    if HAS_OUTPUTS:
        store_outcome(
            log_prob_ptr, log_ratio_ptr, summary_ptr, rows,
            log_q, log_w, log_r, valid, accepted, ignored,
        )  # fmt: skip
        at = totals_ptr + rows.to(tl.int64) * 2
        tl.store(at, top)
        tl.store(at + 1, total)


@triton.jit(do_not_specialize=["N", "ignore_index", "blocks"])
def log_prob_kernel(
    targets_ptr,  # [N]
    reference_ptr,  # [N]
    tops_ptr,  # [blocks, N]
    sums_ptr,  # [blocks, N]
    verdict_ptr,  # [N]
    V, N, blocks,
    temperature_ptr, temperature_stride, temperature: tl.float64, ignore_index: tl.int64,
    log_prob_ptr,  # [N]
    totals_ptr,  # [N, 2]
    FEW: tl.constexpr, STEP: tl.constexpr, HAS_TEMPERATURE: tl.constexpr,
):  # fmt: skip
    """Write (top, total) and log q of the target of FEW rows from their blocks."""
    rows = tl.minimum(tl.program_id(0) * FEW + tl.arange(0, FEW), N - 1)
    T, steepness = temperature_of(
        temperature_ptr, temperature_stride, temperature, rows, HAS_TEMPERATURE
    )
    _, ignored, _ = target_of(targets_ptr, rows, ignore_index, V, T, HAS_TEMPERATURE)
    z = tl.load(reference_ptr + rows)
    top, total = total_of_blocks(
        tops_ptr, sums_ptr, rows, tl.load(verdict_ptr + rows) == OPEN, N, blocks,
        tl.zeros([FEW], tl.float64) + steepness, FEW, STEP,
    )  # fmt: skip
    at = totals_ptr + rows.to(tl.int64) * 2
    tl.store(at, top)
    tl.store(at + 1, total)
    log_q = log_prob_of(z, top, total, T)
    tl.store(log_prob_ptr + rows, tl.where(ignored, 0.0, log_q))
