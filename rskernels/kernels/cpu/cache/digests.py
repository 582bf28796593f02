"""What a compiled kernel depends on, as digests: the sources, the versions, its own code."""

import functools
import hashlib
from importlib.resources import files
from types import CodeType, FunctionType

import llvmlite
import numba
from llvmlite import ir
from numba import types
from numba.core.serialize import dumps

PACKAGES = ("rskernels.law", "rskernels.kernels")


def digest(content):
    """Return 32 bytes that other bytes do not have."""
    return hashlib.sha256(content).digest()


@functools.cache
def stamp():
    """Return a digest of all that every compiled kernel is made of."""
    return digest(
        repr((numba.__version__, llvmlite.__version__, sources_digest(PACKAGES))).encode()
    )


def sources_digest(packages):
    """Return a digest of the modules of packages, wherever these were imported from.

    Raises
    ------
    FileNotFoundError
        If a package has none, as where they are part of a program.
    """
    hasher = hashlib.sha256()
    for package in packages:
        modules = list(_modules(files(package), package))
        if not modules:
            raise FileNotFoundError(f"{package} has no files of Python")
        for name, content in modules:
            hasher.update(f"{name} {len(content)} ".encode())
            hasher.update(content)
    return hasher.digest()


def _modules(folder, name):
    """Yield the name and content of what Python would import below a folder."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        below = f"{name}/{entry.name}"
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _modules(entry, below)
        elif entry.name.endswith((".py", ".pyc")):
            yield below, entry.read_bytes()


def described(value, around=()):
    """Return what a value that compiled code holds is: of a function its code and its closure."""
    for function in ("py_func", "_defn"):  # of what njit made, and of an intrinsic
        value = getattr(value, function, value)
    if isinstance(value, FunctionType):
        if value in around:
            return "recursion", len(around) - around.index(value)
        cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
        return described(value.__code__), described(cells, (*around, value))
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, described(value.co_consts)
    if isinstance(value, (tuple, frozenset)):
        parts = [described(part, around) for part in value]
        # A set has another order in every process.
        return type(value).__name__, parts if isinstance(value, tuple) else sorted(map(repr, parts))
    if isinstance(value, (ir.Type, types.Type)):
        return str(value)  # what else they hold changes as they are used
    return dumps(value)
