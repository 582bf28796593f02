"""The product of a few rows with the weight, as fast as memory gives it: columns lie in the lanes.

Where rows lie in the lanes, most of these are empty if only a few rows are left, and every number
of the weight is an instruction. Here pieces of as many columns as there are lanes are read and
transposed. A logit is the same sum in the same order, so that its bits are those of ``micro``.
"""

from functools import partial

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rskernels.kernels.cpu.linear.micro import FEW, emit_sections, emit_times, spread
from rskernels.kernels.cpu.simd.vectors import FLOAT, I8, I32, I64, call, suffix


def _join(builder, parts):
    """Emit the concatenation of vectors, a power of two of them."""
    while len(parts) > 1:
        count = 2 * parts[0].type.count
        order = ir.Constant(ir.VectorType(I32, count), list(range(count)))
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [builder.shuffle_vector(*pair, order) for pair in pairs]
    return parts[0]


def _interleaved(builder, a, b, size, is_high):
    """Emit the low or high words of each piece of two vectors, in turn."""
    order = []
    for piece in range(0, a.type.count, size):
        for at in range(size // 2):
            place = piece + at + (size // 2 if is_high else 0)
            order += [place, a.type.count + place]
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(order)), order))


def _transposed(builder, rows):
    """Emit the transposes of the square pieces that vectors hold between them."""
    size = len(rows)
    half = size // 2
    for _ in range(size.bit_length() - 1):
        pairs = list(zip(rows[:half], rows[half:], strict=True))
        rows = [
            _interleaved(builder, a, b, size, is_high)
            for a, b in pairs
            for is_high in (False, True)
        ]
    return rows


def _section(builder, factor, begin, end, rows, columns, ahead):
    """Emit the loop over words ``begin`` to ``end``; return the sums of each row."""
    words = factor.piece
    vector, piece = (ir.VectorType(kind, n) for kind, n in (
        (factor.lane, factor.lanes), (factor.word, words),
    ))  # fmt: skip
    before, loop = builder.block, builder.append_basic_block("words")
    after = builder.append_basic_block("section")
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(I64)
    at.add_incoming(begin, before)
    sums = [builder.phi(vector) for _ in range(FEW)]
    for one in sums:
        one.add_incoming(ir.Constant(vector, [0.0] * factor.lanes), before)
    if ahead is not None:
        line = builder.bitcast(
            builder.gep(ahead, [builder.mul(at, I64(len(columns)))]), I8.as_pointer()
        )
        for byte in range(0, words * factor.size * len(columns), 64):
            place = builder.gep(line, [I64(byte)])
            call(builder, "llvm.prefetch.p0", ir.VoidType(), place, I32(0), I32(2), I32(1))
    pieces = [
        builder.load(
            builder.bitcast(builder.gep(column, [at]), piece.as_pointer()),
            align=2 if factor.features > 1 else factor.size,
        )
        for column in columns
    ]
    place = builder.mul(at, I64(FEW))
    held = _transposed(builder, [_join(builder, pieces[n::words]) for n in range(words)])
    added = sums
    for n, column in enumerate(held):
        numbers = [
            builder.load(builder.gep(rows, [builder.add(place, I64(n * FEW + row))]), align=4)
            for row in range(FEW)
        ]
        added = [
            emit_times(builder, factor, total, column, spread(builder, number, factor.lanes))
            for total, number in zip(added, numbers, strict=True)
        ]
    following = builder.add(at, I64(words))
    at.add_incoming(following, loop)
    for one, more in zip(sums, added, strict=True):
        one.add_incoming(more, loop)
    builder.cbranch(builder.icmp_signed("<", following, end), loop, after)
    builder.position_at_end(after)
    return added


def few_rows_of(factor):
    """Return ``product(rows, weight, low_rank, B, out)``, which multiplies a few packed rows.

    It takes what ``micro.product_of`` makes takes, and ``out`` as (address, stride, columns): those
    that are left are multiplied, a vector of them at most. The words of every factor make up whole
    pieces.
    """
    columns = factor.lanes

    @intrinsic
    def product(typingctx, rows, weight, low_rank, B, out):
        def codegen(context, builder, signature, args):
            values = [
                [builder.extract_value(pair, at) for at in range(signature.args[n].count)]
                for n, pair in enumerate(args)
            ]
            vector = ir.VectorType(factor.lane, factor.lanes)
            totals = [ir.Constant(vector, [0.0] * factor.lanes)] * FEW
            address, stride, left = values[4]
            last = builder.sub(left, I64(1))
            for kind, (packed, words), (start, apart) in (
                (factor, values[0], values[1]), (factor.wide, values[2], values[3]),
            ):  # fmt: skip
                word = kind.word.as_pointer()
                places = []
                for c in range(columns):
                    # In place of a column that is not there the last one is read.
                    is_there = builder.icmp_signed("<", I64(c), left)
                    at = builder.select(is_there, I64(c), last)
                    place = builder.add(start, builder.mul(apart, at))
                    places.append(builder.inttoptr(place, word))
                following = builder.add(start, builder.mul(apart, I64(columns * factor.features)))
                section = partial(
                    _section, builder, kind, rows=builder.inttoptr(packed, word), columns=places,
                    ahead=builder.inttoptr(following, word),
                )  # fmt: skip
                totals = emit_sections(builder, kind, totals, words, section)
            _store(builder, totals, address, stride, left)
            return context.get_dummy_value()

        pair = types.UniTuple(types.int64, 2)
        return types.void(pair, pair, pair, pair, types.UniTuple(types.int64, 3)), codegen

    return product


def _store(builder, totals, address, stride, left):
    """Emit the stores of rows, of the columns that are left."""
    vector = totals[0].type
    size = 4 if vector.element is FLOAT else 8
    numbers = ir.Constant(ir.VectorType(I32, vector.count), list(range(vector.count)))
    most = builder.trunc(left, I32)
    first = builder.insert_element(ir.Constant(numbers.type, ir.Undefined), most, I32(0))
    nowhere = ir.Constant(numbers.type, [0] * vector.count)
    inside = builder.icmp_signed("<", numbers, builder.shuffle_vector(first, first, nowhere))
    for row, total in enumerate(totals):
        place = builder.add(address, builder.mul(stride, I64(row)))
        pointer = builder.inttoptr(place, vector.as_pointer())
        name = f"llvm.masked.store.{suffix(vector)}.p0"
        call(builder, name, ir.VoidType(), total, pointer, I32(size), inside)
