"""Numba's cache on disk, which every process of a test run shares."""

import fcntl
import functools
import os
from pathlib import Path

from .package import kernels_digest


def share_cache(folder):
    """Keep compiled kernels in a folder of their own sources, written by one process at a time."""
    # Numba does not notice that a file which a cached kernel imports was edited.
    os.environ.setdefault("NUMBA_CACHE_DIR", str(folder / kernels_digest()))

    from numba.core.caching import IndexDataCacheFile

    IndexDataCacheFile.save = _one_at_a_time(IndexDataCacheFile.save)


def _one_at_a_time(save):
    """Numba reads the index, chooses a file and writes both: two processes may choose the same."""

    @functools.wraps(save)
    def locked(self, key, data):
        with open(Path(self._cache_path, "lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            save(self, key, data)

    return locked
