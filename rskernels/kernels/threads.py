"""A thread pool for kernels that release the GIL, sized by ``torch.get_num_threads``."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from ctypes import addressof, c_int64

import torch

# Work is counted in logits; below this, waking a second thread costs more than it saves.
SERIAL_WORK = 1 << 18
SHARES = 16  # a thread, about

_pool: tuple[int, ThreadPoolExecutor] | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


# A child of fork inherits the pool object but none of its threads.
os.register_at_fork(after_in_child=_forget_pool)


def _workers(count: int) -> ThreadPoolExecutor:
    global _pool
    if _pool is None or _pool[0] < count:
        _pool = (count, ThreadPoolExecutor(count, thread_name_prefix="rskernels"))
    return _pool[1]


def run_units(
    kernel: Callable[..., int | None], units: int, work: int, arguments: tuple[object, ...]
) -> int:
    """Call ``kernel(counter, grab, units, *arguments)`` on every thread and add up the results.

    Each call takes ``grab`` units at a time from the counter until none are left, or all of them
    where the counter's address is 0: a thread that wakes late or meets longer rows delays nobody.
    Kernels never call back here, so concurrent callers share one pool without waiting for each
    other's results.
    """
    if work < SERIAL_WORK or (threads := min(units, torch.get_num_threads())) <= 1:
        return kernel(0, units, units, *arguments) or 0
    counter = c_int64(0)
    grab = units // (threads * SHARES) or 1
    given = (addressof(counter), grab, units, *arguments)
    pool = _workers(threads - 1)
    others: list[Future[int | None]] = []
    try:
        for _ in range(threads - 1):
            others.append(pool.submit(kernel, *given))
        total = kernel(*given) or 0
    finally:
        # Kernels hold raw addresses: whatever happened here, their memory must outlive them.
        others = [other for other in others if not other.cancel()]
        wait(others)
    return total + sum(other.result() or 0 for other in others)
