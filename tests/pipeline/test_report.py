"""The report, and the command that asks for it."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rskernels.cli.app import app
from rskernels.pipeline import Columns, Rule
from rskernels.pipeline.report import table
from rskernels.pipeline.rule import NEEDS, NOTES

from . import files


@pytest.fixture
def invoke(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    return lambda *arguments: CliRunner().invoke(app, ["select", *map(str, arguments)])


def test_the_command_selects_and_draws_a_figure(invoke, tmp_path):
    path, out = files.write(files.table(800), tmp_path / "rows.parquet"), tmp_path / "out"
    options = ("--form", "verifier", "--beta", "0.2", "--id", "id")
    result = invoke(path, "--out", out, *options)
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    kept = files.read(out)
    assert len(kept) == report["overall"]["accepted"] == sum(n for _, _, n in report["rewards"])
    assert f"{len(kept)}" in result.output
    page = (out / "report.md").read_text(encoding="utf-8")
    assert "beta = 0.2" in page
    assert "report.png" in page
    with Image.open(out / "report.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    again = invoke(path, "--out", out, *options, "--resume")
    assert again.exit_code == 0
    assert again.output == result.output


def test_the_command_says_what_is_wrong(invoke, tmp_path):
    path, out = tmp_path / "rows.jsonl", tmp_path / "out"
    path.write_text('{"prompt": "a", "completion": "b", "reward": 2}\n', encoding="utf-8")
    of_rows = invoke(path, "--out", out, "--beta", "0")
    assert of_rows.exit_code == 1
    assert f"{path}: line 1: the reward 2.0 is not 0 or 1" in of_rows.output
    for arguments, why in (
        (("--form", "best"), "form must be one of verifier"),
        ((), "needs beta"),
        (("--beta", "-1"), "beta must be at least 0"),
        (("--form", "bounded", "--beta", "1"), "needs bound"),
        (("--beta", "1", "--n", "4"), "takes no n"),
        (("--beta", "1", "--resume", "--overwrite"), "at most one is accepted"),
        (("--beta", "1", "--workers", "0"), "workers must be at least 1"),
        (("--form", "learnt", "--beta", "1", "--envelope", "leave_one_out"), "must not be leave"),
    ):
        refused = invoke(path, "--out", out, *arguments)
        assert refused.exit_code == 2
        assert why in refused.output
    pilot = invoke(path, "--out", out, "--beta", "1", "--pilot", path)
    assert pilot.exit_code == 1
    assert "'verifier' takes no pilot" in pilot.output
    learnt = invoke(path, "--out", out, "--form", "learnt", "--beta", "1")
    assert learnt.exit_code == 1
    assert "'learnt' needs a pilot" in learnt.output


def test_quantiles_of_the_rows_themselves_are_said_to_be_that(tmp_path):
    path, columns = files.write(files.table(800), tmp_path / "rows.parquet"), Columns(id="id")
    pilot = files.write(files.table(800, seed=1), tmp_path / "pilot.parquet")
    for form, numbers in (("quantile", {"beta": 0.5}), ("best_of", {"n": 17})):
        given = {"columns": columns, **numbers}
        _, own = files.kept(path, tmp_path / f"own-{form}", form, **given)
        _, other = files.kept(path, tmp_path / f"other-{form}", form, pilot=[pilot], **given)
        assert own["overall"]["delta"] is own["delta_is"] is None
        assert other["overall"]["delta"] == 0.0
        assert (other["delta_is"], other["M_is"]) == ("bound", "proved")
        assert "decided themselves: not the" in own["note"]
        assert other["warnings"] == []
        page = (tmp_path / f"own-{form}" / "report.md").read_text(encoding="utf-8")
        assert "**Warning:** The quantiles are those of the very rows" in page
        assert ("50 of 50 prompts have fewer than n = 17" in page) == (form == "best_of")


def test_the_divergence_is_said_to_be_an_estimate_and_its_most(tmp_path):
    rows = files.table(1600)
    path = files.write(rows, tmp_path / "rows.parquet")
    _, report = files.kept(path, tmp_path / "out", "bounded", beta=0.01, bound=3.0,
                           columns=Columns(id="id", reward="score"))  # fmt: skip
    assert (report["M_is"], report["delta_is"], report["kl_is"]) == ("given", "bound", "estimate")
    assert report["prompts"]["kl_at_most"] == pytest.approx(math.log(16))
    assert 0.8 * math.log(16) < report["prompts"]["kl"] <= math.log(16)
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "an estimate by the rows" in page
    assert "| the most that it can be, log K of K answers | 2.773 |" in page


def test_rewards_above_the_bound_are_warned_of_and_what_is_not_there_left_out(tmp_path):
    path, columns = files.write(files.table(800), tmp_path / "rows.parquet"), Columns(id="id")
    of = {}
    for form, rule in (("bounded", {"bound": 0.5}), ("top_k", {"k": 1})):
        _, report = files.kept(path, tmp_path / form, form, columns=columns, **rule)
        of[form] = report["warnings"], dict(table(report))
    (warning,), shown = of["bounded"]
    assert warning.startswith(f"{shown['rows above M']} of 800 rows have a reward above the bound")
    assert shown["rows above M"] != "0"
    assert of["top_k"][0] == []
    for _, shown in of.values():
        assert "rows whose prompt has no pilot" not in shown
    assert "rows above M" not in of["top_k"][1]


def test_every_form_has_a_note_and_refuses_what_it_does_not_know():
    assert set(NOTES) == {*NEEDS, "own quantile", "own best_of"}
    numbers = {"beta": 0.5, "bound": 1.0, "n": 2, "k": 2, "least": 0.5, "num": 2}
    for form, needs in NEEDS.items():
        given = {name: numbers[name] for name in needs}
        Rule(form, **given)
        for name in numbers:
            if name in needs:
                with pytest.raises(ValueError, match=f"needs {name}"):
                    Rule(form, **{k: v for k, v in given.items() if k != name})
            else:
                with pytest.raises(ValueError, match=f"takes no {name}"):
                    Rule(form, **given, **{name: numbers[name]})
