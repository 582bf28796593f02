"""Copies of the kernels with a fault planted in the source, beside the package that is tested."""

import importlib
import itertools
import re
from pathlib import Path

import rskernels

PACKAGE = Path(rskernels.__file__).parent
# What holds neither law nor decision is not copied: Numba is told of its vector types once.
SHARED = ("kernels.cpu.simd", "kernels.cpu.threads", "_torch.fast_path")
_numbers = itertools.count()


def plant(folder, changes):
    """Import a copy of the kernels, with each text replaced, and return its name.

    ``changes`` are (file, text, replacement): the file must hold the text exactly once.
    """
    name = f"mutant_{next(_numbers)}"
    copied = [path for room in ("law", "kernels") for path in (PACKAGE / room).rglob("*.py")]
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in copied}
    for module in SHARED:
        sources.pop(f"{module.replace('.', '/')}.py", None)
    for file, text, replacement in changes:
        if (found := sources[file].count(text)) != 1:
            raise ValueError(f"{file} holds this {found} times, not once: {text}")
        sources[file] = sources[file].replace(text, replacement)
    for file, source in sources.items():
        path = folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_renamed(source, name))
    (folder / name / "__init__.py").touch()
    importlib.invalidate_caches()
    return name


def _renamed(source, name):
    """Return the source with imports of the copy, for float32, without Numba's cache on disk."""
    source = re.sub(r"(?m)^((?:from|import) )rskernels\b", rf"\1{name}", source)
    for module in SHARED:
        source = source.replace(f"{name}.{module}", f"rskernels.{module}")
    # Kernels of one dtype compile in half the time, and the checks of the mutants need no more.
    made = r"(?m)^(?P<names>_\w+_(bf16|f16|f64)(, _\w+_\2)*) = _\w+_of\(.*\)$"
    source = re.sub(made, lambda line: _as_float32(line["names"]), source)
    return source.replace("cache=True", "cache=False")


def _as_float32(names):
    return f"{names} = {re.sub('_(bf16|f16|f64)', '_f32', names)}"
