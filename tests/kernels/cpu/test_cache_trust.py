"""Compiled kernels that others could have laid there, or that are of another function."""

import ctypes
import ctypes.util
import importlib
import os
import pickle
import py_compile
import sys
import zipfile

import pytest
from numba import njit
from numba.core import config

from rskernels.kernels.cpu import cache
from rskernels.kernels.cpu.cache import cached, kernels
from rskernels.kernels.cpu.cache.digests import digest, sources_digest

from ...support.kernel_cache import addition, kept, misses

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives away what is its own")


def open_to_all(place):
    place.mkdir()
    place.chmod(0o777)


def of_another(place):
    place.mkdir(mode=0o700)
    os.chown(place, 65534, 65534)


def linked(place):
    elsewhere = place.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    place.symlink_to(elsewhere)


def exchangeable(place):
    place.mkdir(mode=0o700)
    place.parent.chmod(0o777)


@pytest.mark.parametrize("lay", [open_to_all, of_another, linked, exchangeable])
def test_code_that_others_could_have_laid_there_is_not_run(only_temporary, lay):
    if lay is of_another and os.geteuid() != 0:
        pytest.skip("only root can make a folder that is another's")
    lay(only_temporary)
    with pytest.warns(RuntimeWarning, match="cannot be kept"):
        assert addition()(1, 2) == 3
    assert not kept(only_temporary)


class Ran(Exception):
    """Raised by code that was run."""


class Raising:
    """What raises as it is unpickled."""

    def __reduce__(self):
        return exec, (f"from {__name__} import Ran\nraise Ran",)


def laid_by_another(file, change):
    """Put code in a file, as whoever may write it could."""
    own, payload = file.read_bytes()[:32], pickle.dumps(Raising())
    file.write_bytes(own + digest(own + payload) + payload)
    change(file)


FOREIGN = {
    "a file of another": lambda file: os.chown(file, 65534, -1),
    "a file that all can write": lambda file: file.chmod(0o666),
    "a file that a group can write": lambda file: file.chmod(0o664),
    "a folder of another": lambda file: os.chown(file.parent, 65534, -1),
    "a folder that all can write": lambda file: file.parent.chmod(0o777),
    "a folder that a group can write": lambda file: file.parent.chmod(0o775),
}


@NEEDS_ROOT
@pytest.mark.parametrize("change", FOREIGN)
def test_what_others_can_write_is_not_run(folder, change):
    assert addition()(1, 2) == 3
    (file,) = kept(folder / "chosen")
    laid_by_another(file, FOREIGN[change])
    said = "is not used" if "file" in change else "are kept in"
    with pytest.warns(RuntimeWarning, match=rf"{said}.*(of user 65534|other users can write it)"):
        assert addition()(1, 2) == 3
    again = addition()
    assert again(1, 2) == 3
    assert misses(again) == 0


@NEEDS_ROOT
def test_a_package_is_trusted_with_its_own_kernels(folder, monkeypatch, recwarn):
    # As pip installs it for a user whose umask lets the group write.
    monkeypatch.setattr(config, "CACHE_DIR", "")
    beside = folder / "package" / "__pycache__"
    beside.mkdir()
    for path in (beside.parent, beside):
        os.chown(path, 65534, -1)
        path.chmod(0o775)
    assert addition()(1, 2) == 3
    (file,) = kept(beside)
    os.chown(file, 65534, -1)
    again = addition()
    assert again(1, 2) == 3
    assert misses(again) == 0
    beside.chmod(0o777)
    assert addition()(1, 2) == 3
    assert kept(folder / "home")
    assert not recwarn.list


def test_files_are_this_users_to_write_whatever_the_umask(folder):
    before = os.umask(0)
    try:
        assert addition()(1, 2) == 3
    finally:
        os.umask(before)
    (file,) = kept(folder)
    assert [path.stat().st_mode & 0o777 for path in (file, file.parent)] == [0o644, 0o755]


def adding(number):
    @cached
    @njit
    def add(x):
        return x + number

    return add


def calling(inner):
    @cached
    @njit
    def call(x):
        return inner(x)

    return call


def test_closures_of_one_name_are_kept_apart(folder):
    for _ in range(2):
        assert [adding(number)(3) for number in (1, 2, 1.0)] == [4, 5, 4.0]
        inner = [njit(lambda x: x + 1), njit(lambda x: x + 2), njit(lambda x: abs(x))]
        assert [calling(function)(-3) for function in inner] == [-2, -1, 3]
    assert len(kept(folder)) == 6


def test_functions_of_one_name_are_kept_apart(folder):
    results = []
    for module, code in (("a.same", "x + 1"), ("b.same", "x + 1"), ("a.same", "x + 2")):
        names = {"__name__": module}
        exec(f"def f(x): return {code}", names)
        results.append(cached(njit(names["f"]))(3))
    assert results == [4, 4, 5]
    assert len(kept(folder)) == 3


cosine = ctypes.CDLL(ctypes.util.find_library("m")).cos
cosine.restype, cosine.argtypes = ctypes.c_double, [ctypes.c_double]


def global_address(x):
    return cosine(x)


@pytest.mark.parametrize("where", ["global", "closure"])
def test_addresses_of_a_process_are_not_kept(folder, where):
    with pytest.warns(RuntimeWarning, match="cannot be kept"):
        assert (cached(njit(global_address)) if where == "global" else calling(cosine))(0.0) == 1.0
    assert not kept(folder)


PRIVATE = (
    "numba.core.caching:_Cache",
    "numba.core.serialize:dumps",
    "numba.core.compiler:CompileResult._reduce",
    "numba.core.compiler:CompileResult._rebuild",
    "numba.core.codegen:JITCodeLibrary.has_dynamic_globals",
    "numba.misc.appdirs:AppDirs",
)


@pytest.mark.parametrize("lacking", PRIVATE)
def test_another_numba_compiles_without_a_cache(folder, monkeypatch, lacking):
    module, _, name = lacking.partition(":")
    *around, name = name.split(".")
    holder = importlib.import_module(module)
    for part in around:
        holder = getattr(holder, part)
    for owner in getattr(holder, "__mro__", (holder,)):
        if name in vars(owner):
            monkeypatch.delattr(owner, name)
    for own in ("kernels", "places", "digests"):
        monkeypatch.delitem(sys.modules, f"{cache.__name__}.{own}")
        monkeypatch.delattr(cache, own)
    with pytest.warns(RuntimeWarning, match=f"cannot be kept.*{name}") as seen:
        assert [addition()(1, 2), addition()(3, 4)] == [3, 7]
    assert len(seen) == 1
    assert not kept(folder)


def lay(folder, number, form):
    """Lay a package of one module out as source, bytecode or an archive; return its place."""
    source = folder / f"{form}{number}" / "source"
    package = source / "some_rows" / "inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("", encoding="utf-8")
    (package / "__init__.py").write_text(f"NUMBER = {number}", encoding="utf-8")
    if form == "source":
        return source
    for path in sorted(source.rglob("*.py")):
        py_compile.compile(path, path.with_suffix(".pyc"), doraise=True)
        path.unlink()
    if form == "bytecode":
        return source
    with zipfile.ZipFile(source.with_suffix(".zip"), "w") as archive:
        for path in sorted(source.rglob("*.pyc")):
            archive.write(path, path.relative_to(source))
    return source.with_suffix(".zip")


@pytest.mark.parametrize("form", ["source", "bytecode", "archive"])
def test_other_sources_are_seen_in_every_form_of_a_package(tmp_path, monkeypatch, form):
    digests = set()
    for number in (1, 2):
        monkeypatch.syspath_prepend(lay(tmp_path, number, form))
        for name in ("some_rows", "some_rows.inner"):
            sys.modules.pop(name, None)
        assert number == importlib.import_module("some_rows.inner").NUMBER
        digests.add(sources_digest(["some_rows"]))
        sys.modules.pop("some_rows")
        sys.modules.pop("some_rows.inner")
    assert len(digests) == 2


def test_names_and_lengths_are_parts_of_the_sources(tmp_path, monkeypatch):
    digests = set()
    for number, parts in enumerate((("ab", "c"), ("a", "bc"))):
        package = tmp_path / str(number) / "parts_of_rows"
        package.mkdir(parents=True)
        for name, text in zip(("__init__", "one"), parts, strict=True):
            (package / f"{name}.py").write_text(f"#{text}", encoding="utf-8")
        monkeypatch.syspath_prepend(package.parent)
        digests.add(sources_digest(["parts_of_rows"]))
        sys.modules.pop("parts_of_rows")
    assert len(digests) == 2


def test_without_any_sources_nothing_is_kept(folder, monkeypatch):
    monkeypatch.setattr(kernels, "stamp", lambda: sources_digest(["empty_rows"]))
    (folder / "empty_rows").mkdir()
    monkeypatch.syspath_prepend(folder)
    with pytest.warns(RuntimeWarning, match="cannot be kept.*empty_rows has no files"):
        assert addition()(1, 2) == 3
    assert not kept(folder)
