"""The dtypes of logits, and numbers and rows at addresses.

One compiled function serves every dtype and layout: its arguments are a row's address, a code and
strides. So bf16, which NumPy does not know, needs no detour.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import carray, float32, float64, njit, types
from numba.extending import intrinsic

from rskernels.kernels.cpu.simd.memory import part_loader
from rskernels.kernels.cpu.simd.vectors import first, first_lanes, named

NONE, F32, F64, BF16, F16, I64, I32 = range(7)


class Element(NamedTuple):
    """A dtype of logits, as it is held and as it is computed with."""

    name: str
    size: int
    """Bytes of one."""
    scalar: Any
    """Numba's type of what is computed with, which is also what results are held in."""
    wide: str
    """Its name."""
    code: int

    @property
    def wide_size(self) -> int:
        """Bytes of a result."""
        return 8 if self.wide == "f64" else 4


ELEMENTS = (
    Element("f32", 4, float32, "f32", F32),
    Element("bf16", 2, float32, "f32", BF16),
    Element("f16", 2, float32, "f32", F16),
    Element("f64", 8, float64, "f64", F64),
)


def by_dtype(factory):
    """Return ``call(code, arguments)`` of the functions that a factory makes for the dtypes."""
    f32, bf16, f16, f64 = (factory(element) for element in ELEMENTS)

    @njit(inline="always")
    @named(f"{factory.__name__}_by_dtype")
    def call(code, arguments):
        if code == F32:
            return f32(*arguments)
        if code == BF16:
            return bf16(*arguments)
        if code == F16:
            return f16(*arguments)
        return f64(*arguments)

    return call


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


def _logit_loader(element):
    load_lanes, as_scalar = part_loader(element.name), as_f64 if element.size == 8 else as_f32
    is_half = element.size == 2

    @njit
    @named(f"load_logit_{element.name}")
    def load(address):
        if is_half:
            return float64(first(load_lanes(address, first_lanes(1))))
        return float64(carray(as_scalar(address), 1)[0])

    return load


_load_logit = by_dtype(_logit_loader)


@njit
def logit_at(row, column, stride, code):
    """Return a logit of the row at an address as float64; the stride is in elements."""
    return _load_logit(code, (row + column * stride * size_of(code),))


@njit
def target_at(targets, n):
    """Return the target of row ``n`` as int64."""
    address, code = targets
    return load_integer(address + n * size_of(code), code)


@njit
def row_address(place, n):
    """Return the address of row ``n``: (address, code, inner, outer and inner stride)."""
    address, code, inner, outer_stride, inner_stride = place
    size = size_of(code)
    if n < inner:
        return address + n * inner_stride * size
    return address + ((n // inner) * outer_stride + (n % inner) * inner_stride) * size
