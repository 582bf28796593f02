"""``rskernels rft``: a run by the command, and what it refuses."""

import json

import pytest
from typer.testing import CliRunner

from rskernels.cli.app import app

from . import tiny


@pytest.fixture
def invoke(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    return lambda *arguments: CliRunner().invoke(app, ["rft", *map(str, arguments)])


def test_a_run_by_the_command(invoke, tmp_path):
    given, data = tiny.folder(tmp_path / "given"), tmp_path / "data.jsonl"
    rows = [{"prompt": f"{n}=", "answer": n} for n in range(10)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = [
        "--model", given, "--tasks", "answer", "--data", data, "--test-fraction", 0.3,
        "--answer-pattern", r"^\d", "--rounds", 1, "--samples", 8, "--max-new-tokens", 3,
        "--form", "verifier", "--beta", 0.5, "--eval-samples", 2, "--out", tmp_path / "run",
    ]  # fmt: skip
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert "distinct right" in result.output
    assert f"report: {tmp_path / 'run' / 'report.md'}" in result.output
    summary = json.loads((tmp_path / "run/summary.json").read_text(encoding="utf-8"))
    assert (summary["answers"], summary["round"]) == (7 * 8, 1)
    assert "already holds a run" in invoke(*arguments).output
    assert invoke(*arguments, "--resume").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--model is needed"),
        (("--model", "m"), "--tasks is needed"),
        (("--model", "m", "--tasks", "parity", "--resume", "--overwrite"), "at most one"),
        (("--form", "raft", "--beta", "1"), "only form verifier or bounded"),
        (("--model", "nowhere", "--tasks", "answer"), "needs --data"),
    ],
)
def test_what_the_command_refuses(invoke, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.output
