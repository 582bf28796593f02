"""Numba intrinsics of sixteen lanes: exp2 and the natural logarithm, as exact as the lanes."""

import math
from functools import cache

from llvmlite import ir

from rskernels.kernels.cpu.simd.target import assembly_of
from rskernels.kernels.cpu.simd.vectors import (
    DOUBLE,
    FLOAT,
    I16,
    I32,
    I64,
    LANES,
    call,
    constant,
    lanes,
    suffix,
    wide,
)

# Minimax 2**f with p(0) = 1: on [0, 1) off by 8.3e-8 of itself, as much as float32 rounds by, and
# on [-1/2, 1/2] by 1.8e-17.
EXP2_F32 = (
    1.0,
    0.693151311807529,
    0.240164450134252,
    0.0557999131525845,
    0.00901703027594357,
    0.0018671300855345,
)
EXP2_F64 = (
    1.0,
    0.693147180559945697,
    0.24022650695910098,
    0.0555041086647903957,
    0.00961812910760700278,
    0.00133335581534397384,
    0.000154035304415714747,
    0.000015252727385381208,
    1.32154426757135083e-6,
    1.01806475915846818e-7,
    7.07257034058684414e-9,
    4.07808083299351659e-10,
)
# Minimax (log(1+f) - f + f*f/2) / f**3 on [sqrt(1/2)-1, sqrt(2)-1]; log is off by 5.8e-9 of itself.
LOG_F32 = (
    0.333333317159,
    -0.250008211226,
    0.200012260246,
    -0.166233538486,
    0.142017762096,
    -0.131602337149,
    0.127614682632,
    -0.0763422573871,
)
# Minimax (log((1+s)/(1-s)) - 2*s) / s**3 in s*s, for the same f = 2*s/(1-s); off by 1.2e-18.
LOG_F64 = (
    0.666666666666673441,
    0.399999999994146757,
    0.285714287423880125,
    0.222221985731577179,
    0.181835643270070245,
    0.153140505394718475,
    0.147959497465041091,
)
X86 = "llvm.x86.avx512.mask"
# An instruction of AVX-512 DQ, where the processor has it.
CONVERT = """
define <8 x double> @convert(<8 x i64> %x) {
  %y = sitofp <8 x i64> %x to <8 x double>
  ret <8 x double> %y
}
"""
LN2_HIGH, LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10  # 32 bits, and the rest

# lane type: lowest and highest exponent that stay finite, mantissa bits, integer type
EXP2 = {FLOAT: (-125.0, 127.0, 23, I32), DOUBLE: (-1021.0, 1023.0, 52, I64)}
# lane type: integer type, mantissa bits, bits of sqrt(1/2), smallest normal number
LOG = {
    FLOAT: (I32, 23, 0x3F3504F3, 2.0**-126),
    DOUBLE: (I64, 52, 0x3FE6A09E667F3BCD, 2.0**-1022),
}


def horner(builder, coefficients, x):
    """Emit the polynomial with the given coefficients, lowest first, at ``x``."""
    value = constant(x.type, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        term = constant(x.type, coefficient)
        value = call(builder, f"llvm.fmuladd.{suffix(x.type)}", x.type, value, x, term)
    return value


@lanes(lambda x: x)
def exp2(builder, x):
    """``2**x``; beyond the exponents of normal numbers what is smaller, or larger, than those.

    NaN gives NaN or the largest power: a sum that holds one is then looked at again.
    """
    if x.type.element is DOUBLE:
        return _exp2_f64(builder, x)
    return (_exp2_f32_scaled if scales_by_powers() else _exp2_f32_added)(builder, x)


def _exp2_f64(builder, x):
    """Emit 2**x of doubles."""
    x = _clamped(builder, x)
    # Adding it leaves round(x) in the low bits.
    magic = constant(x.type, 1.5 * 2**52)
    shifted = builder.fadd(x, magic)
    fraction = builder.fsub(x, builder.fsub(shifted, magic))
    whole = builder.bitcast(shifted, wide(I64))
    return _times_power(builder, horner(builder, EXP2_F64, fraction), whole)


def _exp2_f32_scaled(builder, x):
    """Emit 2**x by two instructions beside the polynomial, which need no clamp."""
    every, current_rounding = ir.Constant(I16, -1), ir.Constant(I32, 4)
    # x - floor(x), rounded downwards, without a floating-point exception.
    downwards = ir.Constant(I32, 9)
    fraction = call(
        builder, f"{X86}.reduce.ps.512", x.type, x, downwards, x, every, current_rounding
    )
    value = horner(builder, EXP2_F32, fraction)
    return call(builder, f"{X86}.scalef.ps.512", x.type, value, x, x, every, current_rounding)


def _exp2_f32_added(builder, x):
    """Emit 2**x with the bits of ``_exp2_f32_scaled``, by adding to the exponent."""
    x = _clamped(builder, x)
    floor = call(builder, f"llvm.floor.{suffix(x.type)}", x.type, x)
    fraction = builder.fsub(x, floor)
    rounded_up = builder.fcmp_ordered(">", builder.fadd(fraction, floor), x)
    bits = builder.add(builder.bitcast(fraction, wide(I32)), builder.sext(rounded_up, wide(I32)))
    value = horner(builder, EXP2_F32, builder.bitcast(bits, x.type))
    return _times_power(builder, value, builder.fptosi(floor, wide(I32)))


def _clamped(builder, x):
    """Emit x between the exponents that stay finite, and the highest one for NaN."""
    lowest, highest, _, _ = EXP2[x.type.element]
    low, high = constant(x.type, lowest), constant(x.type, highest)
    x = builder.select(builder.fcmp_ordered("<", x, high), x, high)
    return builder.select(builder.fcmp_ordered(">", x, low), x, low)


def _times_power(builder, value, whole):
    """Emit value * 2**whole, by what is in the low bits of ``whole``."""
    _, _, mantissa_bits, integer = EXP2[value.type.element]
    power = builder.shl(whole, constant(wide(integer), mantissa_bits))
    bits = builder.add(builder.bitcast(value, wide(integer)), power)
    return builder.bitcast(bits, value.type)


@cache
def scales_by_powers():
    """Say whether the processor that is compiled for has AVX-512 DQ."""
    return "vcvtqq2pd" in assembly_of(CONVERT)


def _log_near_one_f32(builder, f, power):
    number = lambda value: constant(f.type, value)  # noqa: E731
    cube = builder.fmul(builder.fmul(f, f), f)
    tail = builder.fmul(horner(builder, LOG_F32, f), cube)
    tail = builder.fsub(tail, builder.fmul(number(0.5), builder.fmul(f, f)))
    fused = f"llvm.fmuladd.{suffix(f.type)}"
    return call(builder, fused, f.type, power, number(math.log(2)), builder.fadd(f, tail))


def _log_near_one_f64(builder, f, power):
    number = lambda value: constant(f.type, value)  # noqa: E731
    s = builder.fdiv(f, builder.fadd(f, number(2.0)))
    square = builder.fmul(s, s)
    tail = builder.fmul(horner(builder, LOG_F64, square), square)
    half = builder.fmul(number(0.5), builder.fmul(f, f))
    # log(1+f) = f - (half - s*(half + tail)), and what is small is added first.
    small = builder.fmul(s, builder.fadd(half, tail))
    small = builder.fadd(small, builder.fmul(power, number(LN2_LOW)))
    near = builder.fsub(f, builder.fsub(half, small))
    return builder.fadd(builder.fmul(power, number(LN2_HIGH)), near)


def _log_of_normal(builder, x):
    integer, mantissa_bits, sqrt_half, _ = LOG[x.type.element]
    words = wide(integer)
    width = constant(words, mantissa_bits)
    bits = builder.bitcast(x, words)
    exponent = builder.ashr(builder.sub(bits, constant(words, sqrt_half)), width)
    mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, width)), x.type)
    near_one = _log_near_one_f64 if x.type.element is DOUBLE else _log_near_one_f32
    return near_one(
        builder, builder.fsub(mantissa, constant(x.type, 1.0)), builder.sitofp(exponent, x.type)
    )


@lanes(lambda x: x)
def log_of_normal(builder, x):
    """Natural logarithm of normal positive numbers."""
    return _log_of_normal(builder, x)


@lanes(lambda x: x)
def log(builder, x):
    """Natural logarithm: log 0 is -inf, log of a negative number or NaN is NaN."""
    _, mantissa_bits, _, smallest = LOG[x.type.element]
    number = lambda value: constant(x.type, value)  # noqa: E731
    normal = builder.and_(
        builder.fcmp_ordered(">=", x, number(smallest)),
        builder.fcmp_ordered("<", x, number(math.inf)),
    )
    plain = _log_of_normal(builder, x)
    all_normal = builder.icmp_unsigned("==", builder.bitcast(normal, I16), I16(2**LANES - 1))
    before = builder.block
    with builder.if_then(builder.not_(all_normal), likely=False):
        octaves = mantissa_bits + 1.0
        lifted = _log_of_normal(builder, builder.fmul(x, number(2.0**octaves)))
        lifted = builder.fsub(lifted, number(octaves * math.log(2)))
        value = builder.select(normal, plain, lifted)
        infinite = builder.fcmp_ordered("==", x, number(math.inf))
        value = builder.select(infinite, x, value)
        positive = builder.fcmp_ordered(">", x, number(0.0))
        value = builder.select(positive, value, number(math.nan))
        zero = builder.fcmp_ordered("==", x, number(0.0))
        value = builder.select(zero, number(-math.inf), value)
        special = builder.block
    result = builder.phi(x.type)
    result.add_incoming(plain, before)
    result.add_incoming(value, special)
    return result
