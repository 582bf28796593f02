"""A gate that every thread passes between two calls, and at which all can be held."""

from __future__ import annotations

import threading


class Gate:
    """Held shut, it lets nobody pass; then it is known when all have come to it."""

    def __init__(self, threads: int) -> None:
        self._condition = threading.Condition()
        self._is_shut = False
        self._abroad = threads  # those that neither wait here nor have left

    def pass_through(self) -> None:
        """Wait while the gate is shut."""
        with self._condition:
            self._abroad -= 1
            self._condition.notify_all()
            while self._is_shut:
                self._condition.wait()
            self._abroad += 1

    def leave(self) -> None:
        """Never come again."""
        with self._condition:
            self._abroad -= 1
            self._condition.notify_all()

    def shut(self) -> None:
        """Hold everybody; return when all have come."""
        with self._condition:
            self._is_shut = True
            while self._abroad > 0:
                self._condition.wait()

    def lift(self) -> None:
        """Let everybody pass."""
        with self._condition:
            self._is_shut = False
            self._condition.notify_all()
