"""How threads share a call: as many as ``torch.get_num_threads`` allows, and a counter.

They are torch's OpenMP team. Where that is not to be had, they are workers of our own: in a child
of fork, which has no more than the parent's memory of a team and would wait for it for ever, in a
torch without OpenMP, and for kernels that are not compiled. An executor's futures cost more than
many a kernel; here a job is two locks and a queue.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from ctypes import addressof, c_int64
from queue import SimpleQueue
from threading import Lock, Thread

import torch
from numba import types
from numba.core.compiler_lock import global_compiler_lock

from rskernels._python.forks import hold_over_forks
from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.simd.vectors import I64, lanes
from rskernels.kernels.cpu.team import team_call

# Work is counted in logits; below this, waking a second thread costs more than it saves.
SERIAL_WORK = 1 << 20
SHARES = 16  # a thread, about


class _Job:
    """A call that is made by a worker or, if none has come to it yet, not at all.

    Whoever waits may be interrupted between any two steps, also as a lock has been acquired, and
    begins again: each step can be repeated.
    """

    def __init__(self, kernel: Callable[..., int], arguments: tuple[object, ...]):
        self.kernel, self.arguments = kernel, arguments
        self.is_over = False
        self.result = 0
        self.error: BaseException | None = None
        self._owner: dict[None, str] = {}
        self._running = Lock()
        self._running.acquire()

    def run(self) -> None:
        if self._owner.setdefault(None, "worker") != "worker":
            return
        try:
            self.result = self.kernel(*self.arguments)
        except BaseException as error:
            self.error = error
        finally:
            self.is_over = True
            self._running.release()

    def finish(self) -> None:
        """Return once the call is over, or sure not to be made."""
        if self._owner.setdefault(None, "caller") == "worker":
            while not self.is_over:
                self._running.acquire()


_jobs: SimpleQueue[_Job] = SimpleQueue()
_workers = 0
_growing = Lock()
_has_team = True


def _forget_workers() -> None:
    global _jobs, _workers, _growing, _has_team
    _jobs, _workers, _growing, _has_team = SimpleQueue(), 0, Lock(), False


# A child of fork inherits the queue but none of the threads.
os.register_at_fork(after_in_child=_forget_workers)
# Nor would it get the lock of a thread that compiles.
hold_over_forks(global_compiler_lock._lock)


def _work(jobs: SimpleQueue[_Job]) -> None:
    while True:
        jobs.get().run()


def _grow(count: int) -> None:
    global _workers
    with _growing:
        while _workers < count:
            name = f"rskernels-{_workers}"
            Thread(target=_work, args=(_jobs,), name=name, daemon=True).start()
            _workers += 1


@lanes(lambda address, amount: types.int64)
def fetch_add(builder, address, amount):
    """Add to the int64 at an address that threads share; return what it was."""
    pointer = builder.inttoptr(address, I64.as_pointer())
    return builder.atomic_rmw("add", pointer, amount, "monotonic")


@inner
def next_share(counter, begin, grab):
    """Return where the next ``grab`` units begin; without a counter, those after ``begin``."""
    return begin + grab if counter == 0 else fetch_add(counter, grab)


def run_units(
    kernel: Callable[..., int], rows: tuple[int, int, int], work: int, *arguments: object
) -> int:
    """Call ``kernel(share, arguments)`` on every thread and add up the results.

    ``rows`` is (units, unit_rows, N), ``share`` (counter, grab, *rows). Each call takes ``grab``
    units of rows at a time from the counter until none are left, or all of them where the
    counter's address is 0: a thread that wakes late or meets longer rows delays nobody. Kernels
    never call back here, so concurrent callers share the workers without waiting for each other's
    results.
    """
    units, unit_rows, N = rows
    if work < SERIAL_WORK or units <= 1 or (threads := torch.get_num_threads()) <= 1:
        return kernel((0, units, units, unit_rows, N), arguments)
    counter = c_int64(0)
    grab = units // (min(units, threads) * SHARES) or 1
    share = (addressof(counter), grab, units, unit_rows, N)
    if _has_team and (call := team_call(kernel)) is not None:
        # Of all its threads, or OpenMP would end those that are left out.
        return call(threads, share, arguments)
    return _run_on_workers(kernel, min(units, threads), share, arguments)


def _run_on_workers(kernel, threads, share, arguments):
    if _workers < threads - 1:
        _grow(threads - 1)
    jobs = [_Job(kernel, (share, arguments)) for _ in range(threads - 1)]
    total = 0
    try:
        for job in jobs:
            _jobs.put(job)
        total = kernel(share, arguments)
    finally:
        # Kernels hold raw addresses: whatever a signal's handler raises here, their memory must
        # outlive them.
        interrupted: BaseException | None = None
        while True:
            try:
                for job in jobs:
                    job.finish()
                break
            except BaseException as interrupt:
                interrupted = interrupted or interrupt
    for error in (interrupted, *(job.error for job in jobs)):
        if error is not None:
            raise error
    return total + sum(job.result for job in jobs)
