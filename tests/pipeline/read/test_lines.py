"""JSON lines: what a row is does not hang on the rows beside it."""

import json

import pytest

from rskernels.pipeline import Columns, SelectConfig, select
from rskernels.pipeline.rule import RANKED
from rskernels.rsft.errors import DataError

from .. import files

NUMBERS = {"top_k": {"k": 1}, "soft_best_of_n": {"beta": 1.0}, "rso": {"beta": 1.0, "num": 2}}


def write(path, rows):
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def answer(n, **more):
    return {"prompt": f"p{n % 7}", "completion": f"c{n}", "reward": n % 2, "id": n, **more}


def test_fields_of_messages_are_what_their_own_row_says(tmp_path):
    def row(n, x, time):
        call = {"role": "assistant", "content": "call", "tool_calls": [{"x": x}], "time": time}
        turns = [{"role": "user", "content": f"q{n % 50}"}, call]
        turns.append({"role": "assistant", "content": f"a{n}"})
        return {"messages": turns, "reward": n % 2, "id": n}

    rows = [row(n, n % 50, "2024-01-01T00:00:00") for n in range(200)]
    odd = [row(201, 1.5, "yesterday")]
    parts = [write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", odd)]
    one = write(tmp_path / "one.jsonl", rows + odd)
    fault = write(tmp_path / "fault.jsonl", [*rows, *odd, b"{"])
    first, report = files.kept(parts, tmp_path / "of-two")
    for path in (one, fault):
        again, seen = files.kept(path, tmp_path / path.stem, max_bad=1)
        assert again == first
        assert seen["prompts"]["count"] == report["prompts"]["count"] == 51


def test_a_column_of_numbers_is_malformed_whatever_comes_with_it(tmp_path):
    rows = [answer(n, completion=n) if n % 2 else answer(n) for n in range(6)]
    for name, lines in (("odd", rows[1::2]), ("all", rows), ("fault", [*rows, b"{"])):
        path = write(tmp_path / f"{name}.jsonl", lines)
        _, report = files.kept(path, tmp_path / name, max_bad=4)
        assert report["bad"] == 3 + (name == "fault")
        assert "completion must be text" in report["named"][0]


@pytest.mark.parametrize("column", ["prompt", "reward", "messages"])
def test_a_block_of_malformed_rows_alone_is_counted_and_named(column, tmp_path):
    rows = [answer(n, reward="1") if column == "reward" else answer(n) for n in range(3)]
    if column != "reward":
        rows = [{"reward": 1, column: 7, "completion": "c", "id": 1}] * 3
    path = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=rf"(?s)3 malformed.*line 1: {column} must be"):
        files.kept(path, tmp_path / "refused")
    ids, report = files.kept(path, tmp_path / "passed", max_bad=3)
    assert (ids, report["bad"]) == ([], 3)


def test_columns_are_those_of_the_first_rows_that_there_are(tmp_path):
    without = {"prompt": "p0", "completion": "c", "id": 9}
    write(tmp_path / "data" / "a.jsonl", [])
    write(tmp_path / "data" / "b.jsonl", [without, *map(answer, range(4))])
    ids, report = files.kept(tmp_path / "data", tmp_path / "out", beta=0.0, max_bad=1)
    assert (ids, report["bad"]) == ([1, 3], 1)
    assert "b.jsonl: line 1: reward is missing" in report["named"][0]


def test_a_byte_order_mark_and_a_huge_number_and_bare_returns(tmp_path):
    rows = [json.dumps(answer(n)).encode() for n in range(2)]
    huge = b'{"prompt": "p", "completion": "c", "id": 8, "reward": 1' + b"0" * 400 + b"}"
    bare = [
        b'{"prompt": "b",\r"completion": "c", "id": %d, "reward": %d}\r' % (n, n) for n in (0, 1)
    ]
    path = write(tmp_path / "rows.jsonl", [b"\xef\xbb\xbf" + rows[0], rows[1], *bare, huge, b"{"])
    ids, report = files.kept(path, tmp_path / "out", beta=0.0, max_bad=2, pairs=1)
    assert (ids, report["bad"], report["pairs"]) == ([1, 1], 2, 1)
    assert "line 5: " in report["named"][0]
    pair = json.loads((tmp_path / "out" / "pairs.jsonl").read_text(encoding="utf-8"))
    assert (pair["prompt"], pair["chosen_reward"]) == ("b", 1.0)
    ids, _ = files.kept(path, tmp_path / "small", beta=0.0, max_bad=2, size=50)
    assert ids == [1, 1]


def test_rewards_that_are_one_float32_make_two_rows(tmp_path):
    pairs = [{"prompt": f"p{n}", "completion": "c", "reward": 2**24 + d, "id": 2 * n + d}
             for n in range(60) for d in (0, 1)]  # fmt: skip
    rule = {"beta": 1.0, "bound": 2.0**24 + 1}
    one, _ = files.kept(write(tmp_path / "a.jsonl", pairs), tmp_path / "a", "bounded", **rule)
    two, _ = files.kept(write(tmp_path / "b.jsonl", pairs[::-1]), tmp_path / "b", "bounded", **rule)
    assert 60 < len(one) < 120
    assert one == two[::-1]


@pytest.mark.parametrize("form", RANKED)
def test_ids_must_differ_where_rows_are_ranked_by_them(form, tmp_path):
    config = files.config_of(form, Columns(id="id"), **NUMBERS[form])
    with pytest.raises(ValueError, match="needs ids that differ: max_duplicates must be 0, got 1"):
        SelectConfig(config.rule, max_duplicates=1)
    path = write(tmp_path / "rows.jsonl", [answer(n, id=n % 9) for n in range(10)])
    with pytest.raises(DataError, match=r"ids must differ|have the id of another"):
        select([path], tmp_path / "out", config)
