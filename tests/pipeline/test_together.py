"""Forms that need all answers to a prompt: as in memory, however the rows are cut."""

import math

import pytest
import torch

from rskernels import Envelope
from rskernels.pipeline import Columns
from rskernels.pipeline.rule import WITH_PILOT
from rskernels.rsft.errors import DataError
from rskernels.select import rso, soft_best_of_n, tilt, top_k, weights

from . import files

COLUMNS = Columns(id="id", reward="score")
FORMS = {
    "quantile": {"beta": 0.5}, "best_of": {"n": 4}, "learnt": {"beta": 0.5},
    "learnt, shared": {"beta": 0.5, "shared": True}, "weights": {"beta": 0.5},
    "top_k": {"k": 3}, "soft_best_of_n": {"beta": 0.5}, "rso": {"beta": 0.5, "num": 4},
}  # fmt: skip


def of_rows(rows):
    """Return rewards, groups and ids of a table."""
    prompts = torch.tensor([int(p.split()[1][:-1]) for p in rows["prompt"].to_pylist()])
    rewards = torch.tensor(rows["score"].to_pylist(), dtype=torch.float64)
    return rewards, prompts, torch.tensor(rows["id"].to_pylist())


def in_memory(form, rows, pilot):
    rewards, groups, ids = of_rows(rows)
    of_pilot, pilot_groups, _ = of_rows(pilot)
    given = {"groups": groups, "ids": ids}
    if form == "top_k":
        return top_k(rewards, 3, **given)
    if form == "soft_best_of_n":
        return soft_best_of_n(rewards, 0.5, seed=3, **given)
    if form == "rso":
        texts = rows["completion"].to_pylist()
        answers = torch.tensor([int(text.split()[1]) for text in texts])
        return rso(rewards, 0.5, num=4, answers=answers, seed=3, **given)
    if form == "weights":
        return weights(rewards, 0.5, groups=groups)
    if form.startswith("learnt"):
        is_shared = form != "learnt"
        envelope = Envelope("max", groups=1 if is_shared else int(groups.max()) + 1)
        envelope.update(of_pilot / 0.5, None if is_shared else pilot_groups)
        given["groups"] = None if is_shared else groups
        return tilt(rewards, 0.5, form="learnt", envelope=envelope, seed=3, **given)
    options = FORMS[form]
    more = {"pilot": of_pilot, "pilot_groups": pilot_groups, "seed": 3, **given}
    return tilt(rewards, options.get("beta"), form=form, n=options.get("n"), **more)


@pytest.mark.parametrize(
    ("form", "has_pilot"),
    [
        *((form, False) for form in FORMS if "learnt" not in form),
        *((form, True) for form in (*WITH_PILOT, "learnt, shared")),
    ],
)
def test_as_in_memory(form, has_pilot, tmp_path, monkeypatch):
    monkeypatch.setattr("rskernels.pipeline.store.runs.ROOM", 600)
    rows, pilot = files.table(), files.table(1600, seed=1) if has_pilot else files.table()
    want = in_memory(form, rows, pilot)
    path = files.write(rows, tmp_path / "rows.parquet", group=390)
    given = [files.write(pilot, tmp_path / "pilot.parquet")] if has_pilot else None
    ids, report = files.kept(
        path, tmp_path / "out", form.partition(",")[0], size=390, pilot=given, columns=COLUMNS,
        **FORMS[form],
    )  # fmt: skip
    assert of_rows(rows)[2][want.mask].tolist() == ids
    overall = report["overall"]
    for name in ("seen", "accepted", "violations", "unknown", "acceptance"):
        if overall[name] is not None:
            assert overall[name] == pytest.approx(want.overall[name])
    assert (overall["unknown"] > 0) == (has_pilot and "shared" not in form)
    if form == "weights":
        seen = [row["log_weight"] for row in files.read(tmp_path / "out")]
        assert seen == pytest.approx(want.log_weights.tolist())
        assert overall["violations"] is None
    elif form.startswith("learnt"):
        assert (overall["violations"] > 0) == (form == "learnt")
        assert report["M_is"] == "learnt"
        assert overall["delta"] == pytest.approx(want.overall["delta"])
    if form == "top_k":
        assert report["prompts"]["kl"] is None
    elif not has_pilot and form != "best_of":
        assert report["prompts"]["kl"] == pytest.approx(want.overall["kl"])


def test_lines_have_their_log_weights(tmp_path):
    path = files.write(files.table(320), tmp_path / "rows.jsonl")
    options = {"form": "weights", "columns": Columns(id="id")}
    files.kept(path, tmp_path / "out", size=9000, **options)
    rows = files.read(tmp_path / "out")
    assert [row["id"] for row in rows] == [n * 7919 for n in range(320)]
    of_rewards = [math.exp(row["reward"] / 0.7) for row in rows]
    mean = [sum(of_rewards[n // 16 * 16 :][:16]) / 16 for n in range(320)]
    want = [math.log(w / m) for w, m in zip(of_rewards, mean, strict=True)]
    assert [row["log_weight"] for row in rows] == pytest.approx(want)
    with pytest.raises(DataError, match="a column 'log_weight' already"):
        files.kept(tmp_path / "out" / "accepted.jsonl", tmp_path / "again", **options)
    with pytest.raises(ValueError, match="so that there are no pairs"):
        files.config_of("weights", pairs=1)


def test_threshold(tmp_path):
    rows = files.table()
    path = files.write(rows, tmp_path / "rows.jsonl")
    ids, report = files.kept(path, tmp_path / "out", "threshold", least=0.5, columns=COLUMNS)
    rewards, _, named = of_rows(rows)
    assert named[rewards >= 0.5].tolist() == ids
    assert report["overall"]["ess"] is None


def test_a_prompt_of_rows_in_many_files_without_ids(tmp_path):
    rows = files.table()
    path = files.write(rows, tmp_path / "rows.parquet", group=390)
    columns = Columns(reward="score")
    one, _ = files.kept(path, tmp_path / "one", "quantile", beta=0.5, columns=columns)
    many, _ = files.kept(path, tmp_path / "many", "quantile", size=200, beta=0.5, columns=columns)
    assert one == many


def test_lines_that_have_a_log_weight_late_in_a_file_are_named(tmp_path):
    row = '{"prompt": "p", "completion": "c", "reward": 1, "id": %d%s}\n'
    text = ', "text": "a \\"log_weight\\": 1"'
    late = {
        1003: ', "log_weight": 7', 1005: r', "l\u006Fg\u005fweight" : 7', 1007: text,
        1009: ', "meta": {"log_weight": 7}',
    }  # fmt: skip
    lines = [row % (n, late.get(n, "")) for n in range(1010)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    options = {"form": "weights", "columns": Columns(id="id")}
    with pytest.raises(DataError, match=r"(?s)2 malformed.*line 1004: .*'log_weight' already"):
        files.kept(path, tmp_path / "refused", **options)
    for size, fault in ((None, ""), (9000, "[]\n")):
        path.write_text("".join([*lines, fault]), encoding="utf-8")
        ids, report = files.kept(path, tmp_path / f"{size}", size=size, max_bad=3, **options)
        assert ids == [n for n in range(1010) if n not in (1003, 1005)]
        assert report["bad"] == 2 + bool(fault)


def test_rows_without_a_weight_are_left_out_and_told(tmp_path, capsys):
    rewards = {"a": ("-Infinity", 1, "-Infinity"), "b": ("-Infinity", "-Infinity"), "c": (0,)}
    rows = [(prompt, reward) for prompt, of in rewards.items() for reward in of]
    row = '{"prompt": "%s", "completion": "c", "reward": %s, "id": %d}\n'
    text = "".join(row % (*of, n) for n, of in enumerate(rows))
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    ids, report = files.kept(
        tmp_path / "rows.jsonl", tmp_path / "out", "weights", columns=Columns(id="id")
    )
    assert ids == [1, 5]
    assert [row["log_weight"] for row in files.read(tmp_path / "out")] == [math.log(3), 0.0]
    overall, prompts = report["overall"], report["prompts"]
    assert (overall["without_weight"], overall["unknown"], overall["accepted"]) == (4, 0, 2)
    assert (prompts["without_weight"], prompts["without_accepted"]) == (1, 1)
    (warning,) = report["warnings"]
    assert warning.startswith("4 of 6 rows have the reward -infinity")
    assert "1 of 3 prompts have no others" in warning
    assert warning in capsys.readouterr().err


@pytest.mark.parametrize("form", WITH_PILOT)
def test_prompts_that_a_pilot_lacks_are_told_and_a_pilot_of_no_prompt_refused(
    form, tmp_path, capsys
):
    rows, options = files.table(320), {"columns": COLUMNS, **FORMS[form]}
    path = files.write(rows, tmp_path / "rows.parquet")
    pilot = files.write(files.table(160, seed=1), tmp_path / "pilot.parquet")
    _, report = files.kept(path, tmp_path / "out", form, pilot=[pilot], **options)
    assert (report["overall"]["unknown"], report["prompts"]["unknown"]) == (160, 10)
    (warning,) = report["warnings"]
    assert warning.startswith("160 of 320 rows are of the 10 of 20 prompts that the pilot has no")
    assert warning in capsys.readouterr().err
    other = files.write(rows.slice(160), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="the pilot has none of the prompts of the inputs"):
        files.kept(other, tmp_path / "refused", form, pilot=[pilot], **options)
    # One M of all prompts is for any.
    if form == "learnt":
        _, report = files.kept(
            other, tmp_path / "shared", form, pilot=[pilot], shared=True, **options
        )
        assert report["warnings"] == []


@pytest.mark.parametrize("form", FORMS)
def test_one_row_and_a_pilot_of_one(form, tmp_path):
    lines = '{"prompt": "p", "completion": "c", "reward": 1, "id": 5}\n{"prompt": "p"}\n'
    path = tmp_path / "rows.jsonl"
    path.write_text(lines, encoding="utf-8")
    pilot = [tmp_path / "pilot.jsonl"] if form.startswith("learnt") else None
    (tmp_path / "pilot.jsonl").write_text(lines, encoding="utf-8")
    options = {**FORMS[form], **({"num": 1} if form == "rso" else {}), "max_bad": 1}
    ids, report = files.kept(path, tmp_path / "out", form.partition(",")[0], pilot=pilot, **options)
    # The quantile of an answer among itself is not the highest, and this seed's draw is above it.
    assert ids == ([] if form in ("quantile", "best_of") else [5])
    assert (report["bad"], report["overall"]["seen"]) == (1, 1)
