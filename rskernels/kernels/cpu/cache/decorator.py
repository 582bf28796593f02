"""What functions of Numba become: kernels with a cache, if they can have one, or their parts."""

import weakref
from typing import Any

import numba
from numba import njit

from rskernels.kernels.cpu.cache.announce import announce
from rskernels.kernels.cpu.cache.once import warn

config: Any = numba.config  # whose names are made as it is imported
_made: Any = weakref.WeakSet()


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
    _made.add(dispatcher)
    announce(dispatcher)
    return dispatcher


def made():
    """Return the kernels that this process has made, by name."""
    return sorted(_made, key=lambda kernel: kernel.__name__)


def inner(function):
    """Compile what kernels alone call: it has no entry for Python, which takes a fifth longer."""
    options: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return njit(**options)(function)
