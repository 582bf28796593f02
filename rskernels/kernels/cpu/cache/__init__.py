"""Compiled kernels on disk, since Numba compiles for seconds; each is checked before it is used.

Numba's own cache does not see that a file which a kernel imports has changed, raises where no
folder can be written or a file is damaged, and lets two processes that write at once mix their
kernels up. Here (``kernels``) a file is one kernel, of one state of the sources (``digests``), for
one signature, processor and choice of Numba's options. It begins with digests of what it was
compiled from and of the whole, is replaced as a whole, and lies where nobody else could have laid
it (``places``).
"""

import numba

from rskernels.kernels.cpu.cache.once import warn

__all__ = ["cached"]


def cached(dispatcher):
    """Keep what a function of ``njit`` compiles on disk."""
    if numba.config.DISABLE_JIT:
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
