"""Copies of the kernels with a fault planted in the source, beside the package that is tested."""

import importlib
import itertools
import re
from pathlib import Path

import rskernels

PACKAGE = Path(rskernels.__file__).parent
# What holds neither law nor decision is not copied: Numba is told of its vector types once.
SHARED = ("simd", "threads")
_numbers = itertools.count()


def plant(folder, changes):
    """Import a copy of the kernels, with each text replaced, and return its name.

    ``changes`` are (file, text, replacement): the file must hold the text exactly once.
    """
    name = f"mutant_{next(_numbers)}"
    copied = [PACKAGE / "random.py", *(PACKAGE / "kernels").glob("*.py")]
    copied = [path for path in copied if path.stem not in SHARED]
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in copied}
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
        source = source.replace(f"{name}.kernels.{module}", f"rskernels.kernels.{module}")
    # Kernels of one dtype compile in half the time, and the checks of the mutants need no more.
    source = re.sub(r"(?m)^(_\w+)_(bf16|f16|f64) = _\w+_of\(.*\)$", r"\1_\2 = \1_f32", source)
    return source.replace("cache=True", "cache=False")
