"""Copies of the kernels with a fault planted in them, beside the package that is tested."""

import functools
import importlib
import itertools
import re
import sys
from pathlib import Path
from types import FunctionType

import triton
from numba import njit
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic

import rskernels

from ...support.house import imports

PACKAGE = Path(rskernels.__file__).parent
# What holds neither law nor decision is not copied: Numba is told of its vector types once.
SHARED = ("kernels.cpu.simd.vectors", "kernels.cpu.threads")
_numbers = itertools.count()


def plant(folder, faults):
    """Import a copy of the kernels, with each function replaced, and return its name.

    ``faults`` are functions by the names of what they replace. A module of the copy replaces its
    own at its end, before anything imports them from it. What no fault can reach is not copied,
    and compiled once for all.
    """
    name = f"mutant_{next(_numbers)}"
    modules = {module: path for module, path in _modules().items() if module not in SHARED}
    faulty = {}
    for target, replacement in faults.items():
        module, _, function = target.rpartition(".")
        if module not in modules:
            raise ValueError(f"there is no module of {target} to plant a fault in")
        faulty.setdefault(module, {})[function] = replacement
    for module in _shared(modules, faulty) if faulty else ():
        del modules[module]
        sys.modules[f"{name}.{module}"] = importlib.import_module(f"rskernels.{module}")
    for module, path in modules.items():
        source = _renamed(path.read_text(encoding="utf-8"), name)
        if module in faulty:
            source += f'\n\nimport {name}\n{name}.replace("{module}", globals())\n'
        copy = folder / name / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(source, encoding="utf-8")
    (folder / name / "__init__.py").touch()
    importlib.invalidate_caches()
    package = importlib.import_module(name)
    package.replace = lambda module, names: _replace(faulty[module], names)
    for module in faulty:
        importlib.import_module(f"{name}.{module}")
    return name


@functools.cache
def _modules():
    """Return the files of the kernels and of the law, by the names of their modules."""
    paths = [path for room in ("law", "kernels") for path in (PACKAGE / room).rglob("*.py")]
    return {_module_of(path): path for path in paths}


def _module_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@functools.cache
def _imported(module):
    """Return the modules of the kernels and of the law that a module imports from."""
    found = imports(f"rskernels.{module}", _modules()[module])
    names = {name for _, source, part in found for name in (source, f"{source}.{part}")}
    return {name.removeprefix("rskernels.") for name in names} & _modules().keys()


def _shared(modules, faulty):
    """Return those of the modules that neither import a faulty one nor are a package of any."""
    reached, found = set(), set(faulty)
    while found:
        reached |= found
        found = {module for module in modules if _imported(module) & reached} - reached
    folders = {".".join(parts[:n]) for parts in (m.split(".") for m in reached) for n in range(9)}
    return modules.keys() - reached - folders


def _replace(faults, names):
    """Put functions into a module's names, compiled as what they replace."""
    for function, replacement in faults.items():
        if function not in names:
            raise ValueError(f"{names['__name__']} has no {function} to replace")
        original = names[function]
        known = {**sys.modules[replacement.__module__].__dict__, "original": original}
        faulty = FunctionType(
            replacement.__code__, known, replacement.__name__, replacement.__defaults__
        )
        faulty.__module__ = replacement.__module__
        if isinstance(original, (Dispatcher, _Intrinsic)):
            faulty = njit(faulty)
        elif isinstance(original, triton.KernelInterface):
            faulty = triton.jit(faulty)
        names[function] = faulty


def _renamed(source, name):
    """Return the source with imports of the copy, without Numba's cache on disk."""
    source = re.sub(r"(?m)^((?:from|import) )rskernels\b", rf"\1{name}", source)
    for module in (*SHARED, "_python"):
        source = source.replace(f"{name}.{module}", f"rskernels.{module}")
    return re.sub(r"(?m)^ *@cached\n", "", source)
