"""The Triton pass over a row of logits: its top and the total of its exponentials.

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
def chunk_total(
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
        return top, tl.sum(tl.sum(tl.exp2((z - safe_top(top)) * scale), 1), 0)
    else:
        top = tl.max(z, 0)
        return top, tl.sum(tl.exp2((z - safe_top(top)) * scale), 0)


@triton.jit
def combine(top, total, chunk_top, part, scale):
    """Return the (top, total) of two parts of a row."""
    both = tl.maximum(top, chunk_top)
    safe = safe_top(both)
    total = total * tl.exp2((top - safe) * scale)
    return both, total + part * tl.exp2((chunk_top - safe) * scale)


@triton.jit
def row_total(
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
            chunk_top, part = tl.load(pair_ptr), tl.load(pair_ptr + 1)
        else:
            chunk_top, part = chunk_total(
                row_ptr, aligned_ptr, order_ptr, chunk * CHUNK, stride, V, scale,
                CHUNK, WIDE, IS_EVEN, IS_ALIGNED, HAS_ORDER,
            )  # fmt: skip
        top, total = combine(top, total, chunk_top, part, scale)
    return top.to(tl.float64), total.to(tl.float64)


@triton.jit
def partials_kernel(
    logits_ptr, inner, outer_stride, inner_stride, stride, V,
    partials_ptr,  # [N, chunks, 2]
    order_ptr,  # [blocks]
    scale: tl.float64,
    CHUNK: tl.constexpr, WIDE: tl.constexpr, IS_EVEN: tl.constexpr, IS_ALIGNED: tl.constexpr,
    HAS_ORDER: tl.constexpr,
):  # fmt: skip
    """Write the (top, total) of a chunk of a row."""
    program = tl.program_id(0)
    chunks = tl.cdiv(V, CHUNK)
    row_ptr = logits_ptr + row_offset_of(program // chunks, inner, outer_stride, inner_stride)
    scale = tl.full([], scale, WIDE)
    start = (program % chunks) * CHUNK
    top, total = chunk_total(
        row_ptr, partials_ptr, order_ptr, start, stride, V, scale,
        CHUNK, WIDE, IS_EVEN, IS_ALIGNED, HAS_ORDER,
    )  # fmt: skip
    pair_ptr = partials_ptr + program.to(tl.int64) * 2
    tl.store(pair_ptr, top)
    tl.store(pair_ptr + 1, total)
