"""The Triton kernels. A row is read in fixed chunks; each chunk gives a (top, total) pair.

Many rows: a program loops over its row's chunks. Few rows: a program a chunk writes its pair, and
a second kernel combines the pairs in the same order, so that both give the same bits. What happens
once a row is float64; what happens to every logit is WIDE: float64 for float64 logits, else
float32. Row offsets are int64. All steps are in elements.
"""

import triton
import triton.language as tl

from rskernels import random

SUMMARY = tl.constexpr(6)  # accepted, violations, invalid, ignored, excess, mass
SMALL_WORD = tl.constexpr(random.SMALL_WORD)
SMALL_UNIT = tl.constexpr(2.0**-65)
LARGE_UNIT = tl.constexpr(2.0**-32)


@triton.jit
def _row_offset(row, inner, outer_stride, inner_stride):
    """Return where a row begins, from its number and two leading strides."""
    row = row.to(tl.int64)
    return (row // inner) * outer_stride + (row % inner) * inner_stride


@triton.jit
def _safe_top(top):
    """Return a maximum that may be subtracted: where all is -inf, 0."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def _chunk_total(
    row_ptr, aligned_ptr, start, stride, V, scale,
    CHUNK: tl.constexpr, WIDE: tl.constexpr, IS_EVEN: tl.constexpr, IS_ALIGNED: tl.constexpr,
):  # fmt: skip
    """Return the top of a chunk and the total of 2**((z - top) * scale); NaN for NaN or +inf.

    Which thread adds which logits, and so the total's last bit, follows from what the compiler
    knows of the addresses. Here that is a function of V alone, however the rows are laid out.
    """
    lanes = tl.arange(0, CHUNK)
    columns = start + lanes
    other = float("-inf")
    if not IS_EVEN:
        # Hides that some such rows, a lone one say, are aligned: the offset is always 0.
        row_ptr += tl.where(V > 0, 0, 1)
    elif not IS_ALIGNED:
        # Reads nothing, but makes the compiler give each thread as many logits as if aligned.
        aligned_ptr = aligned_ptr.to(row_ptr.dtype, bitcast=True)
        other = tl.load(aligned_ptr + lanes, mask=lanes < 0, other=other)
    z = tl.load(row_ptr + columns.to(tl.int64) * stride, mask=columns < V, other=other)
    z = z.to(WIDE)
    top = tl.max(z, 0)
    return top, tl.sum(tl.exp2((z - _safe_top(top)) * scale), 0)


@triton.jit
def _combine(top, total, chunk_top, chunk_total, scale):
    """Return the (top, total) of two parts of a row."""
    both = tl.maximum(top, chunk_top)
    safe = _safe_top(both)
    total = total * tl.exp2((top - safe) * scale)
    return both, total + chunk_total * tl.exp2((chunk_top - safe) * scale)


@triton.jit
def _row_total(
    row_ptr, partials_ptr, aligned_ptr, row, stride, V, scale,
    CHUNK: tl.constexpr, WIDE: tl.constexpr, IS_EVEN: tl.constexpr, IS_ALIGNED: tl.constexpr,
    HAS_PARTIALS: tl.constexpr,
):  # fmt: skip
    """Return the (top, total) of a row, from its logits or from its chunks' pairs."""
    top = tl.full([], float("-inf"), WIDE)
    total = tl.full([], 0.0, WIDE)
    chunks = tl.cdiv(V, CHUNK)
    for chunk in range(0, chunks):
        if HAS_PARTIALS:
            pair_ptr = partials_ptr + (row.to(tl.int64) * chunks + chunk) * 2
            chunk_top, chunk_total = tl.load(pair_ptr), tl.load(pair_ptr + 1)
        else:
            chunk_top, chunk_total = _chunk_total(
                row_ptr, aligned_ptr, chunk * CHUNK, stride, V, scale,
                CHUNK, WIDE, IS_EVEN, IS_ALIGNED,
            )  # fmt: skip
        top, total = _combine(top, total, chunk_top, chunk_total, scale)
    return top.to(tl.float64), total.to(tl.float64)


@triton.jit
def _log_prob(z, top, total, temperature):
    """Return log q of a logit, at most 0; NaN for a row without a softmax. All float64."""
    log_q = (z - top) / temperature - tl.log(total)
    log_q = tl.where(log_q > 0.0, 0.0, log_q)
    return tl.where(total > 0.0, log_q, float("nan"))


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
    # As in random.word_uniform: the numerator is odd, so a sticky bit rounds it once.
    small = w0 < SMALL_WORD
    numerator = (w0.to(tl.int64) << 33) + (w1.to(tl.int64) << 1) + 1
    u_small = tl.where(small, numerator, 0).to(tl.float32) * SMALL_UNIT
    u_large = (w0 | 1).to(tl.float32) * LARGE_UNIT
    return tl.where(small, u_small, u_large)


@triton.jit
def _load_seed(seed_ptr, seed, HAS_SEED: tl.constexpr):
    return tl.load(seed_ptr) if HAS_SEED else seed.to(tl.int64)


@triton.jit
def _partials_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    partials_ptr,  # [N, chunks, 2]
    scale: tl.float64,
    CHUNK: tl.constexpr, WIDE: tl.constexpr, IS_EVEN: tl.constexpr, IS_ALIGNED: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    chunks = tl.cdiv(V, CHUNK)
    row_ptr = logits_ptr + _row_offset(program // chunks, inner, outer_stride, inner_stride)
    scale = tl.full([], scale, WIDE)
    start = (program % chunks) * CHUNK
    top, total = _chunk_total(
        row_ptr, partials_ptr, start, stride, V, scale, CHUNK, WIDE, IS_EVEN, IS_ALIGNED
    )
    pair_ptr = partials_ptr + program.to(tl.int64) * 2
    tl.store(pair_ptr, top)
    tl.store(pair_ptr + 1, total)


@triton.jit(do_not_specialize=["seed", "row_offset", "ignore_index"])
def _target_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    partials_ptr,
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
    HAS_PARTIALS: tl.constexpr,
    HAS_DENSITY: tl.constexpr, HAS_M: tl.constexpr, HAS_SEED: tl.constexpr,
    LOG_SPACE: tl.constexpr, MODEL_IS_TARGET: tl.constexpr, HAS_OUTPUTS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    row_ptr = logits_ptr + _row_offset(row, inner, outer_stride, inner_stride)
    target = tl.load(targets_ptr + row).to(tl.int64)
    ignored = target == ignore_index
    inside = (target >= 0) & (target < V) & (ignored == 0)
    # A row that is not decided is not read.
    length = tl.where(inside, V, 0)
    factor = tl.full([], scale, WIDE)
    top, total = _row_total(
        row_ptr, partials_ptr, mask_ptr, row, stride, length, factor,
        CHUNK, WIDE, IS_EVEN, IS_ALIGNED, HAS_PARTIALS,
    )  # fmt: skip
    z = tl.load(row_ptr + tl.where(inside, target, 0) * stride).to(tl.float64)
    log_q = _log_prob(z, top, total, tl.full([], temperature, tl.float64))
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
    # What is compared is what is returned, so that an envelope taken from it is not violated.
    log_w = _log_ratio(log_q, log_d, MODEL_IS_TARGET).to(WIDE).to(tl.float64)
    valid = inside & _is_valid(log_q, log_d, log_w, log_m)
    log_r = log_w - log_m
    row_id = row_offset.to(tl.int64) + row
    u = _uniform(row_id, row * 0, row * 0, _load_seed(seed_ptr, seed, HAS_SEED))
    accepted = valid & (log_r >= tl.log(u.to(tl.float64)))
    tl.store(mask_ptr + row, accepted)
    if HAS_OUTPUTS:
        tl.store(log_prob_ptr + row, log_q)
        tl.store(log_ratio_ptr + row, tl.where(valid, log_w, float("nan")))
        r = tl.where(valid, tl.exp(log_r), 0.0)
        summary_ptr += row.to(tl.int64) * SUMMARY
        tl.store(summary_ptr, accepted.to(tl.float64))
        tl.store(summary_ptr + 1, (valid & (log_w > log_m)).to(tl.float64))
        tl.store(summary_ptr + 2, ((valid | ignored) == 0).to(tl.float64))
        tl.store(summary_ptr + 3, ignored.to(tl.float64))
        tl.store(summary_ptr + 4, tl.where(r > 1.0, r - 1.0, 0.0))
        tl.store(summary_ptr + 5, r)


@triton.jit(do_not_specialize=["ignore_index"])
def _log_prob_kernel(
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
    row = tl.program_id(0)
    row_ptr = logits_ptr + _row_offset(row, inner, outer_stride, inner_stride)
    length = V
    if HAS_TARGETS:
        target = tl.load(targets_ptr + row).to(tl.int64)
        ignored = target == ignore_index
        inside = (target >= 0) & (target < V) & (ignored == 0)
        length = tl.where(inside, V, 0)
    factor = tl.full([], scale, WIDE)
    top, total = _row_total(
        row_ptr, partials_ptr, totals_ptr, row, stride, length, factor,
        CHUNK, WIDE, IS_EVEN, IS_ALIGNED, HAS_PARTIALS,
    )  # fmt: skip
    totals_ptr += row.to(tl.int64) * 2
    tl.store(totals_ptr, top)
    tl.store(totals_ptr + 1, total)
    if HAS_TARGETS:
        z = tl.load(row_ptr + tl.where(inside, target, 0) * stride).to(tl.float64)
        log_q = _log_prob(z, top, total, tl.full([], temperature, tl.float64))
        tl.store(log_prob_ptr + row, tl.where(ignored, 0.0, log_q))


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


@triton.jit(do_not_specialize=["ignore_index"])
def _gradient_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    targets_ptr,  # [N]
    upstream_ptr,  # [N]
    totals_ptr,  # [N, 2]
    temperature: tl.float64, scale: tl.float64, ignore_index: tl.int64,
    gradient_ptr,  # [N, V]
    CHUNK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
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
    offset = _row_offset(row, inner, outer_stride, inner_stride)
    z = tl.load(
        logits_ptr + offset + wide_columns * stride, mask=present & is_used, other=float("-inf")
    )
    weight = (slope / tl.where(total > 0.0, total, float("nan"))).to(WIDE)
    factor = tl.full([], scale, WIDE)
    q = tl.exp2((z.to(WIDE) - top.to(WIDE)) * factor) * weight
    value = tl.where(columns == target, slope.to(WIDE), 0.0) - q
    value = tl.where(is_used, value, 0.0)
    tl.store(gradient_ptr + row * V + wide_columns, value, mask=present)


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
