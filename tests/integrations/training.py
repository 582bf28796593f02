"""What each integration trains in these tests, alone or as a rank of several."""

import torch
from transformers import Trainer, TrainingArguments
from trl import GRPOConfig, SFTConfig

import rskernels
from rskernels.integrations.hf_trainer import EnvelopeCallback, attach, ranks_mean
from rskernels.integrations.trl import RejectionGRPOTrainer, RSFTTrainer

from . import tiny


class _Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 160

    def __getitem__(self, row):
        draws = torch.Generator().manual_seed(row)
        ids = torch.randint(4, tiny.V, (8,), generator=draws)
        labels = ids.clone()
        labels[: row % 4] = -100  # a prompt of 0 to 3 tokens, about which nothing is decided
        return {"input_ids": ids, "labels": labels}


def hf(folder, **more):
    callback = EnvelopeCallback(rskernels.Envelope("budget", rate=0.5, half_life=500))

    def loss(outputs, labels, num_items_in_batch=None):
        targets = labels[:, 1:].contiguous()
        logits = outputs.logits[:, :-1]
        seen = callback.envelope.accept(logits, 1.0, targets=targets, **callback.draws())
        callback.record(seen)
        return ranks_mean(-seen.log_prob, seen.mask)

    arguments = tiny.arguments(TrainingArguments, folder, **more)
    trainer = Trainer(tiny.model(), arguments, train_dataset=_Rows(), compute_loss_func=loss)
    attach(trainer, callback)
    trainer.rejection = callback
    return trainer


def rsft(folder, level="token", envelope=None, reference=None, log_density=0.0, **more):
    return RSFTTrainer(
        tiny.model(),
        tiny.arguments(SFTConfig, folder, max_length=32, **more),
        train_dataset=tiny.texts(160),
        processing_class=tiny.tokenizer(),
        envelope=envelope or rskernels.Envelope("quantile", level=0.9),
        level=level,
        reference=reference,
        log_density=log_density,
    )


def sequences(folder, **more):
    envelope = rskernels.Envelope("budget", rate=0.6)
    more = {"envelope": envelope, "reference": tiny.model(7), "log_density": "reward", **more}
    return rsft(folder, "sequence", **more)


class Rollouts:
    """A sampler of an older policy: tokens of a uniform law, which the model has left since."""

    def __init__(self):
        self.calls = 0

    def __call__(self, prompts, trainer):
        rank = trainer.accelerator.process_index
        # Of the step, so that training that goes on samples as training that never stopped.
        draws = torch.Generator().manual_seed(1000 * trainer.state.global_step + rank)
        ids = [torch.randint(4, tiny.V, (6,), generator=draws).tolist() for _ in prompts]
        uniform = [[-torch.tensor(float(tiny.V)).log().item()] * 6 for _ in prompts]
        tokens = trainer.processing_class(prompts)["input_ids"]
        self.calls += 1
        return {"prompt_ids": tokens, "completion_ids": ids, "logprobs": uniform}


def reward(completions, **columns):
    return [text.count("1") / 6 for text in completions]


def grpo(folder, envelope=None, **more):
    more = {"num_generations": 4, "max_completion_length": 6, **more}
    return RejectionGRPOTrainer(
        tiny.model(),
        reward,
        tiny.arguments(GRPOConfig, folder, **more),
        train_dataset=tiny.prompts(),
        processing_class=tiny.tokenizer(),
        rollout_func=Rollouts(),
        envelope=envelope or rskernels.Envelope("max"),
    )


TRAINERS = {"hf": hf, "rsft": rsft, "sequences": sequences, "grpo": grpo}


def run(make, folder, resume=None, **more):
    """Train; return the trainer, and of each batch its number, its mask and its rows of a ratio."""
    trainer = make(folder, **more)
    decided = []
    record = trainer.rejection.record

    def and_note(seen, groups=None):
        rows = int((~seen.log_ratio.isnan()).sum())
        decided.append((trainer.rejection.batches, seen.mask.flatten().tolist(), rows))
        return record(seen, groups)

    trainer.rejection.record = and_note
    trainer.train(resume_from_checkpoint=resume)
    return trainer, decided


def logs(trainer, since=0):
    """Return what was logged of each training step, of all that does not count a process's own."""
    kept = ("step", "loss", "grad_norm", "reward", "learning_rate")
    rows = [row for row in trainer.state.log_history if "loss" in row and row["step"] > since]
    return [{k: v for k, v in row.items() if k in kept or "rejection" in k} for row in rows]
