"""Locks that a child process does not inherit from a thread that it does not have.

A fork copies the memory, and of the threads only its own. A lock that another thread held would
stay held in the child for ever, and what it guards half changed. So whoever forks takes all of
these locks first, and gives them back on both sides.

A signal's handler may raise meanwhile, as Ctrl-C does, and CPython reports what a hook of a fork
raises and forks all the same. So what a handler raises here is caught, the locks are taken all the
same, and the handler runs again in the parent once the fork has returned.
"""

from __future__ import annotations

import _thread
import functools
import itertools
import operator
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar


class Lock(Protocol):
    """What can be taken, and by the same thread again."""

    def acquire(self) -> object:
        """Wait for the lock, take it, and return what is true."""

    def release(self) -> None:
        """Give it back."""


L = TypeVar("L", bound=Lock)

_places: weakref.WeakKeyDictionary[Lock, int] = weakref.WeakKeyDictionary()
_next_place = itertools.count()
_registering = threading.RLock()
_forking = threading.RLock()  # by one thread at a time
_acquire, _release = operator.methodcaller("acquire"), operator.methodcaller("release")
_again: list[int] = []  # signals whose handlers raised while a fork waited


class _Held(threading.local):
    """The locks that this thread holds since it forks, and a mark for each that it has."""

    def __init__(self) -> None:
        self.locks: list[Lock] = []
        self.marks: list[object] = []

    def take(self, locks: list[Lock]) -> None:
        """Take locks; those taken are marked if a handler raises while it waits for the next."""
        self.locks[len(self.marks) :] = locks
        # All in C, which runs no handler between taking a lock and marking it.
        self.marks.extend(map(_acquire, locks))

    def give_back(self, first: int) -> None:
        """Give back the locks from the one at `first` on."""
        locks = reversed(self.locks[first : len(self.marks)])
        # Nor here: `release` returns None, so that no mark stays.
        self.marks[first:] = filter(None, map(_release, locks))
        # Or a lock would live until this thread forks again, and then be taken once more.
        del self.locks[len(self.marks) :]


_held = _Held()


def hold_over_forks(lock: L) -> L:
    """Return a lock that whoever forks takes first.

    A thread may wait for a lock only while all of these that it holds were registered before.
    """
    with _registering:
        _places[lock] = next(_next_place)
    return lock


def in_order(locks: Iterable[L]) -> list[L]:
    """Return locks in the order in which they were registered."""
    return sorted(locks, key=lambda lock: _places[lock])


def _take_all() -> None:
    _insist(_take_missing)


def _take_missing() -> None:
    if not _held.marks:
        _held.take([_forking])
    while True:
        held = _held.locks[: len(_held.marks)]
        if _registering not in held:
            _held.take([_registering])
            held.append(_registering)
        missing = in_order(set(_places) - set(held))
        if not missing:
            return
        # Who holds one of these may be about to register another.
        _held.give_back(held.index(_registering))
        _held.take(missing)


def _give_back() -> None:
    failure = None
    while _held.marks:
        try:
            _insist(lambda: _held.give_back(len(_held.marks) - 1))
        except Exception as error:  # the lock's own, which is not to keep the others
            failure = error
            _held.marks.pop()
    if failure is not None:
        raise failure


def _insist(step: Callable[[], None]) -> None:
    """Do what can be begun again, until it is done; remember the signals that interrupted it."""
    while True:
        try:
            return step()
        except BaseException as error:
            if (number := _signal_of(error)) is None:
                raise
            _again[:] = [number]


def _signal_of(error: BaseException) -> int | None:
    """Return the signal whose handler raised an error; None where no handler did."""
    trace, codes = error.__traceback__, []
    while trace is not None:
        codes.append(trace.tb_frame.f_code)
        trace = trace.tb_next
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if getattr(handler, "__code__", None) in codes:
            return int(number)
    return signal.SIGINT if isinstance(error, KeyboardInterrupt) else None


# Twice: a handler may raise before a hook's first line, which CPython reports; the second does it.
for _ in range(2):
    os.register_at_fork(before=_take_all, after_in_parent=_give_back, after_in_child=_give_back)


def handle_signals_last() -> None:
    """Let handlers that raised during a fork run again, after all hooks that there are by now."""
    # In C, so that they run where the fork has returned: `sort` calls its key with each signal.
    os.register_at_fork(after_in_parent=functools.partial(_again.sort, key=_thread.interrupt_main))
    os.register_at_fork(after_in_parent=_again.clear, after_in_child=_again.clear)
