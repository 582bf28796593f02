"""Trainers of Hugging Face and TRL that decide by an envelope: alone, resumed, and as two ranks."""

import math
from pathlib import Path

import pytest
import torch

import rskernels

from ..support.ranks import run_script

pytest.importorskip("trl", reason="the extra hf is not installed")

from transformers import Trainer, TrainerCallback, TrainingArguments

from rskernels.envelope import NoFiniteM
from rskernels.integrations.hf_trainer import (
    EnvelopeCallback,
    empty_like,
)

from . import tiny
from .training import TRAINERS, grpo, hf, logs, rsft, run, sequences

RANKS = Path(__file__).with_name("training_ranks.py")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.process
def test_two_ranks_train_stop_and_go_on_as_if_they_had_not(tmp_path):
    run_script(RANKS, tmp_path, "hf", "rsft", "grpo")


@pytest.mark.parametrize("name", ["hf", "sequences"])
def test_training_goes_on_as_if_it_had_not_stopped(name, tmp_path):
    trainer, decided = run(TRAINERS[name], tmp_path)
    again, later = run(TRAINERS[name], tmp_path, resume=str(tmp_path / "checkpoint-10"))
    assert later == decided[10:]
    assert logs(again, 10) == logs(trainer, 10)
    assert again.rejection.envelope.to_bytes() == trainer.rejection.envelope.to_bytes()
    accepted = [sum(mask) for _, mask, _ in decided]
    assert accepted[0] == 0  # the pilot
    assert 0 < sum(accepted) < sum(rows for *_, rows in decided)


class Reporter(TrainerCallback):
    """What TensorBoard is to a trainer: it takes the logs that it is shown."""

    def __init__(self):
        self.shown = []

    def on_log(self, args, state, control, logs, **kwargs):
        self.shown.append(dict(logs))


def test_reporters_and_the_history_have_the_metrics(tmp_path):
    reporter = Reporter()
    trainer = hf(tmp_path, max_steps=4, save_strategy="no")
    trainer.add_callback(reporter)
    trainer.train()
    shown = [row for row in reporter.shown if "loss" in row]
    names = {"rejection/acceptance", "rejection/tv_bound", "rejection/log_M", "rejection/ess"}
    assert all(names <= set(row) for row in [*logs(trainer)[1:], *shown[1:]])
    assert not any("rejection/acceptance" in row for row in reporter.shown if "loss" not in row)
    [last] = [row["rejection/log_M"] for row in logs(trainer)[-1:]]
    assert last == float(trainer.rejection.envelope.log_M())


def test_a_checkpoint_without_an_envelope_is_refused(tmp_path):
    plain = Trainer(
        tiny.model(),
        tiny.arguments(TrainingArguments, tmp_path, max_steps=2, save_steps=1),
        train_dataset=hf(tmp_path).train_dataset,
    )
    plain.train()
    with pytest.raises(FileNotFoundError, match="holds no envelope to go on with"):
        hf(tmp_path, max_steps=3).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_other_ranks_than_saved_it_go_on_with_all_that_was_seen(tmp_path):
    folder = tmp_path / "checkpoint-10"
    folder.mkdir()
    whole = rskernels.Envelope("quantile", level=0.5)
    for rank in range(3):  # as three ranks would save it
        part = EnvelopeCallback(rskernels.Envelope("quantile", level=0.5))
        seen = part.envelope.bernoulli(torch.randn(50), seed=rank)
        part.record(seen)
        whole.update(seen.log_ratio, accepted=seen.mask)
        torch.save(part.state_dict(3), folder / f"rskernels-envelope-{rank}.pt")
    callback = EnvelopeCallback(rskernels.Envelope("quantile", level=0.5))
    callback._load(folder, 0, 1)
    assert callback.envelope.seen == 150
    assert callback.envelope.log_M() == whole.log_M()
    assert callback.batches == 3  # past every id that was used


def test_a_rank_without_its_own_file_is_refused(tmp_path, monkeypatch):
    saved = EnvelopeCallback(rskernels.Envelope("quantile", level=0.5))
    saved.record(saved.bernoulli(torch.randn(50)))
    torch.save(saved.state_dict(2), tmp_path / "rskernels-envelope-0.pt")
    resumed = EnvelopeCallback(rskernels.Envelope("quantile", level=0.5))
    with pytest.raises(FileNotFoundError, match="is of 2 ranks and lacks rskernels-envelope-1"):
        resumed._load(tmp_path, 1, 2)
    assert resumed.envelope.seen == 0
    resumed._load(tmp_path, 0, 2)
    assert resumed.envelope.seen == 50


@pytest.mark.parametrize("unit", ["tokens", "sequences"])
def test_tails_without_a_finite_m_accept_nothing_and_training_goes_on(unit):
    heavy = torch.empty(512, 1).cauchy_(generator=torch.Generator().manual_seed(0))
    mask = torch.ones(512, 1, dtype=torch.bool)
    mask[0] = False
    callback = EnvelopeCallback(rskernels.Envelope("tail"))
    decide = callback.bernoulli if unit == "tokens" else callback.accept_sequences
    callback.record(decide(heavy, mask))
    with pytest.raises(NoFiniteM):
        callback.envelope.log_M()
    callback.record(decide(heavy, mask))
    found = callback.take_metrics().to_dict()
    assert found["acceptance"] == 0
    assert math.isnan(found["log_M"])
    assert callback.envelope.seen == 2 * 511
    assert callback.batches == 2


def test_invalid_rows_are_counted_whatever_the_number_of_processes():
    ratios = torch.tensor([0.0, math.nan, 0.5, math.nan, math.inf, 9.0])
    mask = torch.tensor([True, True, True, False, True, False])
    callback = EnvelopeCallback(rskernels.Envelope("max"))
    callback._own = empty_like(callback.envelope)  # as of two processes
    callback.record(callback.bernoulli(ratios, mask))
    assert callback._own.counts.invalid == callback.envelope.counts.invalid == 2
    assert callback._own.seen == 4


def test_the_envelope_of_another_run_is_refused(tmp_path):
    few = {"max_steps": 2, "save_steps": 1}
    for name in ("one", "other"):
        hf(tmp_path / name, **few).train()
    trainer = hf(tmp_path / "other", max_steps=3)
    with pytest.raises(ValueError, match="other/checkpoint-1 was saved by another run"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-1"))


def test_no_two_batches_draw_alike():
    callback = EnvelopeCallback(rskernels.Envelope("fixed", M=2.0))
    masks = []
    for _ in range(3):
        masks += [callback.envelope.bernoulli(torch.zeros(64), **callback.draws()).mask]
        callback.record(callback.envelope.bernoulli(torch.zeros(64), **callback.draws()))
    assert len({tuple(mask.tolist()) for mask in masks}) == 3


@pytest.mark.parametrize("policy", ["max", "quantile:0.9", "decayed:100", "budget:0.5", "fixed:2"])
def test_an_empty_envelope_has_the_options(policy):
    envelope = rskernels.Envelope.parse(policy, groups=2)
    envelope.update(torch.zeros(2), torch.tensor([0, 1]))
    empty = empty_like(envelope)
    assert empty.seen.sum() == 0
    empty.merge(envelope)


def test_what_is_no_envelope_or_of_groups_is_refused(tmp_path):
    with pytest.raises(TypeError, match="envelope must be an Envelope"):
        EnvelopeCallback("max")
    with pytest.raises(ValueError, match="must have one group, got 2"):
        rsft(tmp_path, envelope=rskernels.Envelope("max", groups=2))
    with pytest.raises(ValueError, match='level must be "token" or "sequence", got'):
        rsft(tmp_path, "word")
    with pytest.raises(ValueError, match="got \\['label_smoothing_factor', 'loss_type'\\]"):
        rsft(tmp_path, label_smoothing_factor=0.1, loss_type="dft")


def test_the_loss_is_the_mean_over_accepted_tokens(tmp_path):
    trainer = rsft(tmp_path, envelope=rskernels.Envelope("fixed", M=80.0), max_steps=1)
    model, found = trainer.model, {}
    compute = trainer.compute_loss

    def compute_loss(model, inputs, *rest, **named):
        found.update({k: v.clone() for k, v in inputs.items()})
        loss = compute(model, inputs, *rest, **named)
        found["loss"] = loss.detach()
        with torch.no_grad():
            logits = model(found["input_ids"], attention_mask=found["attention_mask"]).logits
        found["log_q"] = logits[:, :-1].log_softmax(-1)
        return loss

    trainer.compute_loss = compute_loss
    trainer.train()
    labels = found["labels"][:, 1:]
    log_q = found["log_q"].gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    seen = trainer.seen
    given = labels != -100
    assert 0 < seen.mask.sum() < given.sum()
    assert not (seen.mask & ~given).any()
    torch.testing.assert_close(found["loss"], -log_q[seen.mask].mean())
    ratios = torch.where(given, -log_q.double(), torch.nan)  # p̂ of 1
    again = rskernels.bernoulli(ratios, 80.0, mask=given, seed=0)
    torch.testing.assert_close(seen.log_ratio, ratios, equal_nan=True, check_dtype=False)
    assert torch.equal(seen.mask, again.mask)
    assert model is trainer.model


def test_sequences_are_decided_by_the_reference_and_the_column(tmp_path):
    trainer = sequences(tmp_path, envelope=rskernels.Envelope("fixed", M=1e9), max_steps=1)
    batch = {}
    decide = trainer._decide

    def note(ratios, mask):
        batch.update(ratios=ratios, mask=mask)
        return decide(ratios, mask)

    trainer._decide = note
    rows, compute = {}, trainer.compute_loss

    def compute_loss(model, inputs, *rest, **named):
        rows.update(inputs)
        with torch.no_grad():
            for name, judge in (("q", model), ("p", trainer.reference)):
                logits = judge(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
                rows[name] = logits[:, :-1].double().log_softmax(-1)
        return compute(model, inputs, *rest, **named)

    trainer.compute_loss = compute_loss
    trainer.train()
    labels = rows["labels"][:, 1:]
    at = labels.clamp(min=0)[..., None]
    each = (rows["p"] - rows["q"]).gather(-1, at)[..., 0]
    wanted = torch.where(labels != -100, each, 0).sum(1) + rows["reward"]
    torch.testing.assert_close(trainer.seen.log_ratio, wanted, rtol=1e-4, atol=1e-4)


def test_a_column_is_needed_in_training_alone(tmp_path):
    trainer = sequences(tmp_path, max_steps=1)
    trainer.train_dataset = trainer.train_dataset.remove_columns("reward")
    assert "eval_loss" in trainer.evaluate(trainer.train_dataset.select(range(8)))
    with pytest.raises(KeyError, match="the training data has no column 'reward'"):
        trainer.train()


def test_it_warns_of_what_the_sampler_cuts_off(tmp_path):
    with pytest.warns(UserWarning, match=r"sampled with top_p=0\.5, top_k=7, so that"):
        grpo(tmp_path, top_p=0.5, top_k=7)


def test_rejected_rollouts_are_in_no_baseline(tmp_path):
    """A group's advantages are those of its accepted siblings alone."""
    trainer = grpo(tmp_path, envelope=rskernels.Envelope("fixed", M=3.0), max_steps=3)
    found = []
    score = trainer._generate_and_score_completions

    def noted(inputs):
        output = score(inputs)
        found.append((output, trainer.seen, list(trainer._logs["rewards"]["reward"])[-4:]))
        return output

    trainer._generate_and_score_completions = noted
    trainer.train()
    mixed = 0
    for output, seen, _ in found:
        texts = trainer.processing_class.batch_decode(output["completion_ids"])
        rewards = torch.tensor([text.count("1") / 6 for text in texts])
        kept = seen.mask
        assert (output["advantages"][~kept] == 0).all()
        assert (output["completion_mask"][~kept] == 0).all()
        assert output["num_items_in_batch"] == output["completion_mask"].sum() == kept.sum() * 6
        mixed += bool(kept.any() and not kept.all())
        if kept.sum() > 1:
            own = rewards[kept]
            wanted = (own - own.mean()) / (own.std() + 1e-4)
            torch.testing.assert_close(output["advantages"][kept], wanted, rtol=1e-3, atol=1e-4)
    assert mixed > 0


def test_rollouts_without_log_probabilities_are_refused(tmp_path):
    trainer = grpo(tmp_path, max_steps=1)
    rollouts = trainer.rollout_func
    trainer.rollout_func = lambda *given: {**rollouts(*given), "logprobs": None}
    with pytest.raises(ValueError, match="rollouts came without log-probabilities"):
        trainer.train()


def test_a_rollout_of_the_same_policy_has_a_ratio_of_one(tmp_path):
    """What vLLM gives beside the tokens, the model's log-probabilities, is what it is held to."""
    trainer = grpo(tmp_path, envelope=rskernels.Envelope("fixed", M=1.0), max_steps=1)
    rollouts = trainer.rollout_func

    def own(prompts, given):
        made = rollouts(prompts, given)
        made["logprobs"] = []
        for prompt, ids in zip(made["prompt_ids"], made["completion_ids"], strict=True):
            with torch.no_grad():
                logits = trainer.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            log_p = logits.log_softmax(-1)
            made["logprobs"] += [[log_p[t, token].item() for t, token in enumerate(ids)]]
        return made

    trainer.rollout_func = own
    trainer.train()
    assert trainer.seen.log_ratio.abs().max() < 1e-4
    assert trainer.seen.mask.all()
