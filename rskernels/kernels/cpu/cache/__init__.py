"""Compiled kernels on disk, since Numba compiles for seconds; each is checked before it is used.

Numba's own cache does not see that a file which a kernel imports has changed, raises where no
folder can be written or a file is damaged, and lets two processes that write at once mix their
kernels up. Here (``kernels``) a file is one kernel, of one state of the sources (``digests``), for
one signature, processor and choice of Numba's options. It begins with digests of what it was
compiled from and of the whole, is replaced as a whole, and lies where nobody else could have laid
it (``places``).
"""

from rskernels.kernels.cpu.cache.decorator import cached, inner, made

__all__ = ["cached", "inner", "made"]
