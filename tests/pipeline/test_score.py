"""Scores by functions of users: every row comes back with its own, or is counted and named."""

import json
import re
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from rskernels.cli.app import app
from rskernels.pipeline import Columns, Reward, ScoreConfig, score
from rskernels.rsft.errors import CheckpointError, DataError

from . import files, rewards

SUFFIXES = (".jsonl", ".parquet", ".arrow")


@pytest.fixture(autouse=True)
def _calls():
    rewards.CALLS.clear()


def config_of(name, max_bad=0, as_=None, batch_size=256, **columns):
    reward = Reward(f"{rewards.__name__}:{name}", batch_size)
    return ScoreConfig(reward, as_, Columns(**columns), max_bad)


def scored(rows, folder, name, suffix=".jsonl", size=None, **options):
    """Return the rows of a table with their scores, and the report."""
    path = files.write(rows, folder / f"rows{suffix}", group=200)
    out = folder / f"out-{name}{suffix}"
    report = score([path], out, config_of(name, **options), piece_size=size)
    return files.read(out, "scored"), report


def unscored(rows=600):
    return files.table(rows).drop_columns(["reward"])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["answers", "sevenths"])
def test_rows_come_back_in_order_with_their_rewards(suffix, name, tmp_path):
    rows = unscored()
    size = 30_000 if suffix == ".jsonl" else 200
    got, report = scored(rows, tmp_path, name, suffix, size=size, batch_size=7)
    given = rows.to_pylist()
    if name == "answers":
        want = [int(row["completion"].split()[1]) / 8 for row in given]
    else:
        want = [float(row["id"] % 7 == 0) for row in given]
    assert got == [{**row, "reward": value} for row, value in zip(given, want, strict=True)]
    assert (report["rows"], report["scored"], report["bad"]) == (600, 600, 0)
    assert report["mean"] == pytest.approx(sum(want) / 600)
    assert sum(count for _, count, _ in report["scores"]) == 600


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_conversations_are_lists_of_messages(suffix, tmp_path):
    rows = files.conversations(unscored(60))
    got, _ = scored(rows, tmp_path, "of_messages", suffix, as_="ratio")
    for row in got:
        _, prompt, completion = row["messages"]
        assert row["ratio"] == len(prompt["content"]) / len(completion["content"])


def test_a_text_that_answers_messages_is_a_message(tmp_path):
    line = {"prompt": [{"role": "system", "content": "a"}, {"role": "user", "content": "bb"}]}
    rows = pa.Table.from_pylist([{**line, "completion": "c"}])
    (row,), _ = scored(rows, tmp_path, "of_messages")
    assert (row["completion"], row["reward"]) == ("c", 2.0)


def test_a_function_may_be_async(tmp_path):
    got, _ = scored(unscored(20), tmp_path, "later")
    assert [row["reward"] for row in got] == [1.0] * 20


def test_lines_are_as_they_were_but_for_the_score(tmp_path):
    lines = ['{"prompt":"ü", "x": 1.50 , "completion": "a 1" }', '{"prompt":"","completion":"a 4"}']
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    score([path], tmp_path / "out", config_of("answers"))
    text = (tmp_path / "out" / "scored.jsonl").read_text(encoding="utf-8").splitlines()
    assert text == [lines[0][:-2] + ', "reward": 0.125}', lines[1][:-1] + ', "reward": 0.5}']


BAD = {
    "dies_on_nine": ("ZeroDivisionError: division by zero", lambda text: text == "answer 9"),
    "odd": ("the reward", lambda text: text[-1] in "1234"),
    "too_few": ("ValueError: 0 rewards were returned for 1 rows", lambda text: text == "answer 3"),
    "huge": ("the reward is too large for a float64", lambda text: text == "answer 3"),
    "exits": ("RuntimeError: the function raised SystemExit(0)", lambda text: text == "answer 3"),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("name", BAD)
def test_rows_without_a_reward_are_counted_named_and_left_out(name, suffix, tmp_path):
    why, is_bad = BAD[name]
    rows = unscored()
    given = rows.to_pylist()
    count = sum(is_bad(row["completion"]) for row in given)
    first = next(n for n, row in enumerate(given, 1) if is_bad(row["completion"]))
    got, report = scored(rows, tmp_path, name, suffix, max_bad=count)
    assert [row["id"] for row in got] == [r["id"] for r in given if not is_bad(r["completion"])]
    assert (report["bad"], report["scored"]) == (count, 600 - count)
    place = f"{'line' if suffix == '.jsonl' else 'row'} {first}: {why}"
    assert place in report["named"][0]
    (tmp_path / "strict").mkdir()
    why = rf"(?s)without a score so far, --max-bad lets .*{re.escape(place)}"
    with pytest.raises(DataError, match=why):
        scored(rows, tmp_path / "strict", name, suffix, max_bad=count - 1)


def test_what_reasons_there_are_to_have_no_reward(tmp_path):
    rows = pa.Table.from_pylist([{"prompt": "", "completion": f"{n}"} for n in range(5)])
    _, report = scored(rows, tmp_path, "odd", max_bad=4)
    assert [line.partition(": ")[2].partition(": ")[2] for line in report["named"]] == [
        "the reward is None", "the reward is nan", "the reward must be a number, got '3'",
        "the reward is inf",
    ]  # fmt: skip


def test_malformed_rows_are_not_given_to_the_function(tmp_path):
    good = '{"prompt": "p", "completion": "c 1"}'
    faults = ["{", "[1]", '{"prompt": "p"}', '{"prompt": 3, "completion": "c 2"}',
              '{"prompt": "p", "completion": "c 3", "reward": 1}']  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([good, *faults, good]), encoding="utf-8")
    report = score([path], tmp_path / "out", config_of("answers", max_bad=5))
    assert (report["rows"], report["bad"], rewards.CALLS) == (7, 5, ["c 1", "c 1"])
    assert [line.split(": ")[1] for line in report["named"]] == [f"line {n}" for n in range(2, 7)]
    assert "there is a column 'reward' already" in report["named"][4]


def test_nothing_is_scored_twice_after_a_fault(tmp_path, monkeypatch):
    rows = unscored()
    path = files.write(rows, tmp_path / "rows.parquet", group=100)
    out, config = tmp_path / "out", config_of("answers")
    answers, left = rewards.answers, iter(range(2))

    def fails(prompts, completions):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return answers(prompts, completions)

    monkeypatch.setattr(rewards, "answers", fails)
    with pytest.raises(KeyboardInterrupt):
        score([path], out, ScoreConfig(Reward(f"{rewards.__name__}:answers", 256, "/interrupted")),
              piece_size=100)  # fmt: skip
    monkeypatch.undo()
    assert len(rewards.CALLS) == 200
    with pytest.raises(CheckpointError, match="already holds"):
        score([path], out, config, piece_size=100)
    score([path], out, config, piece_size=100, resume=True)
    assert rows["completion"].to_pylist() == rewards.CALLS
    assert [row["id"] for row in files.read(out, "scored")] == rows["id"].to_pylist()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("needy", "needs the column 'answer'"),
        ("nameless", "has no prompts"),
        ("absent", "has no function 'absent'"),
        ("answers", "there is a column 'score' already; name another with --as"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(name, message, tmp_path):
    with pytest.raises(DataError, match=message):
        scored(unscored(20), tmp_path, name, as_="score" if name == "answers" else None)
    assert not list(tmp_path.glob("out*"))


def test_parts_hold_the_same_rows(tmp_path):
    rows = unscored()
    path = files.write(rows, tmp_path / "rows.parquet", group=200)
    out = tmp_path / "out"
    score([path], out, replace(config_of("answers"), parts=True), piece_size=200)
    parts = sorted((out / "scored").iterdir())
    assert len(parts) == 3
    assert [i for part in parts for i in pq.read_table(part)["id"].to_pylist()] == (
        rows["id"].to_pylist()
    )
    score([path], out, config_of("answers"), overwrite=True)
    assert not (out / "scored").exists()


def test_the_command(tmp_path, monkeypatch):
    (tmp_path / "my_rewards_of_the_command.py").write_text(
        "def short(prompts, completions, note=None):\n    return [-len(c) for c in completions]\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    files.write(unscored(40), tmp_path / "rows.jsonl")
    command = ["score", "rows.jsonl", "--out", "out"]
    more = ["--reward", "my_rewards_of_the_command:short", "--as", "brief"]
    result = CliRunner().invoke(app, [*command, *more])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "out" / "report.json").read_text(encoding="utf-8")
    assert json.loads(text)["most"] == -8
    assert all(r["brief"] == -len(r["completion"]) for r in files.read(tmp_path / "out", "scored"))
    result = CliRunner().invoke(app, [*command, *more, "--log-prob", "x"])
    assert "exactly one of --reward and --log-prob" in result.output
    result = CliRunner().invoke(app, [*command, "--reward", "my_rewards_of_the_command.short"])
    assert "module:function" in result.output
    result = CliRunner().invoke(app, [*command, *more, "--address", "auto"])
    assert result.exit_code == 2
    assert "are for the engine 'ray'" in result.output
