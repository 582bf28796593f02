"""What gives a function of Numba its cache, if it can have one."""

from typing import Any

import numba

from rskernels.kernels.cpu.cache.once import warn

config: Any = numba.config  # whose names are made as it is imported


def cached(dispatcher):
    """Keep what a function of ``njit`` compiles on disk."""
    if config.DISABLE_JIT:
        raise RuntimeError(
            "NUMBA_DISABLE_JIT is set, but the CPU kernels exist only compiled; unset it and start "
            "Python anew"
        )
    try:
        # It needs what Numba keeps to itself, and another release may lack.
        from rskernels.kernels.cpu.cache.kernels import KernelCache

        if not hasattr(dispatcher, "_cache"):
            raise AttributeError("a dispatcher has no _cache")
        dispatcher._cache = KernelCache(dispatcher.py_func)
    except (ImportError, AttributeError, FileNotFoundError) as error:
        warn(
            f"compiled kernels cannot be kept with Numba {numba.__version__} ({error}), and every "
            "process will compile its own for seconds"
        )
    return dispatcher
