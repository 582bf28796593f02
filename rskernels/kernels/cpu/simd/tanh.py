"""The hyperbolic tangent of sixteen lanes, for the softcap."""

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.simd.functions import exp2, horner
from rskernels.kernels.cpu.simd.vectors import (
    DOUBLE,
    absolute,
    filled,
    fused,
    isnan,
    lanes,
    select,
)
from rskernels.law.numbers import LOG2_E

SMALL = 0.625  # below, 1 - 2/(exp(2x) + 1) loses digits
# (tanh x - x) / x**3 in x*x below SMALL, of Cephes' tanhf and, as a quotient, of its tanh.
TAIL_F32 = (
    -3.33332819422e-1,
    1.33314422036e-1,
    -5.37397155531e-2,
    2.06390887954e-2,
    -5.70498872745e-3,
)
TAIL_F64 = (-1.61468768441708447952e3, -9.92877231001918586564e1, -9.64399179425052238628e-1)
BELOW_F64 = (4.84406305325125486048e3, 2.23548839060100448583e3, 1.12811678491632931402e2, 1.0)


@lanes(lambda square: square)
def _tail(builder, square):
    if square.type.element is not DOUBLE:
        return horner(builder, TAIL_F32, square)
    return builder.fdiv(horner(builder, TAIL_F64, square), horner(builder, BELOW_F64, square))


@inner
def tanh(x):
    """Return the hyperbolic tangent of each lane; NaN of NaN."""
    size, square = absolute(x), x * x
    zero, one = filled(0.0, x), filled(1.0, x)
    far = one - filled(2.0, x) / (exp2(size * filled(2.0 * LOG2_E, x)) + one)
    far = select(x < zero, zero - far, far)
    near = fused(x * square, _tail(square), x)
    return select(isnan(x), x, select(size < filled(SMALL, x), near, far))
