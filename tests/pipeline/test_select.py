"""Whatever format, pieces, order and files rows come in: the same are kept."""

import json

import pyarrow as pa
import pytest
import torch

from rskernels.pipeline import Columns, LocalEngine
from rskernels.select import tilt

from . import files

NAMING = {"id": Columns(id="id"), "sample": Columns(sample="sample"), "count": Columns()}


@pytest.mark.parametrize("naming", NAMING)
def test_formats_and_pieces_change_nothing(naming, tmp_path):
    rows, columns = files.table(), NAMING[naming]
    first, report = None, None
    for suffix in (".parquet", ".arrow", ".jsonl"):
        for number, size in enumerate((None, 20_000 if suffix == ".jsonl" else 500)):
            path = files.write(rows, tmp_path / f"rows{suffix}", group=250)
            out = tmp_path / f"{suffix[1:]}-{number}"
            ids, seen = files.kept(path, out, size=size, columns=columns)
            first, report = first or ids, report or seen
            assert ids == first
            assert seen["overall"] == pytest.approx(report["overall"])
            for name, value in seen["prompts"].items():
                assert value == pytest.approx(report["prompts"][name])
    assert 1000 < len(first) < 1800
    by_id = {row["id"]: row for row in rows.to_pylist()}
    assert all(row == by_id[row["id"]] for row in files.read(tmp_path / "arrow-0"))


@pytest.mark.parametrize("naming", NAMING)
def test_order_and_files_change_nothing(naming, tmp_path):
    rows, columns = files.table(), NAMING[naming]
    path = files.write(rows, tmp_path / "rows.parquet", group=400)
    ids, _ = files.kept(path, tmp_path / "one", columns=columns)
    by_id = {row["id"]: row for row in rows.to_pylist()}
    want = sorted(tuple(by_id[i][c] for c in ("prompt", "completion")) for i in ids)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    shuffled = rows.take(pa.array(order.numpy()))
    for count in (3, 8):
        size = -(-len(rows) // count)
        folder = tmp_path / f"parts-{count}"
        folder.mkdir()
        for at in range(count):
            files.write(shuffled.slice(at * size, size), folder / f"{at}.parquet", group=150)
        again, _ = files.kept(folder, tmp_path / f"of-{count}", size=300, columns=columns)
        # Of rows that are equal in prompt and completion any may be kept, but as many.
        assert sorted(tuple(by_id[i][c] for c in ("prompt", "completion")) for i in again) == want
        if naming != "count":
            assert sorted(again) == sorted(ids)


def test_what_is_kept_is_what_tilt_keeps(tmp_path):
    rows = files.table()
    path = files.write(rows, tmp_path / "rows.parquet")
    ids, report = files.kept(path, tmp_path / "out", columns=Columns(id="id"))
    named = torch.tensor(rows["id"].to_pylist())
    rewards = torch.tensor(rows["reward"].to_pylist(), dtype=torch.float64)
    groups = torch.arange(len(rows)) // 16
    want = tilt(rewards, 0.7, form="verifier", groups=groups, ids=named, seed=3)
    assert named[want.mask].tolist() == ids
    overall = report["overall"]
    for name in ("seen", "accepted", "violations", "acceptance", "expected_acceptance", "ess"):
        assert overall[name] == pytest.approx(want.overall[name])
    assert report["prompts"]["kl"] == pytest.approx(want.overall["kl"])
    assert report["prompts"]["count"] == len(want.group_ids)
    assert overall["reward"] == pytest.approx(float(rewards.mean()))
    assert overall["reward_kept"] == pytest.approx(float(rewards[want.mask].mean()))


def test_violations_and_sums_of_bounded_rewards(tmp_path):
    rows = files.table()
    path = files.write(rows, tmp_path / "rows.jsonl")
    columns = Columns(id="id", reward="score")
    ids, report = files.kept(
        path, tmp_path / "out", "bounded", size=20_000, bound=1.5, columns=columns
    )
    scores = torch.tensor(rows["score"].to_pylist(), dtype=torch.float64)
    named, groups = torch.tensor(rows["id"].to_pylist()), torch.arange(len(rows)) // 16
    want = tilt(scores, 0.7, form="bounded", bound=1.5, groups=groups, ids=named, seed=3)
    assert named[want.mask].tolist() == ids
    for name in ("violations", "delta", "ess", "expected_acceptance"):
        assert report["overall"][name] == pytest.approx(want.overall[name])
    assert report["overall"]["violations"] > 100
    assert report["prompts"]["kl"] == pytest.approx(want.overall["kl"])


def test_conversations_in_every_format(tmp_path):
    rows = files.table()
    first = None
    for suffix in (".jsonl", ".parquet"):
        path = files.write(files.conversations(rows), tmp_path / f"rows{suffix}", group=700)
        ids, report = files.kept(path, tmp_path / suffix[1:])
        first = first or ids
        assert ids == first
        assert report["prompts"]["count"] == -(-files.ROWS // 16)


def test_fields_beside_role_and_content_make_another_prompt(tmp_path):
    def row(n, **more):
        messages = [{"role": "user", "content": "2 + 2", **more}, {"role": "assistant"}]
        return json.dumps({"messages": messages, "reward": n % 2, "id": n})

    lines = [row(0), row(1, name="a"), row(2, name="b"), row(3, name="a")]
    # A fault makes the block be read line by line, with the same result.
    for name, more in (("good", []), ("fault", ["{"])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(lines + more), encoding="utf-8")
        ids, report = files.kept(path, tmp_path / name, beta=0.0, max_bad=1)
        assert ids == [1, 3]
        assert report["prompts"]["count"] == 3


@pytest.mark.slow
def test_processes_keep_what_one_does(tmp_path):
    path = files.write(files.table(), tmp_path / "rows.parquet", group=500)
    one, _ = files.kept(path, tmp_path / "one", size=500)
    two, _ = files.kept(path, tmp_path / "two", size=500, engine=LocalEngine(2))
    assert one == two


def test_a_reward_is_invalid_or_kept_and_not_both(tmp_path):
    lines = [
        {"prompt": "p", "completion": "c", "reward": r, "id": n} for n, r in enumerate([1e308, 0])
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    ids, report = files.kept(path, tmp_path / "out", "bounded", beta=0.1, bound=1e308)
    assert ids == [0]
    assert (report["bad"], report["overall"]["invalid"]) == (0, 0)
    assert report["overall"]["reward_kept"] == 1e308
    more = [{"prompt": "q", "completion": "", "reward": 1e308, "id": n} for n in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in more), encoding="utf-8")
    ids, report = files.kept(path, tmp_path / "sum", "bounded", beta=0.1, bound=1e308)
    assert (ids, report["bad"], report["overall"]["reward_kept"]) == ([0, 1, 2], 0, None)
