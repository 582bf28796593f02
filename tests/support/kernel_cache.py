"""A kernel that is compiled in a moment, and what is kept of it."""

import os

import pytest
from numba import njit
from numba.core import config

from rskernels.kernels.cpu.cache import cached, once, places

from .processes import run_python


def addition():
    """Return an addition as another process would have it, with nothing compiled yet."""

    @cached
    @njit
    def add(a, b):
        return a + b

    return add


def misses(function):
    """Return how often a function was compiled."""
    return sum(function.stats.cache_misses.values())


def kept(folder):
    """Return the files of kernels below a folder."""
    return sorted(folder.rglob("*.nbk"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Only the folders of a test: the chosen one, the package's own, a home and a temporary one."""
    (tmp_path / "package").mkdir()
    monkeypatch.setattr(places, "HERE", tmp_path / "package")
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "chosen"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(places.tempfile, "tempdir", str(tmp_path / "tmp"))
    once.warn.cache_clear()
    return tmp_path


@pytest.fixture
def only_temporary(folder, monkeypatch):
    """Folders of which none but the temporary one can be written."""
    monkeypatch.setattr(config, "CACHE_DIR", "")
    for name in ("package/__pycache__", "home"):
        (folder / name).write_text("a file, and no folder", encoding="utf-8")
    return folder / "tmp" / f"rskernels-{os.geteuid()}"


EMPTY = """
from pathlib import Path
from rskernels.kernels.cpu.cache import made, places

# Nothing that this tree or this user has compiled before is found.
places.HERE = Path({folder!r}, "package")

def asked_for():
    return sorted({{
        kernel.__name__ for kernel in made()
        if sum(kernel.stats.cache_misses.values()) + sum(kernel.stats.cache_hits.values())
    }})
"""


def run_with_cache(folder, code, **environment):
    """Run code in a fresh interpreter whose kernels are those in a folder, and return its output.

    The code may call ``asked_for()``, which names the kernels that it compiled or found.
    """
    own = {"NUMBA_CACHE_DIR": str(folder / "kernels"), "XDG_CACHE_HOME": str(folder / "home")}
    text = EMPTY.format(folder=str(folder)) + code
    return run_python(text, timeout=300, **{**own, **environment})
