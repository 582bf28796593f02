"""The Triton passes over logits that are not stored: each row's target, and sums of its blocks.

A block is BLOCK columns of the vocabulary. A row's block is summed against its own maximum, so
that nothing overflows and no row needs a second pass; a row's total is made of its blocks in the
order of their numbers, in float64. Which program computes a block, when, and beside which rows
changes no bit of it.

Bounds: 2 N V D operations at 990 TFLOPS (bfloat16, H100 and H200), and (N + V) D elements read at
3.35 or 4.8 TB/s; from some 300 rows on the product decides. What the schedule loses on paper,
beside what Triton's products reach: a tile's reduction, 2,048 clocks of exponentials after 16 D of
products (3 % at D = 4,096, 17 % at 768), since the warps of a program reduce together; filling the
pipeline anew at every tile, some 1,500 clocks; and the last turn of the persistent programs.
"""

import triton
import triton.language as tl

from rskernels.kernels.gpu.law import temperature_of
from rskernels.kernels.gpu.linear.product import grouped, logits_tile
from rskernels.kernels.gpu.softmax import safe_top


@triton.jit
def sum_of_columns(values, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Add a tile's columns in pairs of neighbours, then the pairs: one order in every launch."""
    if COLUMNS == 1:
        return tl.sum(values, 1)
    else:
        pairs = tl.reshape(values, [ROWS, COLUMNS // 2, 2])
        return sum_of_columns(tl.sum(pairs, 2), ROWS, COLUMNS // 2)


@triton.jit(do_not_specialize=["N"])
def reference_kernel(
    hidden_ptr, hidden_step, hidden_stride, weight_ptr, weight_step, weight_stride,
    bias_ptr, bias_stride, low_ptr, B_ptr, B_step, B_stride,
    scale: tl.float64, softcap: tl.float64, D, V, R,
    targets_ptr,  # [N]
    N,
    reference_ptr,  # [N]
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, RANK: tl.constexpr,
    PARTS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, IS_EVEN: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, HAS_LORA: tl.constexpr,
):  # fmt: skip
    """Write the logits of rows' targets: the diagonal of tiles whose columns are the targets.

    So they have the bits that they have where the row is summed.
    """
    first = tl.program_id(0) * ROWS
    places = first + tl.arange(0, ROWS)
    own = tl.zeros([ROWS], WIDE)
    for start in range(0, ROWS, COLUMNS):
        whose = start + tl.arange(0, COLUMNS)  # of these rows' targets
        targets = tl.load(targets_ptr + tl.minimum(first + whose, N - 1)).to(tl.int64)
        columns = tl.where((targets >= 0) & (targets < V), targets, 0)
        z = logits_tile(
            hidden_ptr, hidden_step, hidden_stride, weight_ptr, weight_step, weight_stride,
            bias_ptr, bias_stride, low_ptr, B_ptr, B_step, B_stride, scale, softcap, D, R, N,
            tl.minimum(places, N - 1), columns,
            ROWS, COLUMNS, DEPTH, RANK, PARTS, WIDE, PRECISION, IS_EVEN,
            HAS_BIAS, HAS_SOFTCAP, HAS_LORA,
        )  # fmt: skip
        is_own = whose[None, :] == tl.arange(0, ROWS)[:, None]
        own += tl.sum(tl.where(is_own, z, 0.0), 1)
    tl.store(reference_ptr + places, own.to(tl.float64), mask=places < N)


@triton.jit(do_not_specialize=["N", "first", "blocks"])
def sums_kernel(
    hidden_ptr, hidden_step, hidden_stride, weight_ptr, weight_step, weight_stride,
    bias_ptr, bias_stride, low_ptr, B_ptr, B_step, B_stride,
    scale: tl.float64, softcap: tl.float64, D, V, R,
    rows_ptr,  # [N], of which the first ``count`` are read
    count_ptr,  # [1]
    order_ptr,  # [all blocks]
    first, blocks,  # places in the order
    temperature_ptr, temperature_stride, temperature: tl.float64,
    N,
    tops_ptr,  # [all blocks, N]
    sums_ptr,  # [all blocks, N]
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, RANK: tl.constexpr,
    PARTS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, IS_EVEN: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, HAS_LORA: tl.constexpr,
    BLOCK: tl.constexpr, GROUP: tl.constexpr,
    HAS_ORDER: tl.constexpr, HAS_TEMPERATURE: tl.constexpr,
):  # fmt: skip
    """Write the maxima, and the sums of exponentials against them, of rows' blocks.

    The programs that there are take tiles of rows and blocks in turns. How many rows there are is
    read from memory: the host does not know.
    """
    count = tl.load(count_ptr)
    tiles = tl.cdiv(count, ROWS)
    for item in range(tl.program_id(0), tiles * blocks, tl.num_programs(0)):
        tile, place = grouped(item, tiles, blocks, GROUP)
        block = first + place
        if HAS_ORDER:
            block = tl.load(order_ptr + block).to(tl.int32)
        places = tile * ROWS + tl.arange(0, ROWS)
        rows = tl.load(rows_ptr + tl.minimum(places, count - 1))
        _, exact_scale = temperature_of(
            temperature_ptr, temperature_stride, temperature, rows, HAS_TEMPERATURE
        )
        steepness = exact_scale.to(WIDE)
        across = steepness[:, None] if HAS_TEMPERATURE else steepness
        tops = tl.full([ROWS], float("-inf"), WIDE)
        sums = tl.zeros([ROWS], WIDE)
        begin = block * BLOCK
        for start in range(begin, tl.minimum(begin + BLOCK, V), COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            z = logits_tile(
                hidden_ptr, hidden_step, hidden_stride, weight_ptr, weight_step, weight_stride,
                bias_ptr, bias_stride, low_ptr, B_ptr, B_step, B_stride, scale, softcap, D, R, N,
                rows, tl.minimum(columns, V - 1),
                ROWS, COLUMNS, DEPTH, RANK, PARTS, WIDE, PRECISION, IS_EVEN,
                HAS_BIAS, HAS_SOFTCAP, HAS_LORA,
            )  # fmt: skip
            z = tl.where((columns < V)[None, :], z, float("-inf"))
            both = tl.maximum(tops, tl.max(z, 1))
            safe = safe_top(both)
            terms = tl.exp2((z - safe[:, None]) * across)
            sums = sums * tl.exp2((tops - safe) * steepness) + tl.sum(terms, 1)
            tops = both
        at = block.to(tl.int64) * N + rows
        is_inside = places < count
        tl.store(tops_ptr + at, tops, mask=is_inside)
        tl.store(sums_ptr + at, sums, mask=is_inside)


@triton.jit
def load_blocks(
    tops_ptr, sums_ptr, order_ptr, places, last, rows, is_open, N, HAS_ORDER: tl.constexpr
):
    """Return the maxima and sums of blocks of rows [rows, places], float64; of none, -inf and 0."""
    is_inside = places < last
    blocks = places
    if HAS_ORDER:
        blocks = tl.load(order_ptr + places, mask=is_inside, other=0)
    at = blocks.to(tl.int64)[None, :] * N + rows[:, None]
    is_inside = is_inside[None, :] & is_open[:, None]
    tops = tl.load(tops_ptr + at, mask=is_inside, other=float("-inf")).to(tl.float64)
    return tops, tl.load(sums_ptr + at, mask=is_inside, other=0.0).to(tl.float64)


@triton.jit
def total_of_blocks(
    tops_ptr, sums_ptr, rows, is_open, N, blocks, steepness,
    FEW: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Return (top, total) of FEW rows from all of their blocks, float64; total 0 where not open."""
    top = tl.full([FEW], float("-inf"), tl.float64)
    for start in range(0, blocks, STEP):
        places = start + tl.arange(0, STEP)
        tops, _ = load_blocks(tops_ptr, sums_ptr, tops_ptr, places, blocks, rows, is_open, N, False)
        top = tl.maximum(top, tl.max(tops, 1))
    safe = safe_top(top)
    total = tl.zeros([FEW], tl.float64)
    for start in range(0, blocks, STEP):
        places = start + tl.arange(0, STEP)
        tops, sums = load_blocks(
            tops_ptr, sums_ptr, tops_ptr, places, blocks, rows, is_open, N, False
        )
        # A block of only -inf, and one that does not exist, add nothing.
        terms = sums * tl.exp2((tops - safe[:, None]) * steepness[:, None])
        total += sum_of_columns(terms, FEW, STEP)
    return top, total
