"""Tasks side by side, each in a process, which may die without ending the others."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

Task = tuple[Any, ...]
Function = Callable[..., str | None]

# Forked, a process would share the threads of torch and Numba that its parent has started.
CONTEXT = multiprocessing.get_context("spawn")


def side_by_side(
    function: Function, tasks: Sequence[Task], jobs: int
) -> Iterator[tuple[Any, str | None]]:
    """Call a function on every task, in several processes, each of which does many.

    Parameters
    ----------
    function : callable
        Takes a task's values, and returns why it failed, or None.
    tasks : sequence of tuple
        Values that can be pickled.
    jobs : int
        Processes at a time. Where this generator is closed early they are ended in mid-task.

    Yields
    ------
    (Any, str or None)
        The first value of a task and what the function returned, or how its process died, in the
        order in which they end.
    """
    waiting = list(tasks)[::-1]
    idle: list[_Worker] = []
    busy: dict[Any, tuple[_Worker, Any]] = {}  # by the connection
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                worker = idle.pop() if idle else _Worker(function)
                task = waiting.pop()
                with suppress(OSError):  # one that died while idle has closed its end: seen below
                    worker.connection.send(task)
                busy[worker.connection] = (worker, task[0])
            for connection in wait(list(busy)):
                worker, first = busy.pop(connection)
                try:
                    outcome = worker.connection.recv()
                    idle.append(worker)
                except (EOFError, ConnectionResetError):
                    outcome = worker.how_it_died()
                yield first, outcome
    finally:
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.end()


class _Worker:
    """A process that does one task after another."""

    def __init__(self, function: Function) -> None:
        self.connection, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(theirs, function), daemon=True)
        # The first process that is spawned would start this, which lets interrupts through.
        resource_tracker.ensure_running()
        # It inherits what is blocked here: an interrupt is for its parent.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()

    def how_it_died(self) -> str:
        """Say how the process ended, which it has."""
        self.process.join()
        self.connection.close()
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"its process ended with status {code}"
        name = signal.Signals(-code).name
        memory = ", for want of memory perhaps, which fewer jobs need less of"
        return f"its process was ended by {name}{memory if -code == signal.SIGKILL else ''}"

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.terminate()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, function: Function) -> None:
    try:
        while True:
            connection.send(function(*connection.recv()))
    except (EOFError, BrokenPipeError):
        pass  # the parent has gone
