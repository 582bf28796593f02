"""Texts and their classes: the files that are read, and rows that are malformed."""

import json
from pathlib import Path

import pytest
import torch

from rskernels.rsft.data.listed import Bad, read_texts
from rskernels.rsft.errors import DataError

ROWS = [("good, it was\n", "pos"), ("bad", "neg"), ("it was „so so“", "neg")]


def read(path, bad=None, text="text", label="label"):
    bad = bad or Bad(0)
    return read_texts(Path(path), text_column=text, label_column=label, bad=bad)


def json_lines(path, rows=ROWS):
    lines = [json.dumps({"id": n, "text": t, "label": c}) for n, (t, c) in enumerate(rows)]
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def csv_file(path, rows=ROWS, mark=","):
    lines = [f"label{mark}text", *(f'{label}{mark}"{text}"' for text, label in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")


def tsv_file(path, rows=ROWS):
    csv_file(path, rows, "\t")


def folder(path, rows=ROWS):
    for number, (text, label) in enumerate(rows):
        (path / label).mkdir(parents=True, exist_ok=True)
        (path / label / f"{number}.txt").write_text(text, encoding="utf-8")


KINDS = {".jsonl": json_lines, ".csv": csv_file, ".tsv": tsv_file, "": folder}


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_read_in_every_form(tmp_path, kind):
    KINDS[kind](tmp_path / f"all{kind}")
    whole, test = read(tmp_path / f"all{kind}")
    assert test is None
    read_rows = sorted(zip(whole.texts, whole.labels.tolist(), strict=True))
    assert read_rows == sorted((text, int(label == "pos")) for text, label in ROWS)
    assert whole.take(torch.tensor([1])).texts == [whole.texts[1]]
    parts = tmp_path / "parts"
    parts.mkdir()
    KINDS[kind](parts / f"train{kind}")
    KINDS[kind](parts / f"test{kind}", [*ROWS[1:], ("great", "pos")])
    train, test = read(parts)
    assert sorted(train.texts) == sorted(whole.texts)
    assert len(test.texts) == 3
    assert int(test.labels[test.texts.index("great")]) == 1


def test_classes_that_are_numbers_come_in_their_order_and_other_columns_have_names(tmp_path):
    rows = [{"body": "x", "stars": stars} for stars in (10, 2, "2", 1)]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    texts, _ = read(path, text="body", label="stars")
    assert texts.labels.tolist() == [2, 1, 1, 0]


BAD_LINES = {
    '{"text": "x"}': "2 has no 'label', but text",
    '["x"]': "2 is no object but list",
    '{"text": "x", "label"': "2 is no JSON: ",
    '{"text": " ", "label": 1}': "2 has a text that is blank",
    '{"text": 3, "label": 1}': "2 has a text that is none",
    '{"text": "x", "label": 0.5}': "2 has class 0.5; accepted are a name and a whole number",
    '{"text": "x", "label": ""}': "2 has class ''",
    '{"text": "\\ud800", "label": 1}': "2 has a text that is no UTF-8",
    '{"text": "\udcff", "label": 1}': "2 is no JSON: ",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_malformed_line_is_named_and_left_out_where_that_is_accepted(tmp_path, capsys, line):
    path = tmp_path / "x.jsonl"
    lines = ['{"text": "a", "label": 0}', line, '{"text": "b", "label": 1}']
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match="1 texts cannot be used") as error:
        read(path)
    assert f"x.jsonl:{BAD_LINES[line]}" in str(error.value)
    texts, _ = read(path, Bad(1))
    assert texts.texts == ["a", "b"]
    assert "They are left out" in capsys.readouterr().err


def test_malformed_rows_of_a_table(tmp_path):
    path = tmp_path / "x.csv"
    rows = [b"text,label", b"a,0", b"b", b"c,1,2", b"\xff,1", b'"d"e,1', b"f,", b"g,1"]
    path.write_bytes(b"\n".join(rows))
    bad = Bad(5)
    assert read(path, bad)[0].texts == ["a", "g"]
    with pytest.raises(DataError) as error:
        read(path)
    for told in (":3 has 1 cells for 2 names", ":4 has 3 cells", ":5 has a text that is no UTF-8",
                 ":6 is no CSV", ":7 has class ''"):  # fmt: skip
        assert told in str(error.value)


def test_a_text_that_is_no_utf8_is_named_by_its_file(tmp_path):
    folder(tmp_path)
    (tmp_path / "neg" / "9.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"9\.txt cannot be read: 'utf-8' codec"):
        read(tmp_path)


REFUSED = {
    "nothing": (lambda path: None, "does not exist"),
    "another kind": (lambda path: path.write_bytes(b""), r"accepted are \.jsonl, \.ndjson, \.csv"),
    "one class": (
        lambda path: (path.mkdir(), json_lines(path / "train.jsonl", ROWS[1:])),
        r"has texts of 1 class\(es\)",
    ),
    "a class of the test": (
        lambda path: (
            path.mkdir(), json_lines(path / "train.jsonl"),
            csv_file(path / "test.csv", [("x", "new")]),
        ),
        "has class 'new' to test on, but none such",
    ),
    "two of a part": (
        lambda path: (path.mkdir(), json_lines(path / "train.jsonl"), csv_file(path / "train.csv")),
        "which is meant",
    ),
    "domains": (
        lambda path: [folder(path / part) for part in ("source", "target", "test")],
        "of texts, train and test are read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_texts_that_are_not_as_they_should_be(tmp_path, case):
    make, message = REFUSED[case]
    make(tmp_path / "texts")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "texts")
