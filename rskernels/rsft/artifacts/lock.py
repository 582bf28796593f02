"""A lock on a run's folder, so that one process at a time writes there."""

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rskernels.rsft.errors import CheckpointError
from rskernels.rsft.say import say

LOCK = "run.lock"
# Some network file systems have no locks.
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}

_held: set[int] = set()


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that exists.

    The kernel frees the lock when the process ends, however it ends: the file that a killed run
    leaves behind locks nothing. Forked children do not keep it.

    Raises
    ------
    CheckpointError
        If another process, or this one, holds it.
    """
    path = folder / LOCK
    descriptor, owner = _lock(path), os.getpid()
    _held.add(descriptor)
    try:
        yield
    finally:
        if os.getpid() == owner:
            # While it is still locked, so that nobody holds a file that is no longer there.
            path.unlink(missing_ok=True)
            _held.discard(descriptor)
            os.close(descriptor)


def _lock(path: Path) -> int:
    """Return the descriptor of a locked file that is still the one at its path."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(descriptor, path)
            if _is_at(path, descriptor):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # another run ended, and took the file away, in between


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 200).decode(errors="replace").strip()
        raise CheckpointError(
            f"{path.parent} is being written by another run, {holder or 'which has just begun'}: "
            "wait for it, or name another folder"
        ) from error
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        say(f"{path.parent} cannot be locked ({error.strerror}): let no other run write there")


def _is_at(path: Path, descriptor: int) -> bool:
    """Say whether an open file is still the one at a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _let_go() -> None:
    """Close a forked child's copies, which would keep the lock of a parent that was killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
