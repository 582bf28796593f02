"""Peak extra memory of a call: how far the process's resident memory rises during it (Linux).

It counts torch's tensors, outputs included, and what Numba and C++ allocate, in whole pages (huge
ones of 2 MiB where the kernel gives them), once they are written to. glibc first hands back what it
keeps of freed blocks, so that no call lives unseen on an earlier one's memory.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESET_PEAK = "5"  # for /proc/self/clear_refs, see proc(5)


def extra_memory(call: Callable[[], Any]) -> int | None:
    """Return the bytes by which a call raises resident memory at most, None if unknown.

    It must have run before, so that compiling and starting threads do not count.
    """
    if sys.platform != "linux":
        return None
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text(RESET_PEAK, encoding="utf-8")
    call()
    return max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith(field))
    return int(line.split()[1]) * 1024
