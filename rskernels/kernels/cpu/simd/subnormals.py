"""Numbers below the normal ones count, whatever ``torch.set_flush_denormal`` says.

It holds for the thread that calls it: a decision would depend on which thread makes it. What says
so is a register of x86 or of AArch64; on other processors it is left as it is.
"""

from llvmlite import ir
from numba import types

from rskernels.kernels.cpu.simd.vectors import I8, I32, I64, call, lanes

# Bits by which results, and operands, below the normal numbers are zero.
X86_FLUSH = 0x8040  # of MXCSR: FTZ and DAZ
ARM_FLUSH = 1 << 24 | 1 << 19 | 1  # of FPCR: FZ, FZ16 and FIZ


def _flush_bits(builder):
    triple = builder.module.triple
    if triple.startswith(("x86_64", "i386", "i686")):
        return X86_FLUSH
    return ARM_FLUSH if triple.startswith(("aarch64", "arm64")) else 0


def _mxcsr(builder, name, word):
    call(builder, f"llvm.x86.sse.{name}", ir.VoidType(), builder.bitcast(word, I8.as_pointer()))


def _word(builder):
    with builder.goto_entry_block():
        return builder.alloca(I32)


def _get(builder):
    """Emit what returns the register as 64 bits."""
    if _flush_bits(builder) == ARM_FLUSH:
        return call(builder, "llvm.aarch64.get.fpcr", I64)
    word = _word(builder)
    _mxcsr(builder, "stmxcsr", word)
    return builder.zext(builder.load(word), I64)


def _set(builder, value, before):
    """Emit what sets the register if it flushed, which it seldom does: setting it takes long."""
    flushed = builder.icmp_unsigned("!=", builder.and_(before, I64(_flush_bits(builder))), I64(0))
    with builder.if_then(flushed, likely=False):
        if _flush_bits(builder) == ARM_FLUSH:
            call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), value)
            return
        word = _word(builder)
        builder.store(builder.trunc(value, I32), word)
        _mxcsr(builder, "ldmxcsr", word)


def emit_keep(builder):
    """Emit what has subnormal numbers count; return the register as it was."""
    flush = _flush_bits(builder)
    if not flush:
        return I64(0)
    before = _get(builder)
    _set(builder, builder.and_(before, I64(~flush)), before)
    return before


def emit_restore(builder, before):
    """Emit what sets the register to what it was."""
    if _flush_bits(builder):
        _set(builder, before, before)


@lanes(lambda unused: types.int64)
def keep_subnormals(builder, unused):
    """Have subnormal numbers count in this thread; return what ``restore`` puts back."""
    return emit_keep(builder)


@lanes(lambda before: types.void)
def restore(builder, before):
    """Treat subnormal numbers as before."""
    emit_restore(builder, before)
