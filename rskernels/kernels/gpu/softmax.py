"""The Triton passes over a row of logits: its top and total, log q of its target, the gradient.

A row is read in fixed chunks; each chunk gives a (top, total) pair. Many rows: a program loops
over its row's chunks. Few rows: a program a chunk writes its pair, and a second kernel combines
the pairs in the same order, so that both give the same bits. What happens once a row is float64;
what happens to every logit is WIDE: float64 for float64 logits, else float32. Row offsets are
int64. All steps are in elements.
"""

import triton
import triton.language as tl

from rskernels.kernels.layout import ORDER_BLOCK as COLUMNS_MOVED_TOGETHER

ORDER_BLOCK = tl.constexpr(COLUMNS_MOVED_TOGETHER)
FLOAT64_ROUNDING = tl.constexpr(2.0**-50)  # of a few terms, relative to the largest


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
    row_ptr, aligned_ptr, order_ptr, start, stride, V, scale,
    CHUNK: tl.constexpr, WIDE: tl.constexpr, IS_EVEN: tl.constexpr, IS_ALIGNED: tl.constexpr,
    HAS_ORDER: tl.constexpr,
):  # fmt: skip
    """Return the top of a chunk and the total of 2**((z - top) * scale); NaN for NaN or +inf.

    Which thread adds which logits, and so the total's last bit, follows from what the compiler
    knows of the addresses. Here that is a function of V alone, however the rows are laid out.
    """
    if HAS_ORDER and CHUNK > ORDER_BLOCK:
        places = tl.arange(0, CHUNK // ORDER_BLOCK)[:, None]
        lanes = places * ORDER_BLOCK + tl.arange(0, ORDER_BLOCK)[None, :]
        places += start // ORDER_BLOCK
        blocks = tl.cdiv(V, ORDER_BLOCK)
        block = tl.load(order_ptr + places, mask=places < blocks, other=blocks).to(tl.int32)
        columns = block * ORDER_BLOCK + tl.arange(0, ORDER_BLOCK)[None, :]
    else:
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
    if len(z.shape) == 2:
        top = tl.max(tl.max(z, 1), 0)
        return top, tl.sum(tl.sum(tl.exp2((z - _safe_top(top)) * scale), 1), 0)
    else:
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
    row_ptr, partials_ptr, aligned_ptr, order_ptr, row, stride, V, scale,
    CHUNK: tl.constexpr, WIDE: tl.constexpr, IS_EVEN: tl.constexpr, IS_ALIGNED: tl.constexpr,
    HAS_ORDER: tl.constexpr, HAS_PARTIALS: tl.constexpr,
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
                row_ptr, aligned_ptr, order_ptr, chunk * CHUNK, stride, V, scale,
                CHUNK, WIDE, IS_EVEN, IS_ALIGNED, HAS_ORDER,
            )  # fmt: skip
        top, total = _combine(top, total, chunk_top, chunk_total, scale)
    return top.to(tl.float64), total.to(tl.float64)


@triton.jit
def _enough_total(
    row_ptr, aligned_ptr, order_ptr, stride, V, factor, scale, z, headroom,
    CHUNK: tl.constexpr, WIDE: tl.constexpr, IS_EVEN: tl.constexpr, IS_ALIGNED: tl.constexpr,
    HAS_ORDER: tl.constexpr,
):  # fmt: skip
    """Return the (top, total) of as many chunks as pass the term of ``z`` by ``headroom`` octaves.

    The chunks, their order and their totals are those of ``_row_total``.
    """
    top = tl.full([], float("-inf"), WIDE)
    total = tl.full([], 0.0, WIDE)
    chunks = tl.cdiv(V, CHUNK)
    chunk = chunks * 0
    while chunk < chunks:
        chunk_top, chunk_total = _chunk_total(
            row_ptr, aligned_ptr, order_ptr, chunk * CHUNK, stride, V, factor,
            CHUNK, WIDE, IS_EVEN, IS_ALIGNED, HAS_ORDER,
        )  # fmt: skip
        top, total = _combine(top, total, chunk_top, chunk_total, factor)
        octaves = (z - top.to(tl.float64)) * scale
        bound = octaves + tl.abs(octaves) * FLOAT64_ROUNDING + headroom
        # A NaN fails, and the row is read to its end.
        is_enough = tl.log2(total.to(tl.float64)) > bound
        chunk = tl.where(is_enough, chunks, chunk + 1)
    return top.to(tl.float64), total.to(tl.float64)


@triton.jit
def _log_prob(z, top, total, temperature):
    """Return log q of a logit, at most 0; NaN for a row without a softmax. All float64."""
    log_q = (z - top) / temperature - tl.log(total)
    log_q = tl.where(log_q > 0.0, 0.0, log_q)
    return tl.where(total > 0.0, log_q, float("nan"))


@triton.jit
def _partials_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    partials_ptr,  # [N, chunks, 2]
    order_ptr,  # [blocks]
    scale: tl.float64,
    CHUNK: tl.constexpr, WIDE: tl.constexpr, IS_EVEN: tl.constexpr, IS_ALIGNED: tl.constexpr,
    HAS_ORDER: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    chunks = tl.cdiv(V, CHUNK)
    row_ptr = logits_ptr + _row_offset(program // chunks, inner, outer_stride, inner_stride)
    scale = tl.full([], scale, WIDE)
    start = (program % chunks) * CHUNK
    top, total = _chunk_total(
        row_ptr, partials_ptr, order_ptr, start, stride, V, scale,
        CHUNK, WIDE, IS_EVEN, IS_ALIGNED, HAS_ORDER,
    )  # fmt: skip
    pair_ptr = partials_ptr + program.to(tl.int64) * 2
    tl.store(pair_ptr, top)
    tl.store(pair_ptr + 1, total)


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
        row_ptr, partials_ptr, totals_ptr, totals_ptr, row, stride, length, factor,
        CHUNK, WIDE, IS_EVEN, IS_ALIGNED, False, HAS_PARTIALS,
    )  # fmt: skip
    totals_ptr += row.to(tl.int64) * 2
    tl.store(totals_ptr, top)
    tl.store(totals_ptr + 1, total)
    if HAS_TARGETS:
        z = tl.load(row_ptr + tl.where(inside, target, 0) * stride).to(tl.float64)
        log_q = _log_prob(z, top, total, tl.full([], temperature, tl.float64))
        tl.store(log_prob_ptr + row, tl.where(ignored, 0.0, log_q))


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
