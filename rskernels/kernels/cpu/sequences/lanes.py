"""Numba intrinsics that load flags: which of sixteen entries are tokens."""

from rskernels.kernels.cpu.simd.vectors import (
    I8,
    I32,
    call,
    constant,
    lanes,
    mask16,
    suffix,
    wide,
)


@lanes(lambda address, inside: mask16)
def load_flags(builder, address, inside):
    """Return which of sixteen bools in memory are set; those outside are not read, nor set."""
    octets = wide(I8)
    pointer = builder.inttoptr(address, octets.as_pointer())
    absent = constant(octets, 0)
    name = f"llvm.masked.load.{suffix(octets)}.p0"
    flags = call(builder, name, octets, pointer, I32(1), inside, absent)
    return builder.icmp_unsigned("!=", flags, absent)


@lanes(lambda address: mask16)
def load_whole_flags(builder, address):
    """Return which of sixteen bools in memory are set."""
    octets = wide(I8)
    flags = builder.load(builder.inttoptr(address, octets.as_pointer()), align=1)
    return builder.icmp_unsigned("!=", flags, constant(octets, 0))
