"""The command where the locale is not UTF-8, and in folders whose names are not text."""

import json
import os
import subprocess
import sys

import pytest

OF_ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
QUICK = ["--data", "wine", "--epochs", "2", "--imbalance", "4"]


def command(*arguments, status=0, **environment):
    """Run the command in a process, and return what it printed, as bytes; or its errors."""
    done = subprocess.run(
        [sys.executable, "-m", "rskernels", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == status, done.stderr.decode("utf-8", "replace")
    return done.stderr if status else done.stdout


@pytest.mark.process
@pytest.mark.parametrize(
    "environment",
    [OF_ASCII, {"PYTHONIOENCODING": "latin-1:strict"}],
)
def test_a_run_and_its_help_are_printed(tmp_path, environment):
    assert b"--envelope" in command("train", "--help", **environment)
    out = command("train", *QUICK, "--out", str(tmp_path), **environment)
    assert b"delta^" in out
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["epoch"] == 2


@pytest.mark.process
def test_a_comparison_is_reported_in_utf8(tmp_path):
    arguments = ["--quick", "--seeds", "1", "--experiments", "wine", "--cases", "accept, M max"]
    out = command("compare", *arguments, "--out", str(tmp_path), **OF_ASCII)
    assert b"report: " in out
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "δ̂" in report
    assert report.endswith(".png)\n")


@pytest.mark.process
def test_a_folder_whose_name_is_no_text(tmp_path):
    folder = os.fsencode(tmp_path) + b"/run\xff"
    refused = command("train", *QUICK, "--out", folder, status=1)
    assert b"TensorBoard needs a folder whose name is text, got b'" in refused
    assert b"run\\xff" in refused
    compared = ["compare", "--quick", "--seeds", "1", "--experiments", "wine", "--cases", "plain"]
    out = command(*compared, "--out", str(tmp_path / "runs"), "--report", folder)
    assert b"report: " + folder in out.replace(b"\n", b"")
    assert b"report.md" in os.listdir(folder)
