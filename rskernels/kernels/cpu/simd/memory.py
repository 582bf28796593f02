"""Sixteen lanes in memory: loads and stores of every dtype, prefetches, and memory of a call."""

import math

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rskernels.kernels.cpu.simd.halves import bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16
from rskernels.kernels.cpu.simd.vectors import (
    BYTES,
    DOUBLE,
    FLOAT,
    I8,
    I16,
    I32,
    I64,
    call,
    constant,
    f32x16,
    f64x16,
    i64x16,
    lanes,
    suffix,
    wide,
)

ALIGNMENT = 64  # bytes of a cache line


@lanes(lambda address: types.void)
def prefetch(builder, address):
    """Ask for the cache line at an address; an address outside the tensor is harmless."""
    pointer = builder.inttoptr(address, I8.as_pointer())
    # Arguments: a read, to be kept in all cache levels but the first, of data.
    call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, I32(0), I32(2), I32(1))


def stack_memory(size):
    """Return an intrinsic that gives the address of that many bytes, for as long as a call lasts.

    Numba frees an array once it is no longer named, whoever still has its address. A kernel takes
    up to 64 KiB so: a thread that calls it needs a stack of 128 KiB, more than the 32 KiB which
    ``threading.stack_size`` allows.
    """

    @intrinsic
    def memory(typingctx):
        def codegen(context, builder, signature, args):
            with builder.goto_entry_block():
                pointer = builder.alloca(ir.ArrayType(I8, size))
            pointer.align = ALIGNMENT
            return builder.ptrtoint(pointer, I64)

        return types.int64(), codegen

    return memory


@lanes(lambda size: types.int64)
def take_memory(builder, size):
    """Return the address of that many bytes of the heap, 0 where there are none."""
    return builder.ptrtoint(call(builder, "malloc", I8.as_pointer(), size), I64)


@lanes(lambda address: types.void)
def free_memory(builder, address):
    """Give memory back that was taken."""
    call(builder, "free", ir.VoidType(), builder.inttoptr(address, I8.as_pointer()))


def numbers(stored, typed):
    """Return ``read(address, n)`` and ``write(address, n, value)`` of number n at an address.

    Numba's own arrays take it five times as long to compile.
    """

    def place(builder, address, n):
        return builder.gep(builder.inttoptr(address, stored.as_pointer()), [n])

    @lanes(lambda address, n: typed)
    def read(builder, address, n):
        value = builder.load(place(builder, address, n))
        if stored == FLOAT:
            return builder.fpext(value, DOUBLE)
        return builder.sext(value, I64) if stored in (I8, I16, I32) else value

    @lanes(lambda address, n, value: types.void)
    def write(builder, address, n, value):
        if stored == FLOAT:
            value = builder.fptrunc(value, FLOAT)
        elif stored in (I8, I16, I32):
            value = builder.trunc(value, stored)
        builder.store(value, place(builder, address, n))

    return read, write


# What is read as float64 or int64 and written as what is held.
read_f64, write_f64 = numbers(DOUBLE, types.float64)
read_f32, write_f32 = numbers(FLOAT, types.float64)
read_i64, write_i64 = numbers(I64, types.int64)
read_i32, write_i32 = numbers(I32, types.int64)
read_i16, write_i16 = numbers(I16, types.int64)
read_i8, write_i8 = numbers(I8, types.int64)


@lanes(lambda address, n, amount: types.void)
def add_f64(builder, address, n, amount):
    """Add a float64 or int64 to the float64 number n at an address."""
    if amount.type != DOUBLE:
        amount = builder.sitofp(amount, DOUBLE)
    pointer = builder.gep(builder.inttoptr(address, DOUBLE.as_pointer()), [n])
    builder.store(builder.fadd(builder.load(pointer), amount), pointer)


def _same(builder, value):
    return value


# How each dtype is held, its -inf, and how its lanes become the lanes that are computed with.
STORED = {
    "f32": (FLOAT, -math.inf, f32x16, _same, _same),
    "f64": (DOUBLE, -math.inf, f64x16, _same, _same),
    "bf16": (I16, 0xFF80, f32x16, bf16_to_f32, f32_to_bf16),
    "f16": (I16, 0xFC00, f32x16, f16_to_f32, f32_to_f16),
}


def loader(dtype):
    """Return ``load(address)`` of sixteen elements."""
    stored, _, vector, decode, _ = STORED[dtype]

    @lanes(lambda address: vector)
    def load(builder, address):
        pointer = builder.inttoptr(address, wide(stored).as_pointer())
        return decode(builder, builder.load(pointer, align=BYTES[stored]))

    return load


def part_loader(dtype):
    """Return ``load(address, inside)``: lanes outside the row are -inf and are not read."""
    stored, lowest, vector, decode, _ = STORED[dtype]

    @lanes(lambda address, inside: vector)
    def load(builder, address, inside):
        pointer = builder.inttoptr(address, wide(stored).as_pointer())
        absent = constant(wide(stored), lowest)
        name = f"llvm.masked.load.{suffix(wide(stored))}.p0"
        align = I32(BYTES[stored])
        return decode(builder, call(builder, name, wide(stored), pointer, align, inside, absent))

    return load


def storer(dtype):
    """Return ``store(address, inside, value)``: lanes outside the row are not written."""
    stored, _, _, _, encode = STORED[dtype]

    @lanes(lambda address, inside, value: types.void)
    def store(builder, address, inside, value):
        pointer = builder.inttoptr(address, wide(stored).as_pointer())
        name = f"llvm.masked.store.{suffix(wide(stored))}.p0"
        align = I32(BYTES[stored])
        call(builder, name, ir.VoidType(), encode(builder, value), pointer, align, inside)

    return store


@lanes(lambda address, value: types.void)
def store_whole_f32(builder, address, value):
    """Store sixteen float32 numbers."""
    builder.store(value, builder.inttoptr(address, wide(FLOAT).as_pointer()), align=4)


@lanes(lambda address, inside: i64x16)
def load_ids(builder, address, inside):
    """Return sixteen int64; lanes outside are 0 and are not read."""
    longs = wide(I64)
    pointer = builder.inttoptr(address, longs.as_pointer())
    name = f"llvm.masked.load.{suffix(longs)}.p0"
    return call(builder, name, longs, pointer, I32(8), inside, constant(longs, 0))


@lanes(lambda address, inside, value: types.void)
def store_mask(builder, address, inside, value):
    """Store the lanes of a mask as bytes of 0 and 1."""
    pointer = builder.inttoptr(address, wide(I8).as_pointer())
    octets = builder.zext(value, wide(I8))
    name = f"llvm.masked.store.{suffix(wide(I8))}.p0"
    call(builder, name, ir.VoidType(), octets, pointer, I32(1), inside)


@lanes(lambda address, value: types.void)
def store_whole_mask(builder, address, value):
    """Store every lane of a mask as a byte of 0 or 1."""
    pointer = builder.inttoptr(address, wide(I8).as_pointer())
    builder.store(builder.zext(value, wide(I8)), pointer, align=1)
