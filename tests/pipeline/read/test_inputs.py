"""Which files are read: each once, none that the results would replace, none left out unsaid."""

import json
import os

import pytest

from rskernels.pipeline import Reward, ScoreConfig, score, select
from rskernels.rsft.errors import DataError

from .. import files, rewards

LINE = json.dumps({"prompt": "a", "completion": "answer 1", "reward": 1, "id": 1}) + "\n"


def scoring():
    return ScoreConfig(Reward(f"{rewards.__name__}:answers"), "again")


@pytest.mark.parametrize("name", ["accepted.jsonl", "scored.jsonl", "deep/rows.jsonl"])
def test_what_is_read_is_not_replaced(name, tmp_path):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text(LINE, encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for out in (tmp_path / "out", tmp_path / "link"):
        with pytest.raises(DataError, match="is read and lies in the folder of the results"):
            select([path], out, files.config_of("verifier"), overwrite=True)
        with pytest.raises(DataError, match="is read and lies in the folder of the results"):
            score([path], out, scoring(), overwrite=True)
    with pytest.raises(DataError, match="lies in the folder of the results"):
        select([files.write(files.table(32), tmp_path / "rows.jsonl")], tmp_path / "out",
               files.config_of("quantile"), pilot=[path], overwrite=True)  # fmt: skip
    assert path.read_text(encoding="utf-8") == LINE


def test_results_are_not_written_where_a_later_run_reads(tmp_path):
    (tmp_path / "rows.jsonl").write_text(LINE, encoding="utf-8")
    for out in (tmp_path / "kept", tmp_path / "a" / "kept"):
        with pytest.raises(DataError, match="which is read: name one outside"):
            select([tmp_path], out, files.config_of("verifier"))
        with pytest.raises(DataError, match="which is read: name one outside"):
            score([tmp_path], out, scoring())


def test_a_file_is_read_once_by_whatever_names(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "rows.jsonl").write_text(LINE, encoding="utf-8")
    (folder / "link.jsonl").symlink_to(folder / "rows.jsonl")
    os.link(folder / "rows.jsonl", folder / "other.jsonl")
    monkeypatch.chdir(folder)
    for number, inputs in enumerate([["rows.jsonl", "./rows.jsonl"], [folder]]):
        ids, report = files.kept(inputs, tmp_path / f"out-{number}")
        assert (ids, len(report["files"])) == ([1], 1)


def test_what_is_not_read_of_a_folder_is_named(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "rows.jsonl").write_text(LINE, encoding="utf-8")
    (folder / "more.csv.gz").write_bytes(b"x")
    (folder / "_SUCCESS").write_bytes(b"")
    (folder / "away").symlink_to(tmp_path)
    _, report = files.kept(folder, tmp_path / "out")
    assert report["skipped"] == [str(folder / "away"), str(folder / "more.csv.gz")]
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "more.csv.gz" in page


@pytest.mark.parametrize("form", ["learnt", "quantile"])
def test_a_pilot_is_not_what_is_decided(form, tmp_path):
    path = files.write(files.table(64), tmp_path / "rows.jsonl")
    other = files.write(files.table(64, seed=1), tmp_path / "other.jsonl")
    (tmp_path / "link.jsonl").symlink_to(path)
    for pilot in ([path], [other, tmp_path / "link.jsonl"]):
        with pytest.raises(DataError, match=r"(rows|link)\.jsonl is an input and a pilot"):
            select([path], tmp_path / "out", files.config_of(form), pilot=pilot)
    select([path], tmp_path / "out", files.config_of(form), pilot=[other])
