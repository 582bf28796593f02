"""A core a thread, for torch's OpenMP threads and for the workers of rskernels.

Left to the scheduler, a short parallel region now and then wakes its second thread on the core on
which the first one spins for it: microseconds become milliseconds, and ratios mean nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys

_CORES = "RSKERNELS_BENCHMARK_CORES"


def bind() -> None:
    """Start this process again with OpenMP bound to cores, which it reads as it is loaded."""
    if _CORES not in os.environ and hasattr(os, "sched_getaffinity"):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment())


def environment() -> dict[str, str]:
    """Return the environment of a process that is bound from its beginning."""
    if not hasattr(os, "sched_getaffinity"):
        return dict(os.environ)
    listed = ",".join(map(str, cores()))
    return {**os.environ, _CORES: listed, "OMP_PROC_BIND": "true", "OMP_PLACES": "cores"}


def cores() -> list[int]:
    """Return the cores that were this process's before its first thread was bound to one."""
    if _CORES in os.environ:
        return [int(core) for core in os.environ[_CORES].split(",")]
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def bind_workers() -> None:
    """Give each worker of rskernels, in Python or C++, a core beside the first, the caller's.

    A thread is born with the cores of the one that starts it, hence bound to the caller's.
    """
    if _CORES not in os.environ:
        return
    those = cores()
    own = os.sched_getaffinity(0)
    threads = sorted(int(task) for task in os.listdir("/proc/self/task"))
    workers = [task for task in threads if task != os.getpid() and _cores_of(task) == own]
    for at, worker in enumerate(workers, start=1):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(worker, {those[at % len(those)]})


def _cores_of(task: int) -> set[int]:
    try:
        return os.sched_getaffinity(task)
    except ProcessLookupError:
        return set()
