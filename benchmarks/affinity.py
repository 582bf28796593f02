"""A core a thread, for torch's OpenMP threads and for the workers of rskernels.

Left to the scheduler, a short parallel region now and then wakes its second thread on the core on
which the first one spins for it: microseconds become milliseconds, and ratios mean nothing.
"""

from __future__ import annotations

import os
import sys
import threading

_CORES = "RSKERNELS_BENCHMARK_CORES"


def bind() -> None:
    """Start this process again with OpenMP bound to cores, which it reads as it is loaded."""
    if _CORES in os.environ or not hasattr(os, "sched_getaffinity"):
        return
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    environment = {**os.environ, _CORES: cores, "OMP_PROC_BIND": "true", "OMP_PLACES": "cores"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def bind_workers() -> None:
    """Give each worker of rskernels a core of its own, beside the first, which is the caller's."""
    if _CORES not in os.environ:
        return
    cores = [int(core) for core in os.environ[_CORES].split(",")]
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("rskernels")]
    for at, worker in enumerate(workers, start=1):
        if worker.native_id is not None:
            os.sched_setaffinity(worker.native_id, {cores[at % len(cores)]})
