"""Sixteen halves, bf16 and float16, as their bits and as float32."""

from functools import cache

from rskernels.kernels.cpu.simd.target import assembly_of
from rskernels.kernels.cpu.simd.vectors import FLOAT, HALF, I16, I32, constant, wide

# What LLVM calls where the processor has no instruction; no process has it.
MISSING = "__extendhfsf2"
WIDEN = """
define <16 x float> @widen(<16 x half> %x) {
  %y = fpext <16 x half> %x to <16 x float>
  ret <16 x float> %y
}
"""
REBIAS = 112 << 23  # from float16's exponent to float32's
SMALLEST_NORMAL = 2.0**-14


@cache
def converts_float16():
    """Say whether the processor that is compiled for has instructions for float16."""
    return MISSING not in assembly_of(WIDEN)


def bf16_to_f32(builder, bits):
    """Emit float32 of the bits of bf16."""
    words = builder.zext(bits, wide(I32))
    return builder.bitcast(builder.shl(words, constant(wide(I32), 16)), wide(FLOAT))


def f32_to_bf16(builder, value):
    """Emit the bits of bf16, rounded to nearest, ties to even."""
    bits = builder.bitcast(value, wide(I32))
    sixteen, one = constant(wide(I32), 16), constant(wide(I32), 1)
    odd = builder.and_(builder.lshr(bits, sixteen), one)
    rounded = builder.add(bits, builder.add(odd, constant(wide(I32), 0x7FFF)))
    nan = builder.fcmp_unordered("uno", value, value)
    kept = builder.select(nan, constant(wide(I32), 0x7FC00000), rounded)
    return builder.trunc(builder.lshr(kept, sixteen), wide(I16))


def f16_to_f32(builder, bits):
    """Emit float32 of the bits of float16."""
    if converts_float16():
        return builder.fpext(builder.bitcast(bits, wide(HALF)), wide(FLOAT))
    return widen_by_bits(builder, bits)


def f32_to_f16(builder, value):
    """Emit the bits of float16, rounded to nearest, ties to even."""
    if converts_float16():
        return builder.bitcast(builder.fptrunc(value, wide(HALF)), wide(I16))
    return narrow_by_bits(builder, value)


def widen_by_bits(builder, bits):
    """Emit ``f16_to_f32`` of integer arithmetic."""
    word = lambda value: constant(wide(I32), value)  # noqa: E731
    bits = builder.zext(bits, wide(I32))
    sign = builder.shl(builder.and_(bits, word(0x8000)), word(16))
    exponent = builder.and_(bits, word(0x7C00))
    magnitude = builder.shl(builder.and_(bits, word(0x7FFF)), word(13))
    magnitude = builder.add(magnitude, word(REBIAS))
    is_special = builder.icmp_unsigned("==", exponent, word(0x7C00))
    # Infinity and NaN have the largest exponent of either; a NaN becomes a quiet one.
    special = builder.add(magnitude, word(REBIAS))
    is_nan = builder.icmp_unsigned(">", special, word(0x7F800000))
    special = builder.select(is_nan, builder.or_(special, word(0x400000)), special)
    normal = builder.select(is_special, special, magnitude)
    # A subnormal is the excess over 2**-14 once its bits stand behind that exponent.
    shifted = builder.bitcast(builder.add(magnitude, word(1 << 23)), wide(FLOAT))
    subnormal = builder.fsub(shifted, constant(wide(FLOAT), SMALLEST_NORMAL))
    is_small = builder.icmp_unsigned("==", exponent, word(0))
    small = builder.bitcast(subnormal, wide(I32))
    return builder.bitcast(builder.or_(builder.select(is_small, small, normal), sign), wide(FLOAT))


def narrow_by_bits(builder, value):
    """Emit ``f32_to_f16`` of integer arithmetic."""
    word = lambda value: constant(wide(I32), value)  # noqa: E731
    bits = builder.bitcast(value, wide(I32))
    magnitude = builder.and_(bits, word(0x7FFFFFFF))
    sign = builder.lshr(builder.xor(bits, magnitude), word(16))
    cut = builder.lshr(magnitude, word(13))
    odd = builder.and_(cut, word(1))
    rounded = builder.add(magnitude, builder.add(odd, word(0xFFF)))
    normal = builder.lshr(builder.sub(rounded, word(REBIAS)), word(13))
    # Added to 1/2, whose last bit is worth 2**-24, a subnormal is rounded by the addition.
    half = constant(wide(FLOAT), 0.5)
    shifted = builder.fadd(builder.bitcast(magnitude, wide(FLOAT)), half)
    small = builder.sub(builder.bitcast(shifted, wide(I32)), builder.bitcast(half, wide(I32)))
    is_small = builder.icmp_unsigned("<", magnitude, word(113 << 23))
    result = builder.select(is_small, small, normal)
    is_large = builder.icmp_unsigned(">=", magnitude, word(143 << 23))
    result = builder.select(is_large, word(0x7C00), result)
    is_nan = builder.icmp_unsigned(">", magnitude, word(0x7F800000))
    nan = builder.or_(builder.and_(cut, word(0x3FF)), word(0x7E00))
    result = builder.or_(builder.select(is_nan, nan, result), sign)
    return builder.trunc(result, wide(I16))
