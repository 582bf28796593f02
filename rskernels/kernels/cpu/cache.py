"""Compiled kernels on disk, since Numba compiles for seconds; each is checked before it is used.

Numba's own cache does not see that a file which a kernel imports has changed, raises where no
folder can be written or a file is damaged, and lets two processes that write at once mix their
kernels up. Here a file is one kernel, for one signature, processor and choice of Numba's options.
It begins with digests of what it was compiled from and of the whole, and is replaced as a whole.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import stat
import sys
import tempfile
import uuid
import warnings
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

config: Any = numba.config  # whose names are made as it is imported
HERE = Path(__file__).parent
# Options that change what is compiled.
OPTIONS = ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE")
REMEDY = "set NUMBA_CACHE_DIR to a folder that you alone can write"


def cached(dispatcher):
    """Keep what a function of ``njit`` compiles on disk."""
    if config.DISABLE_JIT:
        raise RuntimeError(
            "NUMBA_DISABLE_JIT is set, but the CPU kernels exist only compiled; unset it and start "
            "Python anew"
        )
    dispatcher._cache = KernelCache(dispatcher.py_func)
    return dispatcher


class KernelCache(_Cache):
    """What Numba asks of a cache, for one kernel."""

    def __init__(self, function):
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self._stamp = _stamp()
        self._is_enabled = True

    @property
    def cache_path(self):
        """The folder that is looked into first."""
        return str(_folders()[0])

    def enable(self):
        """Use the cache."""
        self._is_enabled = True

    def disable(self):
        """Do not use the cache."""
        self._is_enabled = False

    def flush(self):
        """Remove all that is kept of the kernel."""
        for folder in (*_folders(), *_temporary_folders()):
            for file in folder.glob(f"{self._name}.*.nbk"):
                _remove(file)

    def load_overload(self, signature, target):
        """Return what was compiled for a signature, None where there is nothing sound."""
        target.refresh()
        if not self._is_enabled:
            return None
        name = self._file_name(signature, target.codegen())
        for folder in (*_folders(), *_temporary_folders()):
            try:
                result = self._read(folder / name, target)
            except OSError:
                continue
            except Exception as error:
                _remove(folder / name)
                _warn(f"a compiled kernel, {folder / name}, is damaged ({error}): compiling anew")
                continue
            if result is not None:
                return result
        return None

    def save_overload(self, signature, result):
        """Keep what was compiled for a signature in the first folder that can be written."""
        if not self._is_enabled:
            return
        name = self._file_name(signature, result.codegen)
        payload = dumps(result._reduce())
        content = self._stamp + _digest(self._stamp + payload) + payload
        refusal = None
        for folder in _folders():
            try:
                _write(folder / name, content)
            except OSError as error:
                refusal = refusal or f"{folder}: {error.strerror}"
                continue
            if refusal and config.CACHE_DIR:
                _warn(f"compiled kernels are kept in {folder} ({refusal}); {REMEDY}")
            return
        for folder in _temporary_folders(create=True):
            with contextlib.suppress(OSError):
                _write(folder / name, content)
                _warn(f"compiled kernels are kept in {folder} for now ({refusal}); {REMEDY}")
                return
        _warn(
            f"compiled kernels cannot be kept ({refusal}), and every process will compile its own "
            f"for seconds; {REMEDY}"
        )

    def _file_name(self, signature, codegen):
        options = [getattr(config, option, None) for option in OPTIONS]
        key = signature, codegen.magic_tuple(), options, sys.implementation.cache_tag
        return f"{self._name}.{_digest(repr(key).encode()).hex()[:32]}.nbk"

    def _read(self, file, target):
        """Return the kernel in a file, None where it is of other sources."""
        content, size = file.read_bytes(), len(self._stamp)
        stamp, digest, payload = content[:size], content[size : 2 * size], content[2 * size :]
        if digest != _digest(stamp + payload):
            raise ValueError("its digest is another")
        if stamp != self._stamp:
            return None
        return CompileResult._rebuild(target, *pickle.loads(payload))


def _digest(content):
    return hashlib.sha256(content).digest()


@functools.cache
def _stamp():
    """Return a digest of all that a compiled kernel is made of."""
    package = HERE.parents[1]
    sources = sorted(path for room in ("law", "kernels") for path in (package / room).rglob("*.py"))
    versions = f"{numba.__version__} {llvmlite.__version__}".encode()
    return _digest(b"".join([versions, *(path.read_bytes() for path in sources)]))


def _own_name():
    """Return a name for the kernels of this installation, which may not be the only one."""
    return f"rskernels_{_digest(os.fsencode(HERE)).hex()[:16]}"


def _folders():
    """Return where kernels are kept, the best first."""
    user = AppDirs(appname="numba", appauthor=False).user_cache_dir
    chosen = [Path(config.CACHE_DIR, _own_name())] if config.CACHE_DIR else []
    # Of a user without a home, the folder would be relative to wherever the process is.
    homely = [Path(user, _own_name())] if os.path.isabs(user) else []
    return [*chosen, HERE / "__pycache__", *homely]


def _temporary_folders(create=False):
    """Return the folder to keep kernels in where there is no other, if it is safe to.

    Code is run that is found there: the folder must be this user's, and nobody else's to exchange.
    """
    try:
        place = Path(tempfile.gettempdir())
        folder = place / f"rskernels-{os.geteuid()}"
        if create:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
        around, own = place.stat(), folder.lstat()
    except OSError:
        return []
    open_to_all = around.st_mode & stat.S_IWOTH and not around.st_mode & stat.S_ISVTX
    is_own = stat.S_ISDIR(own.st_mode) and own.st_uid == os.geteuid() and not own.st_mode & 0o077
    return [folder / _own_name()] if is_own and not open_to_all else []


def _write(file, content):
    """Write a file that no other process ever sees in part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        part.write_bytes(content)
        part.replace(file)
    except BaseException:
        _remove(part)
        raise


def _remove(file):
    with contextlib.suppress(OSError):
        file.unlink()


@functools.cache
def _warn(text):
    """Warn of something once."""
    warnings.warn(text, RuntimeWarning, stacklevel=2)
