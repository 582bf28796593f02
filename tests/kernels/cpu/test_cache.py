"""Compiled kernels on disk: found by the next process, healed where damaged, never in the way."""

import contextlib
import os
import resource
import shutil

import pytest
from numba.core import config

from rskernels import _core
from rskernels.kernels.cpu.cache import kernels, places
from rskernels.kernels.cpu.cache.digests import digest

from ...support.kernel_cache import addition, kept, misses
from ...support.package import FOLDER
from ...support.processes import drop_privileges, run_python


def test_what_is_compiled_is_found_again(folder):
    first, again = addition(), addition()
    assert first(1, 2) == 3
    assert again(3, 4) == 7
    assert (misses(first), misses(again)) == (1, 0)
    (file,) = kept(folder)
    assert file.is_relative_to(folder / "chosen")


DAMAGES = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "garbage": lambda content: b"\xa5" * len(content),
    "one bit": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "not a kernel": lambda content: content[:32] + digest(content[:32] + b"N.") + b"N.",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_healed(folder, damage):
    assert addition()(1, 2) == 3
    (file,) = kept(folder)
    sound = file.read_bytes()
    file.write_bytes(DAMAGES[damage](sound))
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert addition()(1, 2) == 3
    healed = addition()
    assert healed(1, 2) == 3
    assert misses(healed) == 0


def test_a_damaged_file_is_no_news_where_a_sound_one_is(folder, recwarn):
    assert addition()(1, 2) == 3
    (file,) = kept(folder)
    copy = folder / "package" / "__pycache__" / file.name
    copy.parent.mkdir()
    shutil.copy(file, copy)
    file.write_bytes(b"damaged")
    again = addition()
    assert again(1, 2) == 3
    assert misses(again) == 0
    assert not recwarn.list


def of_sources(monkeypatch, stamp):
    """Return an addition of other sources, as of another version."""
    monkeypatch.setattr(kernels, "stamp", lambda: bytes([stamp]) * 32)
    return addition()


def test_versions_keep_their_kernels_side_by_side(folder, monkeypatch):
    for stamp in (1, 2):
        assert of_sources(monkeypatch, stamp)(1, 2) == 3
    for stamp in (1, 2):
        again = of_sources(monkeypatch, stamp)
        assert again(1, 2) == 3
        assert misses(again) == 0
    assert len(kept(folder)) == 2


def test_a_kernel_of_other_sources_is_not_used(folder, monkeypatch):
    # Whose digests begin alike, so that the names of their files are the same.
    monkeypatch.setattr(kernels, "stamp", lambda: bytes(32))
    assert addition()(1, 2) == 3
    monkeypatch.setattr(kernels, "stamp", lambda: bytes(31) + b"1")
    edited, again = addition(), addition()
    assert edited(1, 2) == again(1, 2) == 3
    assert (misses(edited), misses(again)) == (1, 0)
    assert len(kept(folder)) == 1


def test_what_other_versions_did_not_use_for_a_month_is_removed(folder, monkeypatch):
    for stamp in (1, 2):
        assert of_sources(monkeypatch, stamp)(1, 2) == 3
    unused = next(file for file in kept(folder) if ".01010101." in file.name)
    left = unused.with_name(f"{unused.name}.0.tmp")
    left.write_bytes(b"of a process that was killed")
    for file in (unused, left):
        os.utime(file, (1, 1))
    assert of_sources(monkeypatch, 3)(1, 2) == 3
    names = [file.name for file in kept(folder)]
    assert [name.split(".")[-3] for name in names] == ["02020202", "03030303"]
    assert not left.exists()


@pytest.mark.parametrize("option", kernels.OPTIONS)
def test_a_kernel_of_other_options_is_another(folder, monkeypatch, option):
    assert addition()(1, 2) == 3
    monkeypatch.setattr(config, option, 1 - bool(getattr(config, option)))
    other = addition()
    assert other(1, 2) == 3
    assert misses(other) == 1
    assert len(kept(folder)) == 2


class Alarm(Exception):
    """Raised by a signal's handler."""


@pytest.mark.parametrize("error", [Alarm, TimeoutError])
@pytest.mark.parametrize("doing", ["read", "write"])
def test_what_a_signal_raises_is_not_lost(folder, monkeypatch, doing, error):
    def interrupted(*arguments):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(places.Place, doing, interrupted)
        with pytest.raises(error):
            addition()(1, 2)
    assert addition()(1, 2) == 3
    assert len(kept(folder)) == 1


@contextlib.contextmanager
def full_disk():
    """Let no file grow beyond a kilobyte."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_costs_a_warning_and_leaves_nothing(folder):
    with pytest.warns(RuntimeWarning, match=r"cannot be kept .*set NUMBA_CACHE_DIR"), full_disk():
        assert addition()(1, 2) == 3
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_a_chosen_folder_that_cannot_be_written_is_named(folder, monkeypatch):
    (folder / "chosen").write_text("a file, and no folder", encoding="utf-8")
    with pytest.warns(RuntimeWarning, match=r"are kept in .*package.*chosen.*Not a directory"):
        assert addition()(1, 2) == 3


def test_the_temporary_folder_serves_where_there_is_no_other(only_temporary):
    with pytest.warns(RuntimeWarning, match="set NUMBA_CACHE_DIR"):
        assert addition()(1, 2) == 3
    assert only_temporary.stat().st_mode & 0o777 == 0o700
    again = addition()
    assert again(1, 2) == 3
    assert misses(again) == 0


def test_no_folder_depends_on_where_the_process_is(folder, monkeypatch):
    # As of a user who has no home.
    monkeypatch.setenv("XDG_CACHE_HOME", "~/.cache")
    assert all(place.folder.is_absolute() for place in places.places())


READ_ONLY = """
import os, sys, tempfile, warnings
# An editable install would give the tree that the tests run in.
sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__module__.startswith("_editable")]
import rskernels, torch
from rskernels.kernels import cpu

assert not os.access(rskernels.__path__[0], os.W_OK)
ratios = torch.tensor([0.0, -float("inf")])
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    assert rskernels.bernoulli_mask(ratios, seed=1).tolist() == [True, False]
    tempfile.tempdir = "/nowhere"
    assert cpu.philox(torch.zeros(1, 4).long(), torch.zeros(1, 2).long()).shape == (1, 4)
for warning in seen:
    print(warning.message)
"""


@pytest.mark.process
@pytest.mark.unprivileged
def test_an_installation_where_nothing_can_be_written(tmp_path):
    """A container's user: the package and the home are read-only."""
    installed = tmp_path / "installed" / "rskernels"
    shutil.copytree(FOLDER, installed, ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    shutil.copy2(_core.__file__, installed)
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    closed = [home, installed, *(path for path in installed.rglob("*") if path.is_dir())]
    for path in closed:
        path.chmod(0o555)
    environment = {"HOME": str(home), "XDG_CACHE_HOME": "", "TMPDIR": str(temporary)}
    environment |= {"NUMBA_CACHE_DIR": "", "PYTHONPATH": str(installed.parent)}
    try:
        output = run_python(READ_ONLY, cwd=tmp_path, preexec_fn=drop_privileges, **environment)
    finally:
        for path in closed:
            path.chmod(0o755)
    kept, not_kept = output.splitlines()
    assert f"are kept in {temporary}" in kept
    assert "cannot be kept" in not_kept
    assert kept.count("set NUMBA_CACHE_DIR") == not_kept.count("set NUMBA_CACHE_DIR") == 1
