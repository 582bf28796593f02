"""A gate that every thread passes between two calls, and at which all can be held."""

from __future__ import annotations

import threading
import time


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

    def shut(self, patience: float) -> bool:
        """Hold everybody; return whether all have come within so many seconds."""
        end = time.monotonic() + patience
        with self._condition:
            self._is_shut = True
            while self._abroad > 0:
                left = end - time.monotonic()
                if left <= 0 or not self._condition.wait(left):
                    return self._abroad == 0
            return True

    def open(self) -> None:
        """Let everybody pass."""
        with self._condition:
            self._is_shut = False
            self._condition.notify_all()
