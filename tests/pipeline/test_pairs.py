"""Pairs of a chosen and a rejected answer: those that there are, in every format and cut."""

import json
from collections import defaultdict

import numpy as np
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from rskernels.pipeline import Columns
from rskernels.pipeline.pairs import PAIRABLE, pair_up

from . import files

COLUMNS = Columns(id="id", reward="score")


def read_pairs(folder):
    (path,) = folder.glob("pairs.*")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return (pq if path.suffix == ".parquet" else feather).read_table(path).to_pylist()


def paired(rows, kept, most):
    """Return the pairs of a table, by a loop over its prompts."""
    prompts, pairs = defaultdict(list), []
    for row in rows.to_pylist():
        prompts[row["prompt"]].append(row)
    for prompt, answers in prompts.items():
        chosen = sorted(
            (r for r in answers if r["id"] in kept), key=lambda r: (-r["score"], r["id"])
        )
        rejected = sorted(
            (r for r in answers if r["id"] not in kept), key=lambda r: (r["score"], r["id"])
        )
        for best, worst in list(zip(chosen, rejected, strict=False))[:most]:
            if best["score"] > worst["score"]:
                pairs.append((prompt, best["completion"], worst["completion"], best["score"]))
    return sorted(pairs)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".arrow"])
@pytest.mark.parametrize("most", [1, 8])
def test_pairs(suffix, most, tmp_path, monkeypatch):
    monkeypatch.setattr("rskernels.pipeline.pairs.ROWS", 100)
    rows = files.table(1600)
    path = files.write(rows, tmp_path / f"rows{suffix}", group=200)
    size = 60_000 if suffix == ".jsonl" else 300
    options = {"beta": 0.5, "columns": COLUMNS, "pairs": most}
    ids, report = files.kept(path, tmp_path / "out", "quantile", size=size, **options)
    pairs = read_pairs(tmp_path / "out")
    want = paired(rows, set(ids), most)
    seen = [(p["prompt"], p["chosen"], p["rejected"], p["chosen_reward"]) for p in pairs]
    assert sorted(seen) == want
    assert len(seen) == report["pairs"] > 50
    assert all(p["chosen_reward"] > p["rejected_reward"] for p in pairs)


def test_conversations(tmp_path):
    rows = files.table(800)
    pairs = {}
    for suffix in (".jsonl", ".parquet"):
        path = files.write(files.conversations(rows), tmp_path / f"rows{suffix}", group=200)
        out = tmp_path / suffix[1:]
        files.kept(path, out, beta=0.5, columns=Columns(id="id"), pairs=2)
        pairs[suffix] = read_pairs(out)
    assert pairs[".jsonl"] == pairs[".parquet"]
    assert [turn["role"] for turn in pairs[".jsonl"][0]["prompt"]] == ["system", "user"]
    assert [turn["role"] for turn in pairs[".jsonl"][0]["chosen"]] == ["assistant"]


def test_no_row_is_in_two_pairs_and_none_of_nothing():
    rows = np.zeros(0, PAIRABLE)
    assert len(pair_up(rows, 1)[0]) == 0
    rows = np.zeros(6, PAIRABLE)
    rows["key"] = [1, 1, 1, 2, 2, 3]
    rows["reward"] = [1, 0, 0, 1, 1, 1]
    rows["kept"] = [True, True, False, True, False, True]
    pair, side = pair_up(rows, 9)
    assert pair.tolist() == [0, -1, 0, -1, -1, -1]
    assert side.tolist() == [0, 0, 1, 0, 1, 0]
