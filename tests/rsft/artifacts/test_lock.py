"""One process at a time writes a run's folder, and a killed one does not keep it."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from rskernels.rsft.artifacts.lock import LOCK, hold
from rskernels.rsft.errors import CheckpointError

HOLD = """
import os, sys, time
from pathlib import Path
from rskernels.rsft.artifacts.lock import hold
with hold(Path(sys.argv[1])):
    if len(sys.argv) > 2 and os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
    if len(sys.argv) == 2:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


def start(*arguments):
    code = [sys.executable, "-c", HOLD, *map(str, arguments)]
    process = subprocess.Popen(code, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    return process, int(process.stdout.readline())


def test_the_second_is_refused_and_the_next_is_not(tmp_path):
    refused = pytest.raises(CheckpointError, match=f"process {os.getpid()} on ")
    with hold(tmp_path), refused, hold(tmp_path):
        pytest.fail("held twice")
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyError), hold(tmp_path):
        raise KeyError
    with hold(tmp_path):
        assert (tmp_path / LOCK).is_file()


@pytest.mark.process
def test_another_process_holds_until_it_is_killed(tmp_path):
    process, number = start(tmp_path)
    try:
        refused = pytest.raises(CheckpointError, match=f"by another run, process {number} on ")
        with refused, hold(tmp_path):
            pytest.fail("held twice")
    finally:
        process.kill()
        process.communicate()
    assert (tmp_path / LOCK).is_file()
    with hold(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.process
def test_a_child_that_outlives_a_killed_run_does_not_hold(tmp_path):
    process, child = start(tmp_path, "fork")
    try:
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        with hold(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_a_file_system_without_locks_is_said(tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    with hold(tmp_path):
        assert "cannot be locked (No locks available)" in capsys.readouterr().err
