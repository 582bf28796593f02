"""Which rows are still open, packed by index on the device; the host never learns how many."""

import triton
import triton.language as tl

from rskernels.kernels.gpu.law import target_of, temperature_of

OPEN, REJECTED, ACCEPTED = (tl.constexpr(verdict) for verdict in range(3))


@triton.jit
def packed_rows(rows_ptr, count_ptr, N, CHUNK: tl.constexpr, IS_PACKED: tl.constexpr):
    """Return a program's CHUNK of places' rows, and which of them there are."""
    places = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    if IS_PACKED:
        is_inside = places < tl.load(count_ptr)
        return tl.load(rows_ptr + places, mask=is_inside, other=0), is_inside
    else:
        return tl.minimum(places, N - 1), places < N


@triton.jit
def store_verdict(verdict_ptr, counts_ptr, rows, is_inside, verdict):
    """Write rows' verdicts, and how many of a program's rows are open."""
    tl.store(verdict_ptr + rows, verdict.to(tl.int8), mask=is_inside)
    is_open = (verdict == OPEN) & is_inside
    tl.store(counts_ptr + tl.program_id(0), tl.sum(is_open.to(tl.int32), 0))


@triton.jit(do_not_specialize=["N", "ignore_index"])
def open_kernel(
    targets_ptr,  # [N]
    V, N,
    temperature_ptr, temperature_stride, temperature: tl.float64, ignore_index: tl.int64,
    verdict_ptr,  # [N]
    counts_ptr,  # [chunks]
    CHUNK: tl.constexpr, HAS_TEMPERATURE: tl.constexpr,
):  # fmt: skip
    """Open the rows that have a target and a temperature."""
    rows, is_inside = packed_rows(targets_ptr, targets_ptr, N, CHUNK, False)
    T, _ = temperature_of(temperature_ptr, temperature_stride, temperature, rows, HAS_TEMPERATURE)
    _, _, inside = target_of(targets_ptr, rows, ignore_index, V, T, HAS_TEMPERATURE)
    verdict = tl.where(inside, OPEN, REJECTED)
    store_verdict(verdict_ptr, counts_ptr, rows, is_inside, verdict)


@triton.jit(do_not_specialize=["N"])
def pack_kernel(
    rows_ptr,  # [N]
    count_ptr,  # [1]
    N,
    verdict_ptr,  # [N]
    counts_ptr,  # [chunks]
    packed_ptr,  # [N]
    packed_count_ptr,  # [1]
    CHUNK: tl.constexpr, IS_PACKED: tl.constexpr,
):  # fmt: skip
    """Write the rows that are open, in order, and how many they are."""
    rows, is_inside = packed_rows(rows_ptr, count_ptr, N, CHUNK, IS_PACKED)
    program, chunks = tl.program_id(0), tl.num_programs(0)
    before = tl.full([], 0, tl.int32)
    for start in range(0, program, CHUNK):
        chunk = start + tl.arange(0, CHUNK)
        before += tl.sum(tl.load(counts_ptr + chunk, mask=chunk < program, other=0), 0)
    is_open = is_inside & (tl.load(verdict_ptr + rows, mask=is_inside, other=REJECTED) == OPEN)
    places = before + tl.cumsum(is_open.to(tl.int32), 0) - 1
    tl.store(packed_ptr + places, rows, mask=is_open)
    if program == chunks - 1:
        own = tl.sum(is_open.to(tl.int32), 0)
        tl.store(packed_count_ptr, before + own)
