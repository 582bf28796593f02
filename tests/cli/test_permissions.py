"""Folders that a user may not write to are told of before the work, not after it."""

import os

import pytest
from typer.testing import CliRunner

from rskernels.cli.app import app

TRAIN = ["train", "--epochs", "1", "--data", "digits", "--method", "plain"]


@pytest.fixture
def unwritable(tmp_path):
    """Make a folder that nobody but root may write to."""
    folder = tmp_path / "unwritable"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        # There the test would prove nothing, and must not be left out.
        assert "RSKERNELS_UNPRIVILEGED" not in os.environ
        pytest.skip("root may write anywhere: make test-unprivileged runs this")
    return folder


def invoke(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, result.output


@pytest.mark.unprivileged
def test_a_report_that_cannot_be_written_is_told_of_before_the_runs(unwritable, tmp_path):
    out = tmp_path / "runs"
    code, said = invoke("compare", "--quick", "--out", out, "--report", unwritable)
    assert code == 1
    assert str(unwritable) in said
    assert "cannot be written" in said
    assert not list(tmp_path.rglob("metrics.jsonl"))


@pytest.mark.unprivileged
@pytest.mark.parametrize("name", [".", "below"])
def test_a_run_that_cannot_be_written_is_an_error_that_names_its_folder(unwritable, name):
    code, said = invoke(*TRAIN, "--out", unwritable / name)
    assert code == 1
    assert str(unwritable) in said
    assert "Traceback" not in said


@pytest.mark.unprivileged
def test_a_run_of_another_user_is_neither_gone_on_with_nor_harmed(tmp_path, unwritable):
    out = tmp_path / "run"
    assert invoke(*TRAIN, "--out", out)[0] == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    for path in (*before, out):
        path.chmod(0o555)
    for more in (["--epochs", "2", "--resume"], ["--overwrite"]):
        code, said = invoke(*TRAIN, "--out", out, *more)
        assert code == 1, said
        assert str(out) in said
        assert {path: path.read_bytes() for path in out.iterdir()} == before
    out.chmod(0o755)
