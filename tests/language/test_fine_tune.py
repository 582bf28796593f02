"""Whole runs in one process: what they learn, write, refuse and go on with."""

import dataclasses
import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rskernels.language import rollouts
from rskernels.language.config import LanguageConfig
from rskernels.language.parallel import Ranks
from rskernels.language.policy import Scorer, check_head, load
from rskernels.language.rollouts import Rollouts, blocks_of
from rskernels.language.run import fine_tune
from rskernels.language.task import Task
from rskernels.rsft.errors import CheckpointError, DataError, TrainingError

from . import tiny


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return tiny.folder(tmp_path_factory.mktemp("model") / "given")


def run(given, out, task=None, resume=False, overwrite=False, **more):
    config = tiny.config(given, **more)
    more = {"resume": resume, "overwrite": overwrite}
    return fine_tune(config, out, task=task or tiny.task(), progress=False, **more)


def records(out, kind):
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def test_a_model_learns_what_is_rewarded_and_leaves_all_that_tells_of_it(given, tmp_path):
    out = tmp_path / "run"
    summary = run(given, out, rounds=4, samples=16, beta=0.0, epochs=2, lr=0.02)
    names = {path.name.partition(".tfevents")[0] for path in out.iterdir()}
    assert names == {
        "metrics.jsonl", "events.out", "checkpoint.pt", "curves.png", "summary.json", "report.md",
        "rounds", "samples", "model", "parts",
    }  # fmt: skip
    rounds = records(out, "round")
    assert [record["round"] for record in rounds] == list(range(5))
    assert rounds[1]["right"] < 0.65 < 0.85 < rounds[4]["right"]
    assert summary["before"]["pass_at_1"] == rounds[0]["pass_at_1"] < rounds[4]["pass_at_1"]
    for record in rounds[1:]:
        assert record["acceptance"] == record["right"]  # beta is 0
        assert 0 < record["kl"] == pytest.approx(-math.log(record["right"]), abs=0.3)
    texts = (out / "rounds/0002.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in texts]
    assert len(rows) == 12 * 16
    assert sum(row["accepted"] for row in rows) == rounds[2]["accepted"]
    for row in rows:
        assert row["reward"] == float(row["completion"][:1].isdigit()) == float(row["accepted"])
    last = rounds[-1]
    assert last["gradient_answers"] == 2 * sum(record["accepted"] for record in rounds[1:])
    assert sum(step["tokens"] for step in records(out, "step")) == last["gradient_tokens"]
    assert f"| 4 | {last['pass_at_1']:.3f} |" in (out / "report.md").read_text(encoding="utf-8")
    assert "reward 1, kept" in (out / "samples/round-0001.md").read_text(encoding="utf-8")
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    AutoTokenizer.from_pretrained(out / "model")
    assert not torch.equal(model.lm_head.weight, tiny.model().lm_head.weight)


@pytest.mark.parametrize("form", ["best_of", "weights"])
def test_every_kind_of_form_trains(given, tmp_path, form):
    summary = run(given, tmp_path / "run", form=form, rounds=1, samples=4)
    assert summary["gradient_answers"] == summary["accepted"] > 0
    pilot = summary["config"]["pilot"] or 0
    assert summary["answers"] == 12 * (4 + pilot)


@pytest.mark.parametrize("form", ["quantile", "learnt"])
def test_pilot_answers_without_a_reward_are_left_out_and_counted(given, tmp_path, form):
    worth = {"a": None, "b": math.nan, "c": math.inf}

    def reward(prompts, completions, **columns):
        return [worth.get(text[:1], float(text[:1].isdigit())) for text in completions]

    task = dataclasses.replace(tiny.task(), reward=reward)
    summary = run(given, tmp_path / "run", task, form=form, rounds=1, samples=4, pilot=16)
    assert 0 < summary["pilot_invalid"] < 12 * 16 / 2
    assert 0 < summary["invalid"] < 12 * 4 / 2
    assert summary["accepted"] > 0
    report = (tmp_path / "run/report.md").read_text(encoding="utf-8")
    assert f"| {summary['invalid']} |" in report
    assert f"Left out of pilots: {summary['pilot_invalid']} without" in report


@pytest.mark.parametrize("form", ["verifier", "rft"])
def test_a_verifier_that_finds_no_reward_of_0_or_1_is_no_success(given, tmp_path, form):
    halves = dataclasses.replace(
        tiny.task(), reward=lambda prompts, completions, **columns: [0.5] * len(prompts)
    )
    with pytest.raises(TrainingError, match=r"none of 48 answers has a reward that the form .*0.5"):
        run(given, tmp_path / "run", halves, form=form, rounds=1)


def test_prompts_that_are_too_long_are_all_named_before_anything_is_made(given, tmp_path):
    rows = [{"prompt": "1="}, {"prompt": "1" * 59}, {"prompt": "1" * 58}, {"prompt": "1" * 70}]
    task = Task("t", rows, rows[1:2], tiny.reward)
    with pytest.raises(DataError, match=r"3 of 5 prompts .*row 1 to train has 59, row 3") as caught:
        run(given, tmp_path / "run", task, prompts=1, rounds=1)
    assert "row 0 to test has 59" in str(caught.value)
    assert not list((tmp_path / "run").glob("*.jsonl"))
    fits = Task("t", rows[::2], [rows[0], *rows[1:2]], tiny.reward)
    assert run(given, tmp_path / "other", fits, prompts=1, rounds=1, eval_prompts=1)["round"] == 1


def test_adapters_are_trained_alone_and_saved_merged(given, tmp_path):
    out = tmp_path / "run"
    summary = run(given, out, lora_rank=4, rounds=1, samples=4, lr=0.05)
    assert summary["accepted"] > 0
    assert (out / "adapter/adapter_config.json").is_file()
    merged = AutoModelForCausalLM.from_pretrained(out / "model")
    before = tiny.model().state_dict()
    changed = {
        name for name, part in merged.state_dict().items() if not torch.equal(part, before[name])
    }
    assert changed
    assert all("_proj" in name for name in changed)
    again = run(given, out, lora_rank=4, rounds=2, samples=4, lr=0.05, resume=True)
    assert again["round"] == 2


def test_several_tasks_are_asked_together_and_measured_each(given, tmp_path):
    out, task = tmp_path / "run", tiny.two()
    run(given, out, task, rounds=1, samples=16, beta=0.0, eval_prompts=4)
    names = {"digits first": 7, "letters": 7}
    texts = (out / "rounds/0001.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in texts]
    first, last = records(out, "round")
    for name, count in names.items():
        own = [row for row in rows if row["task"] == name]
        assert len(own) == 16 * count
        judged = {"digits first": tiny.reward, "letters": tiny.letters}[name]
        rewards = judged([], [row["completion"] for row in own])
        assert [row["reward"] for row in own] == rewards
        assert last[f"{name}/right"] == last[f"{name}/acceptance"] == sum(rewards) / len(own)
    for record in (first, last):
        for name in ("pass_at_1", "greedy", "distinct_right"):
            each = [record[f"{part}/{name}"] for part in names]
            assert record[name] == pytest.approx(sum(each) / 2), name  # two prompts of each
        assert 0 < record["letters/mean_length"] <= 6
        assert "digits first/mean_length" not in record
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "## letters" in report
    assert (
        "| round | pass@1 | greedy | distinct right | right of the round | acceptance | length |"
        in report
    )
    samples = (out / "samples/round-0001.md").read_text(encoding="utf-8")
    assert "fe+" in samples
    assert "+=" in samples


def test_a_run_goes_on_for_more_rounds_and_not_with_other_options(given, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(given, whole, rounds=2, restart=True)
    run(given, parts, rounds=1, restart=True)
    with pytest.raises(FileExistsError, match="already holds a run"):
        run(given, parts, rounds=2, restart=True)
    run(given, parts, rounds=2, restart=True, resume=True)
    want, got = ((out / "rounds/0002.jsonl").read_bytes() for out in (whole, parts))
    assert want == got
    losses = [[step["loss"] for step in records(out, "step")] for out in (whole, parts)]
    assert losses[0] == losses[1]
    with pytest.raises(CheckpointError, match=r"lr was 0\.01, is 0\.02"):
        run(given, parts, rounds=2, restart=True, resume=True, lr=0.02)
    with pytest.raises(CheckpointError, match="other data"):
        run(given, parts, tiny.task(11, 5), rounds=2, restart=True, resume=True)
    with pytest.raises(CheckpointError, match="more than rounds=1"):
        run(given, parts, rounds=1, restart=True, resume=True)
    with pytest.raises(CheckpointError, match="nothing to resume"):
        run(given, tmp_path / "none", resume=True)


def test_a_round_that_accepts_nothing_trains_on_nothing(given, tmp_path):
    task = dataclasses.replace(
        tiny.task(), reward=lambda prompts, completions, **columns: [0.0] * len(prompts)
    )
    summary = run(given, tmp_path / "run", task, form="rft", rounds=1)
    assert (summary["accepted"], summary["step"], summary["pass_at_1"]) == (0, 0, 0.0)
    assert summary["accepted_reward"] is None
    nothing = dataclasses.replace(
        task, reward=lambda prompts, completions, **columns: [None] * len(prompts)
    )
    with pytest.raises(TrainingError, match="no number for any of 48 answers"):
        run(given, tmp_path / "other", nothing, form="rft", rounds=1)


def test_blocks_that_are_half_written_are_made_again(given, tmp_path):
    config = tiny.config(given)
    policy = load(config, torch.device("cpu"))

    def made(**more):
        return Rollouts(policy, tiny.task(), config, Ranks(), tmp_path).make(
            policy, "train", 1, [0, 3, 5], 4, **more
        )

    want = made()
    assert [(row.prompt, row.sample) for row in want[:5]] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (0, 3),
        (3, 0),
    ]
    (part,) = tmp_path.iterdir()
    text = part.read_bytes()
    part.write_bytes(text[: len(text) - 30])
    with pytest.raises(CheckpointError, match="lacks 1 of 1 blocks"):
        made(must_exist=True)
    assert made() == want
    assert made(must_exist=True) == want


def test_rewards_that_are_no_numbers_survive_the_disk(tmp_path):
    rows = [
        rollouts.Rollout(0, at, [3], False, -1.0, "0", reward)
        for at, reward in enumerate([math.nan, math.inf, -math.inf, 0.25])
    ]
    path = tmp_path / "a.part.jsonl"
    with path.open("w", encoding="utf-8") as file:
        rollouts._append(file, 7, rows)
    ((number, read),) = rollouts._read(path)
    assert number == 7
    assert [repr(row) for row in read] == [repr(row) for row in rows]


def test_blocks_hold_every_answer_once():
    lengths = [5, 1, 3, 1, 4]
    for samples, most in ((3, 7), (8, 3), (1, 100)):
        blocks = blocks_of([10, 11, 12, 13, 14], lengths, samples, most)
        named = [(p, s) for block in blocks for p in block.prompts for s in block.samples]
        assert sorted(named) == [(p, s) for p in range(10, 15) for s in range(samples)]
        assert all(len(b.prompts) * len(b.samples) <= most for b in blocks)
        assert [block.number for block in blocks] == list(range(len(blocks)))
    assert blocks_of([10, 11, 12], [5, 1, 3], 1, 2)[0].prompts == [11, 12]


def test_prompts_of_a_round_are_drawn_anew(given, tmp_path):
    out = tmp_path / "run"
    run(given, out, rounds=2, prompts=5)
    texts = [(out / f"rounds/000{at}.jsonl").read_text(encoding="utf-8") for at in (1, 2)]
    asked = [{json.loads(line)["prompt"] for line in text.splitlines()} for text in texts]
    assert asked[0] != asked[1]
    assert [len(of) for of in asked] == [5, 5]


class Scaled(torch.nn.Module):
    """A model whose logits are not its head times the hidden states."""

    def __init__(self, causal):
        super().__init__()
        self.causal, self.config, self.dtype = causal, causal.config, causal.dtype
        self.base_model, self.get_output_embeddings = (
            causal.base_model,
            causal.get_output_embeddings,
        )

    def forward(self, **given):
        outputs = self.causal(**given)
        outputs.logits = 2 * outputs.logits
        return outputs


def test_a_head_that_is_another_is_refused():
    causal = tiny.model(initializer_range=0.2)
    check_head(Scorer(causal), torch.device("cpu"))
    with pytest.raises(DataError, match="are not its output layer times"):
        check_head(Scorer(Scaled(causal)), torch.device("cpu"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"form": "rft", "beta": 0.1}, "only form verifier or bounded"),
        ({"form": "bounded", "beta": 0.0}, "only the form verifier takes 0"),
        ({"form": "learnt", "envelope": "tail"}, "learnt by max"),
        ({"rounds": 0}, "rounds=0"),
        ({"samples": 1 << 20}, "samples="),
    ],
)
def test_options_that_cannot_be_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        LanguageConfig(**more)


def test_tasks_and_folders_that_cannot_be_are_refused(given, tmp_path):
    rows, reward = [{"prompt": "1="}], tiny.reward
    for task, message in (
        (Task("t", [], rows, reward), "no prompts to train"),
        (Task("t", rows, [], reward), "no prompts to test"),
        (Task("t", [{"prompt": 1}], rows, reward), "no text as prompt"),
        (Task("t", [*rows, {"prompt": "2=", "a": 1}], rows, reward), "has columns"),
        (Task("t", [{"prompt": "1" * 60}], rows, reward), "more than the 64 places"),
    ):
        with pytest.raises(DataError, match=message):
            run(given, tmp_path / message[:5], task)
    with pytest.raises(DataError, match="the tokenizer has no chat template"):
        run(given, tmp_path / "chat", Task("t", rows, [{"prompt": "2="}], reward), chat=True)
    with pytest.raises(DataError, match="holds no model"):
        run(tmp_path, tmp_path / "run")
    with pytest.raises(DataError, match="where the run is to be written"):
        run(given, given.parent)
