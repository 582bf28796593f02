"""Studies in pieces: what is made is not made again, by one process or by two."""

import json
from functools import partial

import pytest

from rskernels.experiments.resumable import make_pieces
from rskernels.rsft.errors import TrainingError


def make(value):
    if value < 0:
        raise ValueError(f"value must be at least 0, got {value}")
    return {"value": value}


def pieces(*values):
    return [(f"piece-{value}", partial(make, value)) for value in values]


def values_of(made):
    return [piece["value"] for piece in made]


def test_what_a_folder_holds_is_not_made_again(tmp_path):
    told = []
    assert values_of(make_pieces(pieces(1, 2), tmp_path, told.append)) == [1, 2]
    (tmp_path / "piece-1.json").write_text('{"value": 10, "seconds": 0.0}', encoding="utf-8")
    assert values_of(make_pieces(pieces(1, 2, 3), tmp_path, told.append)) == [10, 2, 3]
    assert [line.partition(":")[0] for line in told] == ["piece-1", "piece-2", "piece-3"]
    assert json.loads((tmp_path / "piece-3.json").read_text(encoding="utf-8"))["seconds"] >= 0


def test_some_are_made_by_the_beginning_of_their_names(tmp_path):
    assert values_of(make_pieces(pieces(1, 2, 21), tmp_path, str, only="piece-2")) == [2, 21]
    assert not (tmp_path / "piece-1.json").exists()


def test_none_is_begun_after_the_minutes_given(tmp_path):
    make_pieces(pieces(1), tmp_path, str)
    assert values_of(make_pieces(pieces(1, 2), tmp_path, str, minutes=0.0)) == [1]


def test_an_error_leaves_what_was_made_before(tmp_path):
    with pytest.raises(ValueError, match="got -1"):
        make_pieces(pieces(1, -1, 2), tmp_path, str)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["piece-1.json"]


def test_two_processes_make_what_one_does(tmp_path):
    told = []
    with pytest.raises(TrainingError, match="piece--1: ValueError: value must"):
        make_pieces(pieces(1, 2, -1), tmp_path, told.append, jobs=2)
    assert "piece-1" in {line.partition(":")[0] for line in told}
    assert values_of(make_pieces(pieces(1, 2), tmp_path, told.append)) == [1, 2]
