"""A line about a kernel that takes long to compile, and where it is kept.

It is logged and not warned of, since nobody has to change anything. It comes from the thread that
compiles, which a fork waits for: a timer's thread could hold a lock that no child gives back.
"""

import logging
import threading
import time
import weakref
from typing import Any

from numba.core import event

PATIENCE = 2.0  # seconds of compiling before anything is said
KINDS = "numba:compile", "numba:run_pass"  # the first about a function, the second a step of it
logger = logging.getLogger("rskernels")


class _Announcer(event.Listener):
    """Is told whenever Numba begins or ends a step, and says once a kernel that it takes long."""

    def __init__(self):
        self.kernels: Any = weakref.WeakSet()
        self._kernel: Any = None  # which is being compiled
        self._thread, self._begin = 0, 0.0

    def on_start(self, event):
        """Note a kernel that begins to be compiled."""
        kernel = (event.data or {}).get("dispatcher") if event.kind == KINDS[0] else None
        if kernel is not None and kernel in self.kernels:
            self._kernel = kernel
            self._thread, self._begin = threading.get_ident(), time.monotonic()

    def on_end(self, event):
        """Say so if the kernel has taken long."""
        if self._kernel is None or self._thread != threading.get_ident():
            return
        kernel = self._kernel
        is_over = event.kind == KINDS[0] and event.data["dispatcher"] is kernel
        if is_over or time.monotonic() - self._begin > PATIENCE:
            self._kernel = None
        if not is_over and self._kernel is None:
            logger.warning("%s", _line(kernel))


def _line(kernel):
    text = f"rskernels is compiling a CPU kernel, {kernel.__name__}, which takes some seconds"
    destination = getattr(kernel._cache, "destination", None)
    folder, reason = destination() if destination else (None, "this Numba has no place for it")
    if folder is None:
        return f"{text}, as it will in every process: it cannot be kept ({reason})"
    text = f"{text}: it is kept in {folder}"
    return f"{text}; what lies there is {reason}" if reason else text


_announcer = _Announcer()
for _kind in KINDS:
    event.register(_kind, _announcer)


def announce(kernel):
    """Have it said if the kernel takes long to compile."""
    _announcer.kernels.add(kernel)
