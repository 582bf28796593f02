"""Folders for compiled kernels: where they are, whom they are trusted to be of, what is in them.

Code is run that is found there. So a folder and a file must be this user's or root's, and nobody
else may write them.
"""

import contextlib
import errno
import os
import stat
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import numba
from numba.misc.appdirs import AppDirs

from rskernels.kernels.cpu.cache.digests import digest

config: Any = numba.config  # whose names are made as it is imported
HERE = Path(__file__).parents[1]
UNUSED = 30 * 24 * 3600  # seconds after which a file of other sources is removed
WRITABLE = stat.S_IWGRP | stat.S_IWOTH


class Place(NamedTuple):
    """A folder, which users may own it and its files, and who else may write them."""

    folder: Path
    owners: frozenset[int]
    open_to: int = 0  # bits of WRITABLE

    def check(self, status):
        """Raise unless the owner and the mode of the folder or of a file are as they must be."""
        if status.st_uid not in self.owners:
            raise Untrusted(errno.EPERM, f"it is of user {status.st_uid}")
        if status.st_mode & WRITABLE & ~self.open_to:
            raise Untrusted(errno.EPERM, "other users can write it")

    def read(self, name):
        """Return what is in a file; ``PermissionError`` tells of the folder."""
        self.check(self.folder.stat())
        with open(self.folder / name, "rb") as file:
            try:
                self.check(os.fstat(file.fileno()))
            except Untrusted as error:
                raise UntrustedFile(error.strerror) from None
            return file.read()

    def write(self, name, content):
        """Write a file that no other process ever sees in part."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.check(self.folder.stat())
        part = self.folder / f"{name}.{uuid.uuid4().hex}.tmp"
        try:
            # Whatever the umask, of which the group may be a part.
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
                file.write(content)
            part.replace(self.folder / name)
        except BaseException:
            self.remove(part.name)
            raise

    def try_to_write(self):
        """Raise ``OSError`` where a file could not be written."""
        name = f"{uuid.uuid4().hex}.tmp"
        self.write(name, b"")
        self.remove(name)

    def remove(self, name):
        """Remove a file, if it can be."""
        with contextlib.suppress(OSError):
            (self.folder / name).unlink()

    def remove_unused(self, pattern, current):
        """Remove files that begin otherwise than the current ones and were not used for a month."""
        for file in self.folder.glob(pattern):
            with contextlib.suppress(OSError):
                status = file.stat()
                used = max(status.st_atime, status.st_mtime)
                is_current = file.name.startswith(current) and file.suffix != ".tmp"
                if not is_current and used < time.time() - UNUSED:
                    file.unlink()


class Untrusted(PermissionError):
    """Others could have written a folder."""


class UntrustedFile(ValueError):
    """Others could have written a file."""


def places():
    """Return where kernels are kept, the best first."""
    user = AppDirs(appname="numba", appauthor=False).user_cache_dir
    own = frozenset((os.geteuid(), 0))
    chosen = [Place(Path(config.CACHE_DIR, _own_name()), own)] if config.CACHE_DIR else []
    # Of a user without a home, the folder would be relative to wherever the process is.
    homely = [Place(Path(user, _own_name()), own)] if os.path.isabs(user) else []
    return [*chosen, *_package_places(own), *homely]


def _package_places(own):
    """Return the package's own folder, open to those who can write the package's code as well."""
    try:
        package = HERE.stat()
    except OSError:  # as in an archive
        return []
    return [Place(HERE / "__pycache__", own | {package.st_uid}, package.st_mode & WRITABLE)]


def temporary_places(create=False):
    """Return the folder to keep kernels in where there is no other, if it is safe to.

    It must be this user's, and nobody else's to exchange.
    """
    try:
        around = Path(tempfile.gettempdir())
        folder = around / f"rskernels-{os.geteuid()}"
        if create:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
        outer, inner = around.stat(), folder.lstat()
    except OSError:
        return []
    open_to_all = outer.st_mode & stat.S_IWOTH and not outer.st_mode & stat.S_ISVTX
    is_own = stat.S_ISDIR(inner.st_mode) and inner.st_uid == os.geteuid()
    if open_to_all or not is_own or inner.st_mode & 0o077:
        return []
    return [Place(folder / _own_name(), frozenset((os.geteuid(),)))]


def _own_name():
    """Return a name for the kernels of this installation, which may not be the only one."""
    return f"rskernels_{digest(os.fsencode(HERE)).hex()[:16]}"
