"""Comparisons end to end: what is run, what is not run again, and what the report says."""

import json
from pathlib import Path

import numpy as np
import pytest

from rskernels.experiments.comparison import runner
from rskernels.experiments.comparison.report import (
    frozen,
    overview,
    sentences,
    table,
    write_report,
)
from rskernels.experiments.comparison.runner import folder_of, is_done
from rskernels.experiments.suite import (
    DEMO,
    EXPERIMENTS,
    FROZEN,
    choose,
    make_runs,
)
from rskernels.rsft.errors import CheckpointError
from rskernels.rsft.rules import RULES, Rule

from .wine import WINE, make, timeless


def test_the_table_is_of_the_summaries(straight):
    out, results = straight
    headings, rows = table(results)
    assert headings[1:4] == ["balanced accuracy", "worst class", "calibration error"]
    assert [row[0] for row in rows] == ["plain", "class weights", "accept, M max"]
    paths = [out / "wine" / f"accept-m-max-seed{seed}" / "summary.json" for seed in (0, 1)]
    summaries = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    a, b = (summary["balanced_accuracy"] for summary in summaries)
    # Of two values the standard error is half their distance, and t is 12.706.
    assert rows[2][1] == f"{(a + b) / 2:.3f} ± {12.7062047 * abs(a - b) / 2:.3f}"
    a, b = (summary["gradient_samples"] for summary in summaries)
    assert rows[2][4].startswith(f"{(a + b) / 2:,.0f} ± ")
    assert rows[0][6].startswith("1.00 ±")


def test_what_is_finished_is_not_run_again(straight, monkeypatch):
    out, results = straight
    monkeypatch.setattr(runner, "run", lambda *a, **k: pytest.fail("was run again"))
    assert table(make(out)) == table(results)


def test_a_comparison_interrupted_in_mid_run_ends_with_the_same_table(
    straight, tmp_path, monkeypatch
):
    rule, steps = RULES["accept"], []

    def crash(logits, targets, log_density, state):
        steps.append(state.row_offset)
        # The warm-up is over after an epoch; row 150 is in the fourth of the first seed.
        if state.row_offset > 150:
            raise KeyboardInterrupt
        return rule.select(logits, targets, log_density, state)

    monkeypatch.setattr(runner, "_warm", set())
    with monkeypatch.context() as patch:
        patch.setitem(RULES, "accept", Rule(crash, rejects=True))
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path)
    runs = make_runs([WINE], seeds=2)
    assert [is_done(run.config, folder_of(run, tmp_path)) for run in runs] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
    assert (folder_of(runs[2], tmp_path) / "checkpoint.pt").is_file()
    runs_made = []
    real = runner.run

    def spy(config, out, **options):
        runs_made.append((out.name, options.get("resume")))
        return real(config, out, **options)

    monkeypatch.setattr(runner, "run", spy)
    results = make(tmp_path)
    assert runs_made[0] == ("accept-m-max-seed0", True)
    assert [resume for _, resume in runs_made[1:]] == [False] * 3
    assert timeless(results) == timeless(straight[1])


def test_processes_side_by_side_make_the_same(straight, tmp_path):
    plain = WINE._replace(cases=WINE.cases[:1])
    assert timeless(make(tmp_path, plain, jobs=2)) == timeless(straight[1][:1])


def test_a_changed_configuration_is_refused_unless_overwritten(straight, tmp_path):
    one = WINE._replace(cases=WINE.cases[:1])
    make(tmp_path, one, seeds=1)
    other = one._replace(options={**WINE.options, "lr": 0.1})
    with pytest.raises(CheckpointError, match=r"another configuration: lr was 0\.05, is 0\.1"):
        make(tmp_path, other, seeds=1)
    (folder_of(make_runs([one], seeds=1)[0], tmp_path) / "summary.json").write_text(
        "{", encoding="utf-8"
    )
    with pytest.raises(CheckpointError, match=r"summary\.json is damaged: overwrite it"):
        make(tmp_path, other, seeds=1)
    changed = make(tmp_path, other, seeds=1, overwrite=True)
    assert make(tmp_path, other, seeds=1)[0].measures["seconds"] == changed[0].measures["seconds"]


def test_the_report_has_every_part(straight, tmp_path):
    _, results = straight
    path = write_report([(WINE, results)], tmp_path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert "Of 1 cases of rejection against the best baseline: " in text
    assert "`accept, M max` **" in text
    assert "At equal gradient samples it **" in text
    for name in ("wine-accuracy.png", "wine-envelope.png"):
        assert f"]({name})" in text
        content = (tmp_path / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 100_000
    numbers = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["wine"]
    assert numbers["plain"]["seconds"] == results[0].measures["seconds"].tolist()


def test_baselines_alone_are_no_rejection_to_count(straight):
    text = overview([(WINE, straight[1][:2])])
    assert text == "No case of rejection was among those chosen."


def test_the_words_follow_the_numbers(straight):
    def with_accuracy(result, value):
        accuracy = np.full(2, value)
        return result._replace(measures={**result.measures, "balanced_accuracy": accuracy})

    plain, weights, ours = straight[1]
    for level, verdict in ((0.9, "wins"), (0.1, "loses"), (0.5, "ties")):
        results = [with_accuracy(*pair) for pair in ((plain, 0.3), (weights, 0.5), (ours, level))]
        assert f"against the best baseline: {verdict} 1." in overview([(WINE, results)])
        [sentence] = sentences(results)
        assert sentence.startswith(
            f"`accept, M max` **{verdict}** against the best baseline, *class weights*: "
            f"{level - 0.5:+.3f} ["
        )


def test_an_M_that_the_pilot_fixed_is_told_of_beside_the_one_that_learns(straight):
    *_, ours = straight[1]
    lower = {**ours.measures, "balanced_accuracy": ours.measures["balanced_accuracy"] - 0.1}
    courses = {**ours.courses, "M": 2 * ours.courses["M"]}
    fixed = ours._replace(name=ours.name + FROZEN, measures=lower, courses=courses)
    [sentence] = frozen([ours, fixed])
    M = ours.courses["M"][:, 2:].mean()
    assert "**loses** against the M that goes on learning: -0.100 [-0.100, -0.100]" in sentence
    assert f"M is {2 * M:.3g} for {M:.3g}, " in sentence
    assert frozen([ours]) == []


def test_a_model_before_its_adaptation_is_compared_too(tmp_path):
    shift = next(e for e in EXPERIMENTS if e.name == "proposal")
    quick = {"epochs": 1, "pretrain_epochs": 1, "test_fraction": 0.8}
    shift = shift._replace(options={**shift.options, **quick})
    results = make(tmp_path, shift, seeds=1)
    assert [r.name for r in results] == ["all rows", "no adaptation", "weights p/q", "proposal"]
    before = results[1]
    summary = json.loads(
        (tmp_path / "proposal" / "proposal-seed0" / "summary.json").read_text(encoding="utf-8")
    )
    for name in ("balanced_accuracy", "worst_accuracy", "calibration_error"):
        assert before.measures[name].tolist() == [summary[f"{name}_before"]]
    row = table(results)[1][1]
    assert row[4:] == ["0", "–", "–", "0.00"]
    assert results[3].measures["acceptance"].tolist() == [summary["draw_acceptance"]]
    text = write_report([(shift, results)], tmp_path, is_quick=True).read_text(encoding="utf-8")
    assert "is not told apart" in text
    assert "too few seeds" in text


def test_every_experiment_declares_distinct_cases_and_a_baseline_to_pair_with():
    for experiment in (*EXPERIMENTS, DEMO):
        names = [case.name for case in experiment.cases]
        assert len(set(names)) == len(names)
        assert experiment.cases[0].is_baseline
        assert not all(case.is_baseline for case in experiment.cases)
        for quick in (False, True):
            runs = make_runs([experiment], seeds=2, quick=quick)
            assert len({run.config for run in runs}) == len(runs) == 2 * len(names)
            assert len({folder_of(run, Path()) for run in runs}) == len(runs)


def test_experiments_and_cases_are_chosen_by_name():
    [drift] = choose(EXPERIMENTS, names=["drift"], cases=["accept, M decayed"])
    assert [case.name for case in drift.cases] == ["plain", "accept, M decayed"]
    with_transfer = choose(EXPERIMENTS, cases=["transfer, models"])
    assert [e.name for e in with_transfer] == ["transfer"]
    with pytest.raises(ValueError, match="experiment 'iris': accepted are digits; wine"):
        choose(EXPERIMENTS, names=["iris"])
    with pytest.raises(ValueError, match="case 'none': accepted are plain; class weights"):
        choose(EXPERIMENTS, cases=["none"])
