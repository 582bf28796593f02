"""The comparison by its command: equal tokens, a report, and no run made twice."""

import dataclasses
import json
import math
import pickle
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rskernels.cli.app import app
from rskernels.experiments.lm import measure, report, study
from rskernels.experiments.lm.analysis import EXCESS, KL, PASS, Runs, exact_of, verdict
from rskernels.experiments.lm.guide import BEGIN, END, write_figures
from rskernels.experiments.lm.rates import TUNED_ON, rate_of, score_of, scores_of
from rskernels.experiments.lm.report import GUIDE, REFERENCES, _section, restore, write_report
from rskernels.experiments.lm.study import (
    FULL,
    QUICK,
    Study,
    check_settings,
    make_run,
    run_study,
    start_of,
)
from rskernels.experiments.lm.train import check_tokens
from rskernels.language.rollouts import Rollout
from rskernels.rsft.errors import CheckpointError, TrainingError

SOME = ("sft", "rft", "weights", "gradient-accepted", "gradient-fresh")
NOTHING = Study([], [])
GRAPH = next(subject for subject in QUICK.subjects if subject.name == "graph")


def run(*arguments):
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, ["compare", "lm", *map(str, arguments)], env=environment)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    options = ("--quick", "--tasks", "graph", "--methods", ",".join(SOME))
    result = run(*options, "--out", folder / "runs", "--report", folder / "report", "--jobs", 2)
    assert result.exit_code == 0, result.output
    return folder, options


@pytest.fixture(scope="module")
def pieces(made):
    folder, _ = made
    paths = (folder / "runs").glob("graph-0-*.json")
    pieces = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return {piece["method"]: piece for piece in pieces}


def test_every_method_has_as_many_tokens(pieces):
    assert set(pieces) == {"start", *SOME}
    for key in SOME:
        course = pieces[key]["course"]
        assert [of["round"] for of in course] == [1, 2]
        for of in course:
            for name in ("generated", "trained"):
                tokens = getattr(GRAPH, name) * of["round"]
                if (key, name) == ("sft", "generated"):
                    assert of[name] == 0
                else:
                    assert tokens <= of[name] <= tokens + GRAPH.longest
    assert pieces["gradient-accepted"]["end"]["scored"] > 2 * GRAPH.trained


def test_a_run_of_other_tokens_is_an_error():
    end = {"generated": 2 * GRAPH.generated, "trained": 2 * GRAPH.trained + 3}
    check_tokens(end, GRAPH, generates=True)
    for fault in ({"trained": 2 * GRAPH.trained - 1}, {"generated": 3 * GRAPH.generated}):
        with pytest.raises(TrainingError, match="tokens and not"):
            check_tokens(end | fault, GRAPH, generates=True)
    with pytest.raises(TrainingError, match="generated were"):
        check_tokens(end, GRAPH, generates=False)


def test_methods_begin_with_the_same_model_and_answers(pieces):
    assert pieces["start"]["end"]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert pieces["start"]["end"]["law"]["kl"] == pytest.approx(0.0, abs=1e-6)
    firsts = {pieces[key]["course"][0]["answers"] for key in ("rft", "weights")}
    assert len(firsts) == 1
    for key in SOME:
        law = pieces[key]["end"]["law"]
        assert law["kl"] > 0
        assert set(law["to_tilt"]) == {"0.2", "0.5", "1"}


def test_the_report_says_what_was_run(made):
    folder, _ = made
    text = (folder / "report" / "language.md").read_text(encoding="utf-8")
    assert "its figures mean nothing" in text
    for title in ("RFT, all right", "policy gradient, off-policy rejection", "KL above the least"):
        assert title in text
    assert "{" not in text
    for name in ("courses", "trades"):
        assert (folder / "report" / f"language-{name}.png").exists()


def test_two_processes_make_one_starting_model(made, monkeypatch):
    folder, _ = made
    starts = sorted(path.name for path in (folder / "runs" / "starts").iterdir())
    # Nothing in parts: had both made it, one could not have put its own there.
    assert starts == ["graph-0", "graph-0.lock"]
    monkeypatch.setattr(study, "enumerated_of", lambda *_: None)
    # A task that came to another process is another object, and finds what this one knows.
    first = start_of(GRAPH, 0, folder / "runs")
    assert start_of(pickle.loads(pickle.dumps(GRAPH)), 0, folder / "runs") is first


def test_what_a_folder_or_a_report_holds_is_not_made_again(made, tmp_path):
    folder, options = made
    # A report of some methods keeps the others that the one there has.
    again = run(*options[:3], "--methods", "rft", "--out", folder / "runs",
                "--report", folder / "report")  # fmt: skip
    assert "rft:" not in again.output
    # From the report alone, in no time at all.
    other = run(*options, "--out", tmp_path, "--report", folder / "report", "--minutes", "0")
    assert other.exit_code == 0, other.output
    assert f"{len(SOME) + 1} runs taken from the report" in other.output
    assert len(list(tmp_path.glob("graph-0-*.json"))) == len(SOME) + 1
    assert "torch 2." in (folder / "report" / "language.md").read_text(encoding="utf-8")


def test_a_report_of_other_settings_is_not_written_over(made, tmp_path):
    folder, _ = made
    kept = json.loads((folder / "report" / "language.json").read_text(encoding="utf-8"))
    assert kept["settings"]["graph"]["constants"]["budget"] == 0.5
    kept["settings"]["graph"]["constants"]["budget"] = 0.25
    (tmp_path / "language.json").write_text(json.dumps(kept), encoding="utf-8")
    for call in (restore, lambda to, size, _, **quick: write_report(NOTHING, size, to, **quick)):
        with pytest.raises(CheckpointError, match="runs of graph with other settings, which"):
            call(tmp_path, QUICK, tmp_path / "runs", is_quick=True)
    assert [path.name for path in tmp_path.iterdir()] == ["language.json"]


def test_what_cannot_be_run_is_refused(made, tmp_path):
    folder, _ = made
    for option, word in (("--tasks", "chess"), ("--methods", "dpo")):
        result = run("--quick", option, word, "--out", tmp_path)
        assert result.exit_code == 2
        assert f"got '{word}'" in result.output
    nothing = run("--quick", "--minutes", "0", "--out", tmp_path)
    assert nothing.exit_code == 1
    assert "no run was made" in nothing.output
    with pytest.raises(CheckpointError, match="runs of graph with other settings"):
        check_settings(FULL, folder / "runs")
    fewer = dataclasses.replace(GRAPH, rounds=1)
    with pytest.raises(CheckpointError, match="other settings"):
        check_settings(QUICK._replace(subjects=(fewer,)), folder / "runs")


def test_a_method_runs_at_the_rate_of_its_trials(made, tmp_path, monkeypatch):
    folder, _ = made
    shutil.copytree(folder / "runs" / "starts", tmp_path / "starts")
    (tmp_path / "starts" / "graph-0").rename(tmp_path / "starts" / "graph-7")
    shutil.copytree(tmp_path / "starts" / "graph-7", tmp_path / "starts" / "graph-0")
    # A rate so large leaves a policy no right answer.
    grid = dict.fromkeys(QUICK.grid, (1e-09, 0.01, 10.0))
    few = QUICK._replace(subjects=(GRAPH,), methods=("sft", "rft"), grid=grid, tuned_on=range(7, 8))
    interrupted = run_study(few, tmp_path, print, minutes=0.0)
    assert interrupted == NOTHING
    found = run_study(few, tmp_path, print)
    assert [(of["method"], of["lr"]) for of in found.trials] == [
        (key, lr) for key in few.methods for lr in grid["rows"]
    ]
    assert scores_of(found.trials, "graph", "rft")[10.0] == [0.0]
    scores = scores_of(found.trials, "graph", "rft")
    best = max(score for (score,) in scores.values())
    expected = min(lr for lr, (score,) in scores.items() if score == best)
    assert expected != 10.0
    ran = {of["method"]: of for of in found.runs}
    assert set(ran) == {"start", "sft", "rft"}
    assert ran["rft"]["lr"] == expected
    again = make_run(GRAPH, "rft", 7, expected, tmp_path)["end"]["test_reward"]
    assert again == scores[expected][0]
    monkeypatch.setattr(report, "QUICK", few)
    text = write_report(found, few, tmp_path / "report", is_quick=True).read_text(encoding="utf-8")
    assert f"**{best:.3f} at {expected:g}**" in text
    stale = [{**of, "lr": 10.0} if of["method"] == "rft" else of for of in found.runs]
    with pytest.raises(CheckpointError, match="rft on graph, seed 0, has the learning rate 10,"):
        write_report(found._replace(runs=stale), few, tmp_path / "stale", is_quick=True)
    # From the report alone the trials come back, and with them the rates.
    assert restore(tmp_path / "report", few, tmp_path / "other", is_quick=True) == 9
    again = run_study(few, tmp_path / "other", print, minutes=0.0)
    assert [of.get("lr") for of in again.runs] == [of.get("lr") for of in found.runs]


def test_the_rate_is_the_best():
    def rate(*scores, seeds=range(2)):
        trials = [
            {"task": "graph", "method": "rft", "lr": lr, "score": score}
            for lr, of in zip((0.1, 0.2, 0.3), scores, strict=False)
            for score in of
        ]
        other = [{"task": "graph", "method": "sft", "lr": 0.3, "score": 9.0}]
        return rate_of(trials + other, "graph", "rft", {"rows": (0.1, 0.2, 0.3)}, seeds)

    assert rate((0.5, 0.5), (0.6, 0.6), (0.4, 0.9)) == 0.3
    assert rate((0.5, 0.5), (0.6, 0.6), (0.4, 0.4)) == 0.2
    assert rate((0.595, 0.595), (0.6, 0.6), (0.605, 0.605)) == 0.3
    assert rate((0.5, 0.5), (0.6, 0.6), (0.5, 0.7)) == 0.2
    assert rate((0.5, 0.5), (0.6, 0.6), (0.4,)) is None
    assert rate_of([], "graph", "rft", {"rows": (0.7,)}, range(0)) == 0.7
    assert score_of(GRAPH, {"test_reward": 0.25, "pass_at_1": 0.5}) == 0.25
    arithmetic = next(subject for subject in FULL.subjects if subject.name == "arithmetic")
    assert score_of(arithmetic, {"test_reward": 0.25, "pass_at_1": 0.5}) == 0.5


def test_seeds_of_runs_are_none_of_the_trials(tmp_path):
    result = run("--seed", TUNED_ON[0], "--seeds", 1, "--out", tmp_path)
    assert result.exit_code == 2
    assert "learning rates are chosen by the seeds 100 to 101" in result.output
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("turns", [1, 2, None])
def test_a_starting_model_that_is_not_able_is_made_again(monkeypatch, tmp_path, turns):
    made = []

    def write(name, task, folder, *, seed, part):
        folder.mkdir(exist_ok=True)
        made.append(seed)

    monkeypatch.setattr(study, "write_start", write)
    monkeypatch.setattr(study, "policy_at", lambda *_: None)
    monkeypatch.setattr(study, "is_able", lambda *_: len(made) == turns)
    if turns is None:
        with pytest.raises(TrainingError, match="none of 5 starting models of graph"):
            study.make_start(GRAPH, None, tmp_path / "one", 3)
    else:
        study.make_start(GRAPH, None, tmp_path / "one", 3)
    assert made == [3 + 1000 * turn for turn in range(turns or 5)]
    assert (tmp_path / "one" / "ready").exists() == (turns is not None)
    assert [path.name for path in tmp_path.iterdir()] == ["one"] * (turns is not None)


@pytest.mark.parametrize(("right", "able"), [(9, True), (8, False)])
def test_able_is_who_gives_right_long_answers(monkeypatch, right, able):
    texts = ["0110"] * 10 + ["1"] * 10
    rows = [Rollout(0, n, [], True, 0.0, text, float(n < right)) for n, text in enumerate(texts)]
    monkeypatch.setattr(measure, "answers_to", lambda *_, **__: rows)
    parity = next(subject for subject in FULL.subjects if subject.name == "parity")
    assert measure.is_able(parity, None, None, 0) is able


def test_figures_are_of_the_seeds_that_every_method_has_finished():
    pieces = [
        {"task": "graph", "seed": seed, "method": key, "end": {"pass_at_1": value}}
        for key, values in {"rft": [0.5, 0.7, 0.9], "soft": [0.4, 0.3]}.items()
        for seed, value in enumerate(values)
    ]
    runs = Runs(pieces, GRAPH)
    assert runs.seeds == [0, 1]
    assert runs.mean("rft", PASS).mean == pytest.approx(0.6)
    assert runs.difference("rft", "soft", PASS).mean == pytest.approx(0.25)
    assert verdict(runs, "rft", "soft", PASS) == "ties"
    assert verdict(runs, "rft", "soft", PASS._replace(form="", more_is_better=False)) == "ties"
    assert Runs(pieces[:1] + pieces[-1:], GRAPH).seeds == [0, 1]


def test_rft_is_exact_where_rewards_are_zero_or_one():
    pieces = [
        {"task": name, "seed": 0, "method": key, "end": {}}
        for name in ("graph", "arithmetic")
        for key in REFERENCES
    ]
    of = {subject.name: exact_of(Runs(pieces, subject), REFERENCES) for subject in FULL.subjects}
    assert of == {"arithmetic": ["rft", "tilt-0.5"], "parity": [], "graph": ["tilt-0.5"]}


def test_what_some_seeds_lack_has_no_verdict_and_says_of_how_many_it_is():
    pieces = [
        {"task": "graph", "seed": seed, "method": key, "course": [],
         "end": {"kl": value, "law": {"excess": value if (key, seed) != ("soft", 2) else None}}}
        for key, values in {"tilt-0.5": [0.5, 0.6, 0.7], "soft": [1.5, 1.7, 1.6]}.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip
    runs = Runs(pieces, GRAPH)
    assert verdict(runs, "tilt-0.5", "soft", KL) == "wins"
    assert verdict(runs, "tilt-0.5", "soft", EXCESS) == "–"
    assert not math.isnan(runs.difference("tilt-0.5", "soft", EXCESS).mean)
    assert _section(runs).count("(2 of 3 seeds)") == 2  # its mean, and its difference


def test_the_guide_has_the_figures_of_the_report(tmp_path):
    root = Path(__file__).parents[3] / "docs"
    kept = json.loads((root / "results" / "language.json").read_text(encoding="utf-8"))
    tasks = [Runs(kept["pieces"], subject) for subject in FULL.subjects]
    guide, text = tmp_path / "guide.md", (root / GUIDE).read_text(encoding="utf-8")
    guide.write_text(text, encoding="utf-8")
    assert write_figures([runs for runs in tasks if len(runs.methods) > 1], guide)
    assert guide.read_text(encoding="utf-8") == text
    assert text.count(BEGIN) == text.count(END) == 1
    guide.write_text(text.replace(END, ""), encoding="utf-8")
    assert not write_figures(tasks, guide)
