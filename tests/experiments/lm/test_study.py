"""The comparison by its command: equal tokens, a report, and no run made twice."""

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from rskernels.cli.app import app
from rskernels.experiments.lm import measure, study
from rskernels.experiments.lm.study import FULL, QUICK, check_settings
from rskernels.experiments.lm.train import check_tokens
from rskernels.language.rollouts import Rollout
from rskernels.rsft.errors import CheckpointError, TrainingError

SOME = ("sft", "rft", "weights", "gradient-accepted", "gradient-fresh")
GRAPH = next(subject for subject in QUICK.subjects if subject.name == "graph")


def run(*arguments):
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, ["compare", "lm", *map(str, arguments)], env=environment)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    options = ("--quick", "--tasks", "graph", "--methods", ",".join(SOME))
    result = run(*options, "--out", folder / "runs", "--report", folder / "report")
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


def test_what_a_folder_or_a_report_holds_is_not_made_again(made, tmp_path):
    folder, options = made
    again = run(*options, "--out", folder / "runs", "--report", folder / "report")
    assert "rft:" not in again.output
    # From the report alone, in no time at all.
    other = run(*options, "--out", tmp_path, "--report", folder / "report", "--minutes", "0")
    assert other.exit_code == 0, other.output
    assert f"{len(SOME) + 1} runs taken from the report" in other.output
    assert len(list(tmp_path.glob("graph-0-*.json"))) == len(SOME) + 1


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


@pytest.mark.parametrize("turns", [1, 2, None])
def test_a_starting_model_that_is_not_able_is_made_again(monkeypatch, tmp_path, turns):
    made = []
    monkeypatch.setattr(study, "write_start", lambda *_, seed, **__: made.append(seed))
    monkeypatch.setattr(study, "policy_at", lambda *_: None)
    monkeypatch.setattr(study, "is_able", lambda *_: len(made) == turns)
    if turns is None:
        with pytest.raises(TrainingError, match="none of 5 starting models of graph"):
            study.make_start(GRAPH, None, tmp_path, 3)
    else:
        study.make_start(GRAPH, None, tmp_path, 3)
    assert made == [3 + 1000 * turn for turn in range(turns or 5)]
    assert (tmp_path / "ready").exists() == (turns is not None)


@pytest.mark.parametrize(("right", "able"), [(9, True), (8, False)])
def test_able_is_who_gives_right_long_answers(monkeypatch, right, able):
    texts = ["0110"] * 10 + ["1"] * 10
    rows = [Rollout(0, n, [], True, 0.0, text, float(n < right)) for n, text in enumerate(texts)]
    monkeypatch.setattr(measure, "answers_to", lambda *_, **__: rows)
    parity = next(subject for subject in FULL.subjects if subject.name == "parity")
    assert measure.is_able(parity, None, None, 0) is able
