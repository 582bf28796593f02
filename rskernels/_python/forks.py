"""Locks that a child process does not inherit from a thread that it does not have.

A fork copies the memory, and of the threads only its own. A lock that another thread held would
stay held in the child for ever, and what it guards half changed. So whoever forks takes all of
these locks first, and gives them back on both sides.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Iterable
from typing import Protocol, TypeVar


class Lock(Protocol):
    """What can be taken, and by the same thread again."""

    def acquire(self) -> object:
        """Wait for the lock and take it."""

    def release(self) -> None:
        """Give it back."""


L = TypeVar("L", bound=Lock)

_places: weakref.WeakKeyDictionary[Lock, int] = weakref.WeakKeyDictionary()
_next_place = itertools.count()
_registering = threading.RLock()
_forking = threading.RLock()  # by one thread at a time, whose locks are those taken
_taken: list[Lock] = []


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
    _forking.acquire()
    while True:
        _registering.acquire()
        missing = in_order(set(_places) - set(_taken))
        if not missing:
            return
        # Who holds one of these may be about to register another.
        _registering.release()
        for lock in missing:
            lock.acquire()
            _taken.append(lock)


def _give_back() -> None:
    while _taken:
        _taken.pop().release()
    _registering.release()
    _forking.release()


os.register_at_fork(before=_take_all, after_in_parent=_give_back, after_in_child=_give_back)
