"""Check what the sdist and the wheel hold: ``check_wheel.py SDIST WHEEL``."""

import io
import sys
import tarfile
import zipfile
from pathlib import PurePosixPath

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

SDIST_NEEDS = (
    "CMakeLists.txt",
    "LICENSE",
    "README.md",
    "csrc/CMakeLists.txt",
    "pyproject.toml",
    "python/CMakeLists.txt",
    "rskernels/__init__.py",
    "rskernels/experiments/multimodal/spoken_digits.npz",
    "scripts/make_spoken_digits.py",
    "tests/conftest.py",
    "tests/support/backends.py",
)
WHEEL_NEEDS = (
    "rskernels/__init__.py",
    "rskernels/_core.pyi",
    "rskernels/py.typed",
    "rskernels/experiments/multimodal/spoken_digits.npz",
)
# An allowed list, so that libtorch, libgomp and whatever comes next are all refused.
LIBRARIES = ("ld-linux", "libc.", "libgcc_s.", "libm.", "libpthread.", "libstdc++.")
SUFFIXES = {".npz", ".py", ".pyi", ".typed", ".so"}


def check_sdist(path: str) -> list[str]:
    """Return what is wrong with the sdist."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wrong = [f"lacks {name}" for name in SDIST_NEEDS if name not in names]
    return wrong + [f"holds {name}" for name in names if name.endswith((".so", ".nbi", ".nbc"))]


def check_wheel(path: str) -> list[str]:
    """Return what is wrong with the wheel."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        extensions = {name: archive.read(name) for name in names if name.endswith(".so")}
    wrong = [f"lacks {name}" for name in WHEEL_NEEDS if name not in names]
    for name in map(PurePosixPath, names):
        # Neither tests, nor csrc, nor a `.libs` folder beside the package.
        if name.parts[0].endswith(".dist-info"):
            continue
        if name.parts[0] != "rskernels" or name.suffix not in SUFFIXES:
            wrong.append(f"holds {name}")
    if [PurePosixPath(name).name.partition(".")[0] for name in extensions] != ["_core"]:
        wrong.append(f"has the extension modules {sorted(extensions)}, not _core alone")
    for name, content in extensions.items():
        wrong += [
            f"{name} links {library}"
            for library in needed(content)
            if not library.startswith(LIBRARIES)
        ]
    return wrong


def needed(content: bytes) -> list[str]:
    """Return the libraries that an ELF file names."""
    dynamic = ELFFile(io.BytesIO(content)).get_section_by_name(".dynamic")
    assert isinstance(dynamic, DynamicSection)
    return [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]


def main() -> None:
    """Check both files named on the command line."""
    sdist, wheel = sys.argv[1:]
    wrong = [f"{sdist} {what}" for what in check_sdist(sdist)]
    wrong += [f"{wheel} {what}" for what in check_wheel(wheel)]
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{wheel}: contents as they should be")


if __name__ == "__main__":
    main()
