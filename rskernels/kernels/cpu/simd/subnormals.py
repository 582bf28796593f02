"""Numbers below the normal ones count, whatever ``torch.set_flush_denormal`` says.

It holds for the thread that calls it: a decision would depend on which thread makes it.
"""

from llvmlite import ir
from numba import types

from rskernels.kernels.cpu.simd.vectors import I8, I32, I64, call, lanes

FLUSH = 0x8040  # of MXCSR: results, and operands, below the normal numbers are zero


def _is_x86(builder):
    return builder.module.triple.startswith(("x86_64", "i386", "i686"))


def _control(builder, name, pointer):
    address = builder.bitcast(pointer, I8.as_pointer())
    call(builder, f"llvm.x86.sse.{name}", ir.VoidType(), address)


def _set(builder, word, value, before):
    """Emit what sets MXCSR where it flushed before, which it seldom does: setting it takes long."""
    flushed = builder.icmp_unsigned("!=", builder.and_(before, I32(FLUSH)), I32(0))
    with builder.if_then(flushed, likely=False):
        builder.store(value, word)
        _control(builder, "ldmxcsr", word)


def _word(builder):
    with builder.goto_entry_block():
        return builder.alloca(I32)


@lanes(lambda unused: types.int64)
def keep_subnormals(builder, unused):
    """Have subnormal numbers count in this thread; return what ``restore`` puts back."""
    if not _is_x86(builder):
        return I64(0)
    word = _word(builder)
    _control(builder, "stmxcsr", word)
    before = builder.load(word)
    _set(builder, word, builder.and_(before, I32(~FLUSH & 0xFFFFFFFF)), before)
    return builder.zext(before, I64)


@lanes(lambda before: types.void)
def restore(builder, before):
    """Treat subnormal numbers as before."""
    if _is_x86(builder):
        before = builder.trunc(before, I32)
        _set(builder, _word(builder), before, before)
