"""One pass over a row of logits in Numba: its reference and the total of its exponentials.

Rows are addresses with a byte stride and a dtype code: one compiled function serves every dtype
and layout, and bf16, which NumPy does not know, needs no detour. The entry points of the other
modules take strides in elements, as torch gives them.
"""

import numpy as np
from numba import carray, float32, float64, njit, types
from numba.extending import intrinsic

from rskernels.kernels.cpu.lanemath import exp2
from rskernels.kernels.cpu.simd import (
    LANES,
    count,
    first,
    first_lanes,
    isnan,
    loader,
    maximum,
    named,
    part_loader,
    prefetch,
    reduce_add,
    reduce_max,
    reduce_rows_add,
    reduce_rows_max,
    select,
    splat,
    stack_memory,
    storer,
    widen,
)
from rskernels.kernels.layout import ORDER_BLOCK

NONE, F32, F64, BF16, F16, I64, I32 = range(7)

# A fixed partition of the row, so that a decision depends on nothing but the row: its head, parts
# that end GROWTH octaves further each up to a block, and then a block at a time. In an order of the
# caller's, ORDER_BLOCK at a time.
HEAD = 512
GROWTH = 2
BLOCK = 8192
FIRST_PARTS = 3  # parts that make up the first block
LIMIT = 2.0 * BLOCK  # twice what a block sums to that lies at its reference throughout
STEP = 64  # four vectors at a time hide the latency of the additions
CHECK = 512  # logits between two looks at whether the decision is certain
LINE = 64  # bytes of a cache line
PAGE = 4096  # bytes; asking for pages side by side reads faster than one after the other
WINDOW = 8 * PAGE  # bytes that are asked for together
UNREAD = (-np.inf, 0.0, np.inf)  # reference, total and bound of a row
ROUNDING = 2.0**-50  # of float64 arithmetic on a few terms, relative to the largest


# For the elements of a block that do not lie side by side, or the lanes of sixteen rows.
scratch_memory = stack_memory(BLOCK * 8)


def _pointer(ctype):
    @intrinsic
    def pointer(typingctx, address):
        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(ctype)(types.int64), codegen

    return pointer


as_f32, as_f64, as_i64, as_i32, as_u16, as_u8 = (
    _pointer(ctype)
    for ctype in (types.float32, types.float64, types.int64, types.int32, types.uint16, types.uint8)
)


@njit
def size_of(code):
    """Return the bytes of an element."""
    if code in (F64, I64):
        return 8
    return 2 if code in (BF16, F16) else 4


@njit
def load_float(address, code):
    """Return the float32 or float64 at an address as float64."""
    if code == F64:
        return carray(as_f64(address), 1)[0]
    return float64(carray(as_f32(address), 1)[0])


@njit
def load_integer(address, code):
    """Return the int64 or int32 at an address."""
    if code == I64:
        return carray(as_i64(address), 1)[0]
    return np.int64(carray(as_i32(address), 1)[0])


@njit
def store_float(address, code, value):
    """Write a float64, rounded to float32 unless the code is F64."""
    if code == F64:
        carray(as_f64(address), 1)[0] = value
    else:
        carray(as_f32(address), 1)[0] = float32(value)


@njit
def gather_block(source, stride, length, size, scratch):
    """Copy elements that do not lie side by side into the scratch memory."""
    if size == 2:
        halves = carray(as_u16(scratch), BLOCK)
        for i in range(length):
            halves[i] = carray(as_u16(source + i * stride), 1)[0]
    elif size == 4:
        words = carray(as_i32(scratch), BLOCK)
        for i in range(length):
            words[i] = carray(as_i32(source + i * stride), 1)[0]
    else:
        longs = carray(as_i64(scratch), BLOCK)
        for i in range(length):
            longs[i] = carray(as_i64(source + i * stride), 1)[0]


@njit
def bound_of(z, reference, scale, headroom):
    """Return ``2**((z - reference) * scale + headroom)``, rounded up."""
    octaves = (z - reference) * scale
    return 2.0 ** (octaves + abs(octaves) * ROUNDING + headroom)


@njit
def count_parts(V, order):
    """Return how many parts of a row are summed one after the other."""
    if order != 0:
        return -(-V // ORDER_BLOCK)
    if V > BLOCK:
        return FIRST_PARTS - 1 - (-V // BLOCK)
    parts, end = 1, HEAD
    while end < V:
        parts, end = parts + 1, end << GROWTH
    return parts


@njit
def part_of(part, V, order):
    """Return where a part begins and how long it is; ``order`` is an address of int64, or 0."""
    if order != 0:
        start = carray(as_i64(order), part + 1)[part] * ORDER_BLOCK
        return start, min(ORDER_BLOCK, V - start)
    if part < FIRST_PARTS:
        start, end = 0 if part == 0 else HEAD << GROWTH * (part - 1), HEAD << GROWTH * part
    else:
        start = (part - FIRST_PARTS + 1) * BLOCK
        end = start + BLOCK
    return start, min(end, V) - start


_store_f32, _store_f64 = storer("f32"), storer("f64")


def asker(size):
    """Return ``ask_ahead(address)``: of the next window, prefetch what a step reads of this one.

    The bytes of a step become lines of ``size`` pages of the next window, eight pages in all.
    """
    groups = 8 // size

    @njit
    @named(f"ask_ahead_{size}")
    def ask_ahead(address):
        step = (address % WINDOW) // (STEP * size)
        window = address - address % WINDOW + WINDOW
        line = window + (step % groups) * size * PAGE + (step // groups) * LINE
        for page in range(size):
            prefetch(line + page * PAGE)

    return ask_ahead


def _totals_of(dtype, size, scalar):
    """Return ``row_total`` and ``short_totals`` for one dtype of logits."""
    load, load_part, ask_ahead = loader(dtype), part_loader(dtype), asker(size)
    store = _store_f64 if dtype == "f64" else _store_f32
    width = LANES * (8 if dtype == "f64" else 4)
    low, zero = scalar(-np.inf), scalar(0.0)

    @njit
    @named(f"block_sum_{dtype}")
    def block_sum(block, length, reference, scale, bound, near):
        """Return the lanes of the sum of a block, or of the part of it that is above the bound.

        Asks for what lies ``near`` bytes ahead or, where that is 0, for the next window.
        """
        base, factor = splat(scalar(reference)), splat(scalar(scale))
        s0, s1, s2, s3 = splat(zero), splat(zero), splat(zero), splat(zero)
        whole = length - length % STEP
        for check in range(0, whole, CHECK):
            for i in range(check, min(check + CHECK, whole), STEP):
                at = block + i * size
                if near != 0:
                    for line in range(size):
                        prefetch(at + near + line * LINE)
                else:
                    ask_ahead(at)
                s0 = s0 + exp2((load(at) - base) * factor)
                s1 = s1 + exp2((load(at + 16 * size) - base) * factor)
                s2 = s2 + exp2((load(at + 32 * size) - base) * factor)
                s3 = s3 + exp2((load(at + 48 * size) - base) * factor)
            if bound < np.inf:
                part = (s0 + s1) + (s2 + s3)
                if float64(reduce_add(part)) > bound:
                    return part
        for i in range(whole, length, 16):
            z = load_part(block + i * size, first_lanes(length - i))
            s0 = s0 + exp2((z - base) * factor)
        return (s0 + s1) + (s2 + s3)

    @njit
    @named(f"block_top_{dtype}")
    def block_top(block, length):
        """Return the lanes of the maximum of a block, and which of them met a NaN."""
        m0, m1, m2, m3 = splat(low), splat(low), splat(low), splat(low)
        nan = isnan(m0)
        whole = length - length % STEP
        for i in range(0, whole, STEP):
            at = block + i * size
            z0, z1 = load(at), load(at + 16 * size)
            z2, z3 = load(at + 32 * size), load(at + 48 * size)
            nan = nan | isnan(z0) | isnan(z1) | isnan(z2) | isnan(z3)
            m0, m1, m2, m3 = maximum(z0, m0), maximum(z1, m1), maximum(z2, m2), maximum(z3, m3)
        for i in range(whole, length, 16):
            z = load_part(block + i * size, first_lanes(length - i))
            nan = nan | isnan(z)
            m0 = maximum(z, m0)
        return maximum(maximum(m0, m1), maximum(m2, m3)), nan

    @njit
    @named(f"row_total_{dtype}")
    def row_total(row, stride, V, scale, scratch, z, headroom, order, begin, end, ahead, state):
        """Return (reference, Σ 2**((z - reference) * scale), bound of the sum, parts read).

        NaN for a row without a softmax. ``state`` is what was returned before part ``begin``.

        The reference is the maximum of the first part. A later one is summed against it as well,
        unless its sum says that a logit lies so far above that float32 would round it more, or is
        NaN or +inf: then its own maximum becomes the reference and it is summed again. What is
        read of the row ends where the total passes that of ``z`` by ``headroom`` octaves. What is
        asked for is ``ahead`` bytes ahead or, if that is 0, the part or window that follows.
        """
        reference, total, bound = state
        for part in range(begin, end):
            start, length = part_of(part, V, order)
            near = ahead
            if order != 0 and ahead == 0:
                following, _ = part_of(min(part + 1, end - 1), V, order)
                near = (following - start) * stride
            block = row + start * stride
            if stride != size:
                gather_block(block, stride, length, size, scratch)
                block = scratch
            added = LIMIT
            if reference > -np.inf:
                lanes = block_sum(block, length, reference, scale, bound - total, near)
                added = float64(reduce_add(lanes))
            if added >= LIMIT:
                tops, nan = block_top(block, length)
                top = float64(reduce_max(tops))
                if count(nan) > 0 or top == np.inf:
                    return np.nan, np.nan, bound, part
                if top == -np.inf:
                    continue
                if total > 0.0:
                    total *= 2.0 ** ((reference - top) * scale)
                reference = top
                if headroom < np.inf:
                    bound = bound_of(z, reference, scale, headroom)
                lanes = block_sum(block, length, reference, scale, bound - total, near)
                added = float64(reduce_add(lanes))
            total += added
            if total > bound:
                return reference, total, bound, part
        return reference, total, bound, end

    @njit
    @named(f"short_totals_{dtype}")
    def short_totals(rows, wanted, V, scale, scratch, references, totals):
        """Write what ``row_total`` returns of the wanted ones of sixteen rows of one part.

        ``rows`` is the address of their addresses, side by side; bit n of ``wanted`` is row n.
        The lanes of all rows are reduced together, in the order of one.
        """
        row, whole = carray(as_i64(rows), LANES), first_lanes(LANES)
        for lane in range(LANES):
            if wanted >> lane & 1:
                tops, _ = block_top(row[lane], V)
                store(scratch + lane * width, whole, tops)
        tops = widen(reduce_rows_max(scratch, splat(zero)))
        _store_f64(references, whole, tops)
        top = carray(as_f64(references), LANES)
        for lane in range(LANES):
            if wanted >> lane & 1:
                sums = block_sum(row[lane], V, top[lane], scale, np.inf, 0)
                store(scratch + lane * width, whole, sums)
        sums = widen(reduce_rows_add(scratch, splat(zero)))
        # A NaN, a +inf or nothing but -inf sums to more than any row of numbers.
        numbers = sums < splat(LIMIT)
        _store_f64(references, whole, select(numbers, tops, splat(np.nan)))
        _store_f64(totals, whole, select(numbers, sums, splat(np.nan)))

    return row_total, short_totals


_total_f32, _short_f32 = _totals_of("f32", 4, float32)
_total_bf16, _short_bf16 = _totals_of("bf16", 2, float32)
_total_f16, _short_f16 = _totals_of("f16", 2, float32)
_total_f64, _short_f64 = _totals_of("f64", 8, float64)
_part_bf16, _part_f16 = part_loader("bf16"), part_loader("f16")


@njit
def some_total(row, code, stride, V, scale, scratch, z, headroom, order, begin, end, ahead, state):
    """Return (reference, total, bound, parts read) of parts of a row of any dtype."""
    arguments = (row, stride, V, scale, scratch, z, headroom, order, begin, end, ahead, state)
    if code == F32:
        return _total_f32(*arguments)
    if code == BF16:
        return _total_bf16(*arguments)
    if code == F16:
        return _total_f16(*arguments)
    return _total_f64(*arguments)


@njit
def row_total(row, code, stride, V, scale, scratch, z=0.0, headroom=np.inf, order=0):
    """Return (reference, total, parts read) of a row of any dtype; NaN if it has no softmax."""
    parts = count_parts(V, order)
    reference, total, _, read = some_total(
        row, code, stride, V, scale, scratch, z, headroom, order, 0, parts, 0, UNREAD
    )
    if not reference > -np.inf:
        return np.nan, np.nan, read
    return reference, total, read


@njit
def is_short(V, stride, order):
    """Say whether ``short_totals`` serves rows of V columns, ``stride`` elements apart."""
    return V <= HEAD and stride == 1 and order == 0


@njit
def short_totals(rows, wanted, code, V, scale, scratch, references, totals):
    """Write (reference, total) of the wanted ones of sixteen short rows of any dtype."""
    arguments = (rows, wanted, V, scale, scratch, references, totals)
    if code == F32:
        _short_f32(*arguments)
    elif code == BF16:
        _short_bf16(*arguments)
    elif code == F16:
        _short_f16(*arguments)
    else:
        _short_f64(*arguments)


@njit
def ask(address, length):
    """Prefetch bytes."""
    for line in range(address, address + length, LINE):
        prefetch(line)


@njit
def load_logit(address, code):
    """Return one logit as float64."""
    if code == F32:
        return float64(carray(as_f32(address), 1)[0])
    if code == BF16:
        return float64(first(_part_bf16(address, first_lanes(1))))
    if code == F16:
        return float64(first(_part_f16(address, first_lanes(1))))
    return carray(as_f64(address), 1)[0]
