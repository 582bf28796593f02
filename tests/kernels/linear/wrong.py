"""Functions that are wrong, for the kernel of a few rows: ``original`` is what each replaces."""

from llvmlite import ir

from rskernels.kernels.cpu.simd.vectors import I32, I64

original = None  # bound where a function is planted


# kernels.cpu.linear.few._transposed
def of_lane_before(builder, rows):
    order = [0, 0, *range(2, rows[0].type.count)]
    indices = ir.Constant(ir.VectorType(I32, len(order)), order)
    return [builder.shuffle_vector(row, row, indices) for row in original(builder, rows)]


# kernels.cpu.linear.few._transposed and _join
def turned_round(builder, vectors):
    return original(builder, vectors[::-1])


# kernels.cpu.linear.few._section
def of_row_before(builder, factor, begin, end, rows, columns, ahead):
    sums = original(builder, factor, begin, end, rows, columns, ahead)
    return [*sums[:-1], sums[-2]]


# kernels.cpu.linear.few.emit_sections
def of_half_sections(builder, factor, totals, words, section):
    half = factor._replace(features=2 * factor.features)
    return original(builder, half, totals, words, section)


def of_last_sections(builder, factor, totals, words, section):
    def mirrored(begin, end):
        return section(builder.sub(words, end), builder.sub(words, begin))

    return original(builder, factor, totals, words, mirrored)


# kernels.cpu.linear.few._store
def as_it_was(builder, totals, address, stride, left):
    original(builder, totals, address, stride, left)


def without_last(builder, totals, address, stride, left):
    is_part = builder.icmp_signed("<", left, I64(totals[0].type.count))
    fewer = builder.select(is_part, builder.sub(left, I64(1)), left)
    original(builder, totals, address, stride, fewer)
