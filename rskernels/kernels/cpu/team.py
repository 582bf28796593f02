"""Calls that are made by torch's OpenMP team, the threads that its own operators run on.

Between two regions the threads of a team wait for milliseconds without giving up their cores, as
OpenMP's default is. Threads of our own would have to take a core from them at every call that
follows one of torch's, and as long again the other way round.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from ctypes import CDLL, c_void_p, cast
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from llvmlite import ir
from numba import njit, types
from numba.core.dispatcher import Dispatcher
from numba.extending import intrinsic

from rskernels.kernels.cpu.cache import cached
from rskernels.kernels.cpu.simd.vectors import I8, I32, I64

REGION = "GOMP_parallel"  # what "#pragma omp parallel" becomes; LLVM's and Intel's runtimes have it
FAILED = 1 << 48  # what a thread adds to the results where a kernel has failed: more than any sum


class TeamCall(NamedTuple):
    """How a team makes the calls of a kernel."""

    entry: Callable[..., int]
    """``on_team``, compiled for the kernel's arguments."""
    kernel: int
    """Where the kernel's native code lies."""

    def __call__(self, threads: int, share: tuple[int, ...], arguments: tuple[object, ...]) -> int:
        """Call ``kernel(share, arguments)`` on that many threads; return the results' sum."""
        total = self.entry(parallel_address(), threads, self.kernel, share, arguments)
        if total >= FAILED:
            raise RuntimeError("a CPU kernel failed on a thread of torch's OpenMP team")
        return total


@cache
def parallel_address() -> int:
    """Return where torch's OpenMP runtime begins a parallel region; 0 where torch has none."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # It is loaded already. What it needs itself is looked through too.
        region = CDLL(str(library), mode=os.RTLD_NOLOAD | os.RTLD_NOW)[REGION]
    except (OSError, AttributeError):
        return 0
    return cast(region, c_void_p).value or 0


@intrinsic
def _call_on_team(typingctx, parallel, threads, kernel, share, arguments):
    """Emit a region in which every thread calls a kernel, and the sum of what they return."""

    def codegen(context, builder, signature, values):
        parallel, threads, kernel, share, arguments = values
        pointer, frame_type = I8.as_pointer(), ir.LiteralStructType(
            [I64, I64, share.type, arguments.type]
        )  # fmt: skip
        frame = builder.alloca(frame_type)
        for at, value in enumerate((I64(0), kernel, share, arguments)):
            builder.store(value, _field(builder, frame, at))
        region_type = ir.FunctionType(ir.VoidType(), [pointer])
        region = ir.Function(builder.module, region_type, f"{builder.function.name}.region")
        region.linkage = "internal"
        _emit_region(context, region, frame_type, signature.args[3:])
        begin_type = ir.FunctionType(ir.VoidType(), [region_type.as_pointer(), pointer, I32, I32])
        builder.call(
            builder.inttoptr(parallel, begin_type.as_pointer()),
            [region, builder.bitcast(frame, pointer), builder.trunc(threads, I32), I32(0)],
        )
        return builder.load(_field(builder, frame, 0))

    number = types.int64
    return number(number, number, number, share, arguments), codegen


def _emit_region(context, region, frame_type, given):
    builder = ir.IRBuilder(region.append_basic_block())
    frame = builder.bitcast(region.args[0], frame_type.as_pointer())
    kernel, *values = (builder.load(_field(builder, frame, at)) for at in (1, 2, 3))
    native = context.call_conv.get_function_type(types.int64, given).as_pointer()
    status, result = context.call_conv.call_function(
        builder, builder.inttoptr(kernel, native), types.int64, given, values
    )
    result = builder.select(status.is_error, I64(FAILED), result)
    builder.atomic_rmw("add", _field(builder, frame, 0), result, "monotonic")
    builder.ret_void()


def _field(builder, frame, at):
    return builder.gep(frame, [I32(0), I32(at)], inbounds=True)


@cached
@njit(nogil=True)
def on_team(parallel, threads, kernel, share, arguments):
    """Call the native code of ``kernel(share, arguments)`` on a team; return the results' sum."""
    return _call_on_team(parallel, threads, kernel, share, arguments)  # type: ignore[call-arg]


_forms: dict[Any, tuple[Any, Any]] = {}
_calls: dict[Any, TeamCall | None] = {}


def entry_of(kernel: Any, signature: Any) -> Any:
    """Return a compiled kernel's entry, which ``team_call`` knows from then on."""
    entry = kernel.overloads[signature].entry_point
    _forms[entry] = kernel, signature
    return entry


def team_call(kernel: Any) -> TeamCall | None:
    """Return how a team calls a kernel; None of one that is not compiled, or has several forms."""
    if kernel not in _calls:
        if isinstance(kernel, Dispatcher) and len(kernel.signatures) == 1:
            _forms[kernel] = kernel, kernel.signatures[0]
        elif kernel not in _forms:
            return None
        _calls[kernel] = _team_call(*_forms[kernel])
    return _calls[kernel]


def _team_call(kernel: Any, signature: Any) -> TeamCall | None:
    overload = kernel.overloads[signature]
    result = types.unliteral(overload.signature.return_type)
    if result != types.int64:
        raise TypeError(f"{kernel.__name__} must return an int, as kernels do, it returns {result}")
    if not parallel_address():
        return None
    given = (types.int64,) * 3 + tuple(signature)
    on_team.compile(given)
    native = overload.library.get_pointer_to_function(overload.fndesc.llvm_func_name)
    return TeamCall(on_team.overloads[given].entry_point, native)
