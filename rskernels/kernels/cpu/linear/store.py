"""How the sums of a tile of a product leave the registers: by rows, or added by lanes."""

from llvmlite import ir

from rskernels.kernels.cpu.simd.vectors import I1, I32, I64, call, suffix


def store_rows(builder, factor, totals, columns, vectors, out, stride):
    """Emit the stores of rows, a few columns each: the lanes are transposed in log2 steps."""
    lanes = factor.lanes
    low, high = (
        ir.Constant(
            ir.VectorType(I32, lanes),
            [place for lane in range(start, start + lanes // 2) for place in (lane, lanes + lane)],
        )
        for start in (0, lanes // 2)
    )
    rows = lanes // columns
    for v in range(vectors):
        parts = totals[v::vectors]
        for _ in range(columns.bit_length() - 1):
            pairs = list(zip(parts[: columns // 2], parts[columns // 2 :], strict=True))
            parts = [builder.shuffle_vector(*pair, by) for pair in pairs for by in (low, high)]
        for n, part in enumerate(parts):
            for row in range(rows):
                order = list(range(row * columns, (row + 1) * columns))
                indices = ir.Constant(ir.VectorType(I32, columns), order)
                piece = builder.shuffle_vector(part, part, indices)
                at = builder.add(out, builder.mul(stride, I64(v * lanes + n * rows + row)))
                pointer = builder.inttoptr(at, piece.type.as_pointer())
                builder.store(piece, pointer, align=4)


def add_lanes(builder, factor, totals, columns, vectors, out, how):
    """Emit the stores of columns, a vector of lanes each, where these are and no further.

    ``out`` is (address, stride, lanes, columns) of those that are left, ``how`` (alpha, beta): what
    lies there is multiplied by beta, unless that is 0, and alpha times the sum is added.
    """
    address, stride, lanes_left, columns_left = out
    vector = totals[0].type
    mask = ir.VectorType(I1, factor.lanes)
    alpha, beta = (_everywhere(builder, number, vector) for number in how)
    is_fresh = builder.fcmp_ordered("==", how[1], ir.Constant(how[1].type, 0.0))
    none = ir.Constant(mask, None)
    numbers = ir.Constant(ir.VectorType(I32, factor.lanes), list(range(factor.lanes)))
    left = builder.trunc(lanes_left, I32)
    kind = suffix(vector)
    for v in range(vectors):
        first = builder.add(numbers, _everywhere(builder, I32(v * factor.lanes), numbers.type))
        inside = builder.icmp_signed("<", first, _everywhere(builder, left, numbers.type))
        for c in range(columns):
            is_there = builder.icmp_signed("<", I64(c), columns_left)
            held = builder.select(is_there, inside, none)
            read = builder.select(is_fresh, none, held)
            place = builder.add(
                builder.add(address, builder.mul(stride, I64(c))),
                I64(v * factor.lanes * factor.size),
            )
            pointer = builder.inttoptr(place, vector.as_pointer())
            before = call(
                builder, f"llvm.masked.load.{kind}.p0", vector,
                pointer, I32(4), read, ir.Constant(vector, [0.0] * factor.lanes),
            )  # fmt: skip
            total = builder.fmul(totals[c * vectors + v], alpha)
            total = call(builder, f"llvm.fmuladd.{kind}", vector, before, beta, total)
            call(
                builder, f"llvm.masked.store.{kind}.p0", ir.VoidType(),
                total, pointer, I32(4), held,
            )  # fmt: skip


def _everywhere(builder, number, vector):
    """Emit a number in every lane of a vector."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, I32(0))
    nowhere = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, first, nowhere)
