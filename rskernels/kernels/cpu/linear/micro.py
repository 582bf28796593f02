"""The innermost loop of a product, as an intrinsic: a few columns by one or two vectors of rows.

A library's products sum in an order that may depend on the batch and on the threads, write bf16 for
bf16 and heed switches of torch's. Here a logit is one sum, over sections of ``SECTION`` features
and in the order of the features, whichever rows it is made with. The rows lie in the lanes, packed
side by side for each feature, and the weight is read as it lies in memory, a number for all lanes.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rskernels.kernels.cpu.linear.store import store_rows
from rskernels.kernels.cpu.simd.functions import scales_by_powers
from rskernels.kernels.cpu.simd.target import assembly_of
from rskernels.kernels.cpu.simd.vectors import DOUBLE, FLOAT, I8, I32, I64, call, suffix

FEW = 4  # rows at most that are multiplied by columns in the lanes
AHEAD = 16  # words: where those of a column lie apart, what is fetched before it is multiplied
SECTION = 256  # features that are summed before they are added: fewer roundings follow each other
NARROW = """
define <16 x bfloat> @narrow(<16 x float> %x) {
  %y = fptrunc <16 x float> %x to <16 x bfloat>
  ret <16 x bfloat> %y
}
"""


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bf16, which llvmlite has not."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


@cache
def multiplies_bf16() -> bool:
    """Say whether the processor that is compiled for multiplies bf16 and adds up float32."""
    return "vcvtneps2bf16" in assembly_of(NARROW)


class Factor(NamedTuple):
    """What is multiplied: a word of each factor at a time, which bf16 shares by two features."""

    name: str
    size: int
    """Bytes of a word."""
    features: int
    """In a word."""
    lanes: int
    """Rows of a vector."""

    @property
    def lane(self):
        """Return LLVM's type of what is added up."""
        return DOUBLE if self.name == "f64" else FLOAT

    @property
    def wide(self) -> Factor:
        """What is multiplied in the precision of the sums."""
        return FACTORS["f64" if self.name == "f64" else "f32"]._replace(lanes=self.lanes)

    @property
    def group(self) -> int:
        """How many rows are packed together: as many as are multiplied together at most."""
        return FACTORS[self.name].lanes * tile_of()[1]

    @property
    def piece(self) -> int:
        """How many words of a column are transposed together, for a few rows."""
        return 16 // self.size

    @property
    def word(self):
        """Return LLVM's type of what is loaded."""
        return I32 if self.name == "bf16" else self.lane


FACTORS = {
    factor.name: factor
    for factor in (Factor("f32", 4, 1, 16), Factor("f64", 8, 1, 8), Factor("bf16", 4, 2, 16))
}


@cache
def tile_of() -> tuple[int, int]:
    """Return (columns, vectors of rows) whose sums find place in the processor's registers."""
    return (8, 2) if scales_by_powers() else (4, 1)


def emit_times(builder, factor, sums, rows, number):
    """Emit ``sums + rows * number``."""
    if factor.name == "bf16":
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * factor.lanes}"
        pairs = ir.VectorType(_BFloat(), 2 * factor.lanes)
        factors = builder.bitcast(rows, pairs), builder.bitcast(number, pairs)
        return call(builder, name, sums.type, sums, *factors)
    return call(builder, f"llvm.fmuladd.{suffix(sums.type)}", sums.type, rows, number, sums)


def spread(builder, word, lanes):
    """Emit a word in every lane."""
    undefined = ir.Constant(ir.VectorType(word.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, word, I32(0))
    nowhere = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    return builder.shuffle_vector(first, undefined, nowhere)


def _prefetch(builder, word):
    byte = builder.bitcast(word, I8.as_pointer())
    call(builder, "llvm.prefetch.p0", ir.VoidType(), byte, I32(0), I32(3), I32(1))


def _section(builder, factor, begin, end, rows, columns, ahead, shape):
    """Emit the loop over words ``begin`` to ``end``; return the sums of columns by vectors."""
    step, vectors, apart = shape
    vector = ir.VectorType(factor.lane, factor.lanes)
    before, loop = builder.block, builder.append_basic_block("words")
    after = builder.append_basic_block("section")
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(I64)
    at.add_incoming(begin, before)
    sums = [builder.phi(vector) for _ in range(len(columns) * vectors)]
    for one in sums:
        one.add_incoming(ir.Constant(vector, [0.0] * factor.lanes), before)
    if ahead is not None:
        # Where rows of the weight follow each other, the lines of the next tile, each twice.
        _prefetch(builder, builder.gep(ahead, [builder.mul(at, I64(len(columns)))]))
    elif apart is not None:
        # A line holds the word of all columns, and no processor foresees one a row further on.
        far = builder.mul(builder.add(at, I64(AHEAD)), apart)
        _prefetch(builder, builder.gep(columns[0], [far]))
    place = builder.mul(at, I64(step))
    held = [
        builder.load(builder.gep(rows, [builder.add(place, I64(v))]), align=4)
        for v in range(vectors)
    ]
    added = []
    there = at if apart is None else builder.mul(at, apart)
    for c, column in enumerate(columns):
        word = builder.load(builder.gep(column, [there]), align=2 if factor.features > 1 else 4)
        number = spread(builder, word, factor.lanes)
        for v in range(vectors):
            added.append(emit_times(builder, factor, sums[c * vectors + v], held[v], number))
    following = builder.add(at, I64(1))
    at.add_incoming(following, loop)
    for one, more in zip(sums, added, strict=True):
        one.add_incoming(more, loop)
    builder.cbranch(builder.icmp_signed("<", following, end), loop, after)
    builder.position_at_end(after)
    return added


def emit_sections(builder, factor, totals, words, section):
    """Emit the sum over all words, section by section, added to ``totals``.

    ``section(begin, end)`` emits a section's sums. Every product adds up so: a logit has the same
    bits by each of them.
    """
    step = I64(SECTION // factor.features)
    before, head = builder.block, builder.append_basic_block("sections")
    body, after = builder.append_basic_block("more"), builder.append_basic_block("summed")
    builder.branch(head)
    builder.position_at_end(head)
    begin = builder.phi(I64)
    begin.add_incoming(I64(0), before)
    held = [builder.phi(total.type) for total in totals]
    for one, total in zip(held, totals, strict=True):
        one.add_incoming(total, before)
    builder.cbranch(builder.icmp_signed("<", begin, words), body, after)
    builder.position_at_end(body)
    following = builder.add(begin, step)
    end = builder.select(builder.icmp_signed("<", following, words), following, words)
    sums = section(begin, end)
    for one, more in zip(held, sums, strict=True):
        one.add_incoming(builder.fadd(one, more), builder.block)
    begin.add_incoming(following, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return held


def emit_product(builder, factor, totals, rows, columns, words, shape):
    """Emit the sum over all words, section by section, added to ``totals``.

    ``rows`` and ``columns`` are pointers, the last of the latter to what is fetched ahead, or None.
    ``shape`` is how far apart the words of a row are, in vectors; how many vectors of rows there
    are; and how far apart the words of a column are, in words, or None where they lie side by side.
    """
    return emit_sections(
        builder, factor, totals, words,
        lambda begin, end: _section(
            builder, factor, begin, end, rows, columns[:-1], columns[-1], shape
        ),
    )  # fmt: skip


def product_of(factor, vectors):
    """Return ``product(rows, weight, low_rank, B, out)``, which multiplies a tile.

    The tile has so many vectors of rows. ``rows`` is (address, words) of packed rows, ``weight``
    (address, stride) of as many columns as a tile has; ``low_rank`` and ``B`` are the same of what
    is added, in the precision of the sums. The sums are written to ``out``, (address, stride).
    Strides are in bytes.
    """
    columns, step = tile_of()[0], factor.group // factor.lanes

    @intrinsic
    def product(typingctx, rows, weight, low_rank, B, out):
        def codegen(context, builder, signature, args):
            values = [[builder.extract_value(pair, at) for at in (0, 1)] for pair in args]
            vector = ir.VectorType(factor.lane, factor.lanes)
            totals = [ir.Constant(vector, [0.0] * factor.lanes)] * (columns * vectors)
            for kind, (packed, words), (address, stride) in (
                (factor, values[0], values[1]), (factor.wide, values[2], values[3]),
            ):  # fmt: skip
                held = ir.VectorType(kind.word, kind.lanes).as_pointer()
                places = [
                    builder.inttoptr(
                        builder.add(address, builder.mul(stride, I64(c))), kind.word.as_pointer()
                    )
                    for c in range(columns + 1)
                ]
                totals = emit_product(
                    builder, kind, totals, builder.inttoptr(packed, held), places, words,
                    (step, vectors, None),
                )  # fmt: skip
            store_rows(builder, factor, totals, columns, vectors, *values[4])
            return context.get_dummy_value()

        pair = types.UniTuple(types.int64, 2)
        return types.void(pair, pair, pair, pair, pair), codegen

    return product
