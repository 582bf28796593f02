"""The dtypes of logits, and numbers and rows at addresses.

A kernel is compiled for one dtype of logits and serves every layout: its arguments are a row's
address and strides. So bf16, which NumPy does not know, needs no detour. What belongs to a row, as
densities, M and targets, has its dtype as a code beside its address.
"""

from functools import cache
from typing import Any, NamedTuple

from numba import float32, float64, types
from numba.extending import intrinsic

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.simd.memory import (
    part_loader,
    read_f32,
    read_f64,
    read_i32,
    read_i64,
    write_f32,
    write_f64,
)
from rskernels.kernels.cpu.simd.vectors import first, first_lanes, named
from rskernels.kernels.cpu.team import entry_of

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
    dtype: str
    """Its name in torch."""

    @property
    def wide_size(self) -> int:
        """Bytes of a result."""
        return 8 if self.wide == "f64" else 4


class Kernels(dict[int, Any]):
    """The kernels of a form by the codes of their elements, each made when it is first asked for.

    ``make(element)`` makes one. Once it is compiled, its entry is returned, without Numba's look at
    the type of every argument, which a small call feels: a float must be one at every call.
    """

    def __init__(self, make):
        super().__init__()
        self._make = make
        self._made = {}

    def __missing__(self, code):
        kernel = self._made.get(code)
        if kernel is None:
            element = next(element for element in ELEMENTS if element.code == code)
            # Of two threads' kernels, which would both be compiled, the first is kept.
            kernel = self._made.setdefault(code, self._make(element))
        for signature in kernel.signatures:
            self[code] = entry_of(kernel, signature)
            return self[code]
        return kernel


ELEMENTS = (
    Element("f32", 4, float32, "f32", F32, "float32"),
    Element("bf16", 2, float32, "f32", BF16, "bfloat16"),
    Element("f16", 2, float32, "f32", F16, "float16"),
    Element("f64", 8, float64, "f64", F64, "float64"),
)


def _pointer(ctype):
    @intrinsic
    def pointer(typingctx, address):
        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(ctype)(types.int64), codegen

    return pointer


as_f32, as_i64 = _pointer(types.float32), _pointer(types.int64)


@inner
def size_of(code):
    """Return the bytes of an element."""
    if code in (F64, I64):
        return 8
    return 2 if code in (BF16, F16) else 4


@inner
def load_float(address, code):
    """Return the float32 or float64 at an address as float64."""
    return read_f64(address, 0) if code == F64 else read_f32(address, 0)


@inner
def load_integer(address, code):
    """Return the int64 or int32 at an address."""
    return read_i64(address, 0) if code == I64 else read_i32(address, 0)


@inner
def store_float(address, code, value):
    """Write a float64, rounded to float32 unless the code is F64."""
    if code == F64:
        write_f64(address, 0, value)
    else:
        write_f32(address, 0, value)


@cache
def logit_of(element):
    """Return ``logit_at(row, column, stride)`` of an element.

    It returns a logit of the row at an address as float64; the stride is in elements.
    """
    load, read = part_loader(element.name), read_f64 if element.size == 8 else read_f32
    size, is_half = element.size, element.size == 2

    @inner
    @named(f"logit_at_{element.name}")
    def logit_at(row, column, stride):
        address = row + column * stride * size
        if is_half:
            return float64(first(load(address, first_lanes(1))))
        return read(address, 0)

    return logit_at


@inner
def target_at(targets, n):
    """Return the target of row ``n`` as int64."""
    address, code = targets
    return load_integer(address + n * size_of(code), code)


@inner
def row_address(place, n):
    """Return the address of row ``n``: (address, code, inner, outer and inner stride)."""
    address, code, inner, outer_stride, inner_stride = place
    size = size_of(code)
    if n < inner:
        return address + n * inner_stride * size
    return address + ((n // inner) * outer_stride + (n % inner) * inner_stride) * size
