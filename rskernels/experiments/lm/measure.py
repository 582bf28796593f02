"""How good a policy is on held-out prompts, how various, and how far from where it started."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from rskernels.experiments.lm.laws import Enumerated
from rskernels.experiments.lm.pool import answers_to, log_probs_of
from rskernels.experiments.lm.subjects import Subject
from rskernels.language.evaluate import numbers_of
from rskernels.language.policy import Policy
from rskernels.language.rollouts import Rollout
from rskernels.language.task import Task
from rskernels.language.tasks import parity
from rskernels.language.train import Example

LOOKED_AT = 100
"""Prompts by which a starting model is found able."""
FEW = 2
"""Where a course is measured, one of so many held-out prompts and of their answers."""


class Start(NamedTuple):
    """The starting model, to compare others with."""

    policy: Policy
    enumerated: Enumerated | None
    seed: int
    """Of its demonstrations."""


def measure(
    subject: Subject,
    task: Task,
    policy: Policy,
    start: Start,
    number: int,
    seed: int,
    *,
    is_last: bool,
) -> dict[str, Any]:
    """Measure a policy after a round.

    Returns
    -------
    dict
        ``pass_at_k``, ``distinct_right``, ``test_reward``; ``kl``, in nats an answer, from the
        starting model, by the answers drawn; ``long`` of parity. After the last round also
        ``greedy``, and where laws are known what `Enumerated.compare` returns.
    """
    tested = subject.tested if is_last else subject.tested // FEW
    answers = subject.answers if is_last else subject.answers // FEW
    prompts = list(range(tested))
    rows = answers_to(
        policy, task, "test", prompts, number=number, samples=range(answers),
        longest=subject.longest, seed=seed,
    )  # fmt: skip
    each = [rows[at : at + answers] for at in range(0, len(rows), answers)]
    right = [[row.reward > 0.0 for row in of] for of in each]
    seen: dict[str, Any] = numbers_of([[row.text for row in of] for of in each], right, task.key)
    seen["test_reward"] = sum(row.reward for row in rows) / len(rows)
    seen["kl"] = divergence(policy, start.policy, task, rows)
    if subject.name == "parity":
        seen["long"] = sum(parity.is_long(row.text) for row in rows) / len(rows)
    if is_last:
        best = answers_to(
            policy, task, "test", prompts, number=number, samples=None, longest=subject.longest,
            seed=seed,
        )  # fmt: skip
        seen["greedy"] = sum(row.reward > 0.0 for row in best) / len(best)
        if start.enumerated is not None:
            seen["law"] = start.enumerated.compare(policy, subject.rounds)
    return seen


def divergence(policy: Policy, start: Policy, task: Task, rows: list[Rollout]) -> float:
    """Return the mean of log π(y) - log π₀(y) over answers y that π gave, which estimates KL."""
    examples = [
        Example(policy.encode(task.test[row.prompt]["prompt"], False), row.tokens, 1.0, place)
        for place, row in enumerate(rows)
    ]
    now, before = (log_probs_of(one, examples) for one in (policy, start))
    return float((now - before).mean())


def enumerated_of(subject: Subject, task: Task, policy: Policy) -> Enumerated | None:
    """Return the laws of the starting model, where the task has few enough answers."""
    if not subject.enumerated:
        return None
    prompts = [row["prompt"] for row in task.test[: subject.enumerated]]
    with torch.no_grad():
        return Enumerated.of(policy, task, prompts)


def is_able(subject: Subject, task: Task, policy: Policy, seed: int) -> bool:
    """Say whether a starting model's long answers to prompts to train on are right often enough."""
    if not subject.able:
        return True
    rows = answers_to(
        policy, task, "train", range(LOOKED_AT), number=0, samples=range(subject.answers),
        longest=subject.longest, seed=seed,
    )  # fmt: skip
    right = [row.reward for row in rows if parity.is_long(row.text)]
    return bool(right) and sum(right) >= subject.able * len(right)
