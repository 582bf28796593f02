"""Answers with rewards, until they have so many tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rskernels.language.choose import answer_ids
from rskernels.language.generate import generate
from rskernels.language.policy import Policy
from rskernels.language.rollouts import Rollout
from rskernels.language.task import Task
from rskernels.language.train import Example, laid_out
from rskernels.law.philox import row_uniforms_64
from rskernels.law.streams import Stream

ROWS_AT_ONCE = 2048
FEWEST = 128


def draw_pool(
    policy: Policy, task: Task, *, number: int, samples: int, tokens: int, longest: int, seed: int
) -> list[Rollout]:
    """Draw answers to prompts to train on, in an order that follows from seed and number.

    Parameters
    ----------
    policy, task
        Who is asked, and what.
    number : int
        Of the pool, below 2^14; its prompts and draws are its own.
    samples : int
        Answers to a prompt; as many more where all prompts have been asked.
    tokens : int
        The answer that reaches this number is the last.
    longest : int
        Tokens of an answer, at most.
    seed : int
        63 bits.

    Returns
    -------
    list of Rollout
        Of ``tokens`` tokens, or more by less than one answer.
    """
    places = torch.arange(len(task.train))
    names = answer_ids("prompt", number, places, torch.zeros_like(places))
    order = row_uniforms_64(names, 0, seed, Stream.ORDER).argsort(stable=True).tolist()
    rows: list[Rollout] = []
    spent, at = 0, 0
    while True:
        # No more than are missing, but for a few: what comes after the last is thrown away.
        wanted = min(max(tokens - spent, FEWEST * longest) // longest, ROWS_AT_ONCE)
        together = -(-wanted // samples)
        lap, first = divmod(at, len(order))
        asked = order[first : first + together]
        at += len(asked)
        drawn = answers_to(
            policy, task, "train", asked, number=number, longest=longest, seed=seed,
            samples=range(lap * samples, (lap + 1) * samples),
        )  # fmt: skip
        for row in drawn:
            rows.append(row)
            spent += len(row.tokens)
            if spent >= tokens:
                return rows


def answers_to(
    policy: Policy,
    task: Task,
    kind: str,
    prompts: Sequence[int],
    *,
    number: int,
    samples: range | None,
    longest: int,
    seed: int,
) -> list[Rollout]:
    """Draw answers to prompts of a task, of some sample numbers; None is the most likely one."""
    of = task.train if kind == "train" else task.test
    tokens = [policy.encode(of[place]["prompt"], False) for place in prompts]
    ids = None
    if samples is not None:
        columns = torch.arange(samples.start, samples.stop)
        ids = answer_ids(kind, number, torch.tensor(prompts)[:, None], columns)
    drawn = generate(policy, tokens, ids, seed=seed, temperature=1.0, max_new_tokens=longest)
    numbers = list(samples or range(1))
    whose = [(place, sample) for place in prompts for sample in numbers]
    texts = [policy.decode(answer.tokens) for answer in drawn]
    rewards = task.reward([of[place]["prompt"] for place, _ in whose], texts)
    return [
        Rollout(place, sample, one.tokens, one.ended, one.log_prob, text, float(reward))
        for (place, sample), one, text, reward in zip(whose, drawn, texts, rewards, strict=True)
    ]


@torch.no_grad()
def log_probs_of(policy: Policy, examples: Sequence[Example]) -> Tensor:
    """Return the log-probability of each answer, float64 ``[N]``."""
    policy.causal.eval()
    parts = []
    for start in range(0, len(examples), ROWS_AT_ONCE):
        part = list(examples[start : start + ROWS_AT_ONCE])
        ids, mask, at, targets, _ = laid_out(part, policy.pad)
        each = policy.scorer(ids, mask, at, targets).double()
        lengths = torch.tensor([len(one.answer) for one in part])
        row = torch.arange(len(part)).repeat_interleave(lengths)
        parts.append(torch.zeros(len(part), dtype=torch.float64).index_add(0, row, each))
    return torch.cat(parts)
