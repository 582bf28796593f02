"""Malformed rows are counted and named; ids that come twice and files that do not fit, refused."""

import json

import pyarrow as pa
import pytest

from rskernels.pipeline import Columns, select
from rskernels.rsft.errors import DataError

from . import files


def write_lines(path, lines):
    path.write_bytes(b"".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


GOOD = [
    json.dumps({"prompt": "p", "completion": f"c{n}", "reward": n % 2, "id": n}) for n in range(4)
]
BAD = {
    "no JSON": (b'{"prompt": "p", \n', "Expecting property name"),
    "no object": (b"[1, 2]\n", "must be a JSON object"),
    "two objects": (b'{"id": 1} {"id": 2}\n', "Extra data"),
    "no reward": (b'{"prompt": "p", "completion": "c"}\n', "reward is missing"),
    "a null": (b'{"prompt": null, "completion": "c", "reward": 1}\n', "prompt is missing"),
    "no number": (b'{"prompt": "p", "completion": "c", "reward": "1"}\n', "must be a number"),
    "no verdict": (b'{"prompt": "p", "completion": "c", "reward": 0.5}\n', "0.5 is not 0 or 1"),
    "NaN": (b'{"prompt": "p", "completion": "c", "reward": NaN}\n', "nan is not 0 or 1"),
    "no text": (b'{"prompt": 7, "completion": "c", "reward": 1}\n', "must be text or a list"),
    "no UTF-8": (b'{"prompt": "\xff", "completion": "c", "reward": 1}\n', "can't decode byte"),
    "half a pair": (b'{"prompt": "\\ud800", "completion": "c", "reward": 1}\n', "surrogates"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_line_is_named(name, tmp_path):
    line, why = BAD[name]
    lines = [GOOD[0] + "\n", "\n", GOOD[1] + "\r\n", line, "  \n", GOOD[2] + "\n", GOOD[3]]
    path = write_lines(tmp_path / "rows.jsonl", lines)
    for size in (None, 60):
        with pytest.raises(DataError, match=rf"(?s)1 malformed.*rows\.jsonl: line 4: .*{why}"):
            select([path], tmp_path / f"refused-{size}", files.config_of("verifier", beta=0.0),
                   piece_size=size)  # fmt: skip
    ids, report = files.kept(path, tmp_path / "passed", beta=0.0, max_bad=1)
    assert ids == [1, 3]
    assert (report["rows"], report["bad"], report["prompts"]["count"]) == (5, 1, 1)
    assert "line 4" in (tmp_path / "passed" / "report.md").read_text(encoding="utf-8")


def test_lines_are_kept_to_the_byte(tmp_path):
    lines = [
        '{"id": 1,"reward":true , "prompt":"\\u00fc", "completion": "a", "x": 1.50}\n',
        '{"id": 2, "reward": false, "prompt": "ü", "completion": "a", "x": [1, "b"]}\n',
        '  {"id": 3, "reward": true, "prompt": "ü", "completion": "b"}',
    ]
    path = write_lines(tmp_path / "rows.jsonl", lines)
    _, report = files.kept(path, tmp_path / "out", beta=0.0)
    assert report["prompts"]["count"] == 1
    text = (tmp_path / "out" / "accepted.jsonl").read_text(encoding="utf-8")
    assert text == lines[0] + lines[2].strip() + "\n"


def test_malformed_rows_of_tables_are_named(tmp_path):
    rows = files.table(600).set_column(
        2, "reward", pa.array([None if n == 433 else n % 2 for n in range(600)], pa.float64())
    )
    for suffix in (".parquet", ".arrow"):
        path = files.write(rows, tmp_path / f"rows{suffix}", group=100)
        with pytest.raises(DataError, match=r"row 434: reward is missing"):
            files.kept(path, tmp_path / suffix[1:], size=200)


def test_conversations_must_end_with_an_answer(tmp_path):
    rows = [[{"role": "user", "content": "a"}], [], [{"role": "assistant", "content": "b"}]]
    lines = [json.dumps({"messages": m, "reward": 1, "id": n}) + "\n" for n, m in enumerate(rows)]
    path = write_lines(tmp_path / "rows.jsonl", lines)
    ids, report = files.kept(path, tmp_path / "out", max_bad=2)
    assert (ids, report["bad"]) == ([2], 2)
    # The first of a block too, whose columns are taken for those of the others.
    texts = write_lines(path, ['{"messages": "a", "reward": 1}\n', *lines])
    ids, report = files.kept(texts, tmp_path / "texts", max_bad=3)
    assert (ids, report["bad"]) == ([2], 3)
    assert "line 1: messages must be a list of messages" in report["named"][0]
    assert "line 2: messages must end with a message of the role 'assistant'" in report["named"][1]


@pytest.mark.parametrize("kind", ["numbers", "text"])
def test_ids_that_come_twice_are_refused(kind, tmp_path):
    rows = files.table(600)
    ids = [7 if n in (30, 500, 560) else n + 10 for n in range(600)]
    column = pa.array(ids if kind == "numbers" else [f"row {n}" for n in ids])
    path = files.write(rows.set_column(4, "id", column), tmp_path / "rows.parquet", group=100)
    columns = Columns(id="id")
    with pytest.raises(DataError, match="2 rows have the id of another") as caught:
        files.kept(path, tmp_path / "out", size=100, columns=columns)
    assert str(caught.value).endswith(f"\n  {path}: row 31 and {path}: row 501")
    _, report = files.kept(path, tmp_path / "two", size=100, columns=columns, max_duplicates=2)
    assert report["duplicates"] == 2


def test_inputs_that_fit_nothing_are_refused(tmp_path):
    config = files.config_of("verifier")
    rows = files.table(32)
    path = files.write(rows, tmp_path / "rows.parquet")
    (tmp_path / "text.csv").write_text("a,b\n", encoding="utf-8")
    (tmp_path / "broken.parquet").write_text("no Parquet", encoding="utf-8")
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "array.json").write_text(f"[{GOOD[0]}]", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    refused = {
        "nothing*.jsonl": "does not exist",
        "text.csv": "must end in one of",
        "broken.parquet": "broken.parquet cannot be read",
        "empty.jsonl": "empty.jsonl holds no rows: each line must be",
        "array.json": "array.json holds no rows: each line must be",
        "folder": "holds no file",
    }
    for name, why in refused.items():
        with pytest.raises(DataError, match=why):
            select([tmp_path / name], tmp_path / "out", config)
    files.write(rows, tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="of one format"):
        select([path, tmp_path / "rows.jsonl"], tmp_path / "out", config)
    for columns, why in {
        Columns(reward="verdict"): "no column 'verdict'",
        Columns(id="uuid"): "no column 'uuid'",
        Columns(completion="answer"): "no column 'answer'",
        Columns(reward="note"): "'note' must hold numbers",
        Columns(prompt="reward"): "'reward' must hold text",
    }.items():
        with pytest.raises(DataError, match=why):
            select([path], tmp_path / "out2", files.config_of("verifier", columns), overwrite=True)
