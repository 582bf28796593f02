"""Calls that are made by torch's OpenMP team, the threads that its own operators run on.

Between two regions the threads of a team wait for milliseconds without giving up their cores, as
OpenMP's default is. Threads of our own would have to take a core from them at every call that
follows one of torch's, and as long again the other way round.

A thread that waits so may lie on the caller's core, behind the caller, which works and then waits
for it: until the scheduler looks, a call of one millisecond takes eight, and so does the next. So a
thread of the team that finds itself there leaves for another core, and who is done gives way to
those that have not begun.
"""

from __future__ import annotations

import os
import sys
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
from rskernels.kernels.cpu.simd.vectors import I8, I32, I64, call

REGION = "GOMP_parallel"  # what "#pragma omp parallel" becomes; LLVM's and Intel's runtimes have it
# A thread of a team tells on which core it is, and can be sent to another.
HAS_CORES = sys.platform == "linux"
ARRIVED, THREADS, CORE, CALLER = 4, 5, 6, 7  # fields of a region, after what the kernel is given
CORES = 1024  # that are told apart, as many as glibc's cpu_set_t
YIELDS = 1  # at most: fewer threads may come than were asked for, and each costs a turn
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
        core = call(builder, "sched_getcpu", I32) if HAS_CORES else I32(0)
        caller = call(builder, "pthread_self", I64) if HAS_CORES else I64(0)
        fields = (I64(0), kernel, share, arguments, I64(0), threads, core, caller)
        pointer, frame_type = I8.as_pointer(), ir.LiteralStructType([x.type for x in fields])
        frame = builder.alloca(frame_type)
        for at, value in enumerate(fields):
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
    if HAS_CORES:
        _emit_arrival(builder, frame)
    native = context.call_conv.get_function_type(types.int64, given).as_pointer()
    status, result = context.call_conv.call_function(
        builder, builder.inttoptr(kernel, native), types.int64, given, values
    )
    result = builder.select(status.is_error, I64(FAILED), result)
    builder.atomic_rmw("add", _field(builder, frame, 0), result, "monotonic")
    if HAS_CORES:
        _emit_wait(builder, frame)
    builder.ret_void()


def _emit_arrival(builder, frame):
    """Emit that a thread is there and, if that is on the core of the caller, leaves it.

    Whatever cores it may run on, it may run on afterwards.
    """
    builder.atomic_rmw("add", _field(builder, frame, ARRIVED), I64(1), "monotonic")
    core = call(builder, "sched_getcpu", I32)
    is_shared = builder.icmp_signed("==", core, builder.load(_field(builder, frame, CORE)))
    is_caller = builder.icmp_signed(
        "==", call(builder, "pthread_self", I64), builder.load(_field(builder, frame, CALLER))
    )
    with builder.if_then(builder.and_(is_shared, builder.not_(is_caller)), likely=False):
        cores_type = ir.ArrayType(I64, CORES // 64)
        allowed, others = builder.alloca(cores_type), builder.alloca(cores_type)
        sizes = I32(0), I64(CORES // 8)
        got = call(builder, "sched_getaffinity", I32, *sizes, allowed)
        is_within = builder.icmp_unsigned("<", core, I32(CORES))
        with builder.if_then(builder.and_(builder.icmp_signed("==", got, I32(0)), is_within)):
            builder.store(builder.load(allowed), others)
            word = _element(builder, others, builder.lshr(core, I32(6)))
            bit = builder.shl(I64(1), builder.zext(builder.and_(core, I32(63)), I64))
            builder.store(builder.and_(builder.load(word), builder.not_(bit)), word)
            # It fails where no core is left.
            call(builder, "sched_setaffinity", I32, *sizes, others)
            call(builder, "sched_setaffinity", I32, *sizes, allowed)


def _emit_wait(builder, frame):
    """Emit that a thread that is done leaves its core to those that have not begun."""
    arrived, threads = (_field(builder, frame, at) for at in (ARRIVED, THREADS))
    before = builder.block
    look, leave, over = (builder.append_basic_block() for _ in range(3))
    builder.branch(look)
    builder.position_at_end(look)
    times = builder.phi(I64)
    # What another thread may change is read anew.
    seen = builder.atomic_rmw("add", arrived, I64(0), "monotonic")
    are_there = builder.icmp_signed(">=", seen, builder.load(threads))
    is_over = builder.or_(are_there, builder.icmp_signed(">=", times, I64(YIELDS)))
    builder.cbranch(is_over, over, leave)
    builder.position_at_end(leave)
    call(builder, "sched_yield", I32)
    times.add_incoming(I64(0), before)
    times.add_incoming(builder.add(times, I64(1)), leave)
    builder.branch(look)
    builder.position_at_end(over)


def _element(builder, array, at):
    return builder.gep(array, [I32(0), at], inbounds=True)


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
