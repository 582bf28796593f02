"""A run: rounds of answers, and gradient steps until so many tokens have had a gradient."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rskernels.envelope import Envelope
from rskernels.experiments.lm.measure import Start, measure
from rskernels.experiments.lm.methods import Asked, Method
from rskernels.experiments.lm.pool import draw_pool, log_probs_of
from rskernels.experiments.lm.subjects import Subject
from rskernels.language.config import LanguageConfig
from rskernels.language.loop import scored_of
from rskernels.language.parallel import Ranks
from rskernels.language.policy import Policy
from rskernels.language.rollouts import Rollout
from rskernels.language.scratch.start import STARTS, tokens_of
from rskernels.language.task import Task
from rskernels.language.tasks import demonstrations_of
from rskernels.language.train import Example, Trainer
from rskernels.law.philox import row_uniforms_64
from rskernels.law.streams import Stream
from rskernels.rsft.errors import TrainingError

BUDGET = 0.5
"""Of the candidates of a step, the share that off-policy rejection accepts."""
HALF_LIFE = 512.0
"""Of what its envelope has seen, in answers."""


class NothingSelectedError(TrainingError):
    """None of a round's answers is trained on."""


@dataclass
class Spent:
    """What a run has used so far."""

    generated: int = 0
    trained: int = 0
    scored: int = 0
    """Tokens scored to decide whether they are trained on."""
    steps: int = 0
    answers: int = 0
    kept: int = 0
    """Answers that a selection kept."""
    kept_tokens: int = 0
    distinct: int = 0
    """Of what was kept, different answers to a prompt of a round."""
    generation: float = 0.0
    training: float = 0.0
    """Seconds of the processor."""


@dataclass
class Run:
    """A method on a task, from a starting model."""

    method: Method
    subject: Subject
    task: Task
    policy: Policy
    seed: int
    lr: float
    shown: int
    """The seed of the starting model's demonstrations."""
    spent: Spent = field(default_factory=Spent)

    def __post_init__(self) -> None:
        config = LanguageConfig(seed=self.seed, lr=self.lr)
        self.trainer = Trainer(self.policy, config, Ranks())
        self._shown: list[Example] = []  # demonstrations
        self._old: dict[int, float] = {}  # what the policy that gave an answer said of it
        self.envelope: Envelope | None = None
        if self.method.rejects:
            self.envelope = Envelope.parse(f"budget:{BUDGET}", half_life=HALF_LIFE)
            # An answer has the ratio 1 to the policy that gave it: so M is known from the first.
            self.envelope.update(torch.zeros(int(HALF_LIFE), dtype=torch.float64))

    @property
    def parts(self) -> int:
        """Parts of a run, each with answers of its own."""
        return self.subject.rounds * self.method.parts

    def play(self, part: int) -> None:
        """Draw the answers of a part, and train on them."""
        began = time.process_time()
        ends = [of * (part + 1) // self.parts for of in self._budgets()]
        if self.method.family == "nothing":
            self._shown = examples = self._shown or self._demonstrations()
        else:
            examples = self._selected(part, ends[0])
        self.spent.generation += time.process_time() - began
        began = time.process_time()
        steps = self._accepted if self.method.rejects else self._steps
        for step in steps(examples, ends[1]):
            self._step(step)
        self.spent.training += time.process_time() - began

    def _budgets(self) -> tuple[int, int]:
        rounds = self.subject.rounds
        return self.subject.generated * rounds, self.subject.trained * rounds

    def _demonstrations(self) -> list[Example]:
        """Return those that the last lesson of the starting model had."""
        name, lessons = self.subject.name, STARTS[self.subject.name].lessons
        last = lessons[-1]
        # As many as a pass can use; the first of them are those of the starting model.
        size = min(round(self.subject.part * last.size), self._budgets()[1])
        pairs = demonstrations_of(
            name, self.task, size, 8 * self.shown + len(lessons) - 1, **last.options
        )
        tokenizer = self.policy.tokenizer
        return [
            Example(self.policy.encode(prompt, False), tokens_of(tokenizer, answer), 1.0, place)
            for place, (prompt, answer) in enumerate(pairs)
        ]

    def _selected(self, part: int, end: int) -> list[Example]:
        subject, method, spent = self.subject, self.method, self.spent
        rows = draw_pool(
            self.policy, self.task, number=part, samples=subject.samples,
            tokens=end - spent.generated, longest=subject.longest, seed=self.seed,
        )  # fmt: skip
        scored = scored_of(rows, part)
        if method.select is None:
            values = advantages(rows)
            # Where all answers to a prompt are worth the same none has a gradient.
            kept = [value != 0.0 for value in values] if any(values) else [True] * len(rows)
            self._old = dict(zip(scored.ids.tolist(), [r.log_prob for r in rows], strict=True))
        else:
            asked = Asked(subject.form, subject.samples, self.seed)
            selection = method.select(scored, asked)
            kept, values = selection.mask.tolist(), selection.log_weights.exp().tolist()
        spent.generated += sum(len(row.tokens) for row in rows)
        spent.answers += len(rows)
        spent.kept += sum(kept)
        spent.kept_tokens += sum(
            len(row.tokens) for row, is_kept in zip(rows, kept, strict=True) if is_kept
        )
        chosen = zip(scored.groups.tolist(), scored.answers.tolist(), kept, strict=True)
        spent.distinct += len({(group, text) for group, text, is_kept in chosen if is_kept})
        prompts = {
            place: self.policy.encode(self.task.train[place]["prompt"], False)
            for place in {row.prompt for row in rows}
        }
        return [
            Example(prompts[row.prompt], row.tokens, value, name)
            for row, value, name, is_kept in zip(
                rows, values, scored.ids.tolist(), kept, strict=True
            )
            if is_kept
        ]  # fmt: skip

    def _steps(self, examples: list[Example], end: int) -> Iterator[list[Example]]:
        """Cut passes over examples into steps, until the run has trained on ``end`` tokens."""
        step: list[Example] = []
        size = 0
        for one in passes(examples, self.seed):
            step.append(one)
            size += len(one.answer)
            if size >= min(self.subject.step, end - self.spent.trained):
                yield step
                step, size = [], 0
                if self.spent.trained >= end:
                    return

    def _accepted(self, examples: list[Example], end: int) -> Iterator[list[Example]]:
        """Return steps of what is accepted of twice as many candidates, by the policy as it is."""
        assert self.envelope is not None
        candidates: list[Example] = []
        size = 0
        for one in passes(examples, self.seed):
            candidates.append(one)
            size += len(one.answer)
            if size < self.subject.step / BUDGET:
                continue
            log_ratio = log_probs_of(self.policy, candidates) - torch.tensor(
                [self._old[e.id] for e in candidates], dtype=torch.float64
            )
            self.spent.scored += size
            seen = self.envelope.accept_sequences(
                log_ratio[:, None],
                seed=self.seed + (self.spent.steps << 32),
                ids=torch.tensor([e.id for e in candidates]),
            )
            step = cut(candidates, seen.mask.tolist(), end - self.spent.trained)
            candidates, size = [], 0
            if step:
                yield step
            if self.spent.trained >= end:
                return

    def _step(self, step: list[Example]) -> None:
        tokens = sum(len(one.answer) for one in step)
        left = 1.0 - self.spent.trained / self._budgets()[1]
        self.trainer.step([step], (0, self.spent.steps), self.lr * left, total=float(tokens))
        self.spent.trained += tokens
        self.spent.steps += 1


def advantages(rows: Sequence[Rollout]) -> list[float]:
    """Return each answer's reward less the mean over the answers to its prompt."""
    sums: dict[int, list[float]] = {}
    for row in rows:
        sums.setdefault(row.prompt, []).append(row.reward)
    means = {prompt: sum(of) / len(of) for prompt, of in sums.items()}
    return [row.reward - means[row.prompt] for row in rows]


def passes(examples: Sequence[Example], seed: int) -> Iterator[Example]:
    """Yield examples for ever, each pass in an order that the seed decides by their ids."""
    if not examples:
        raise NothingSelectedError("no answer was selected, so that there is nothing to train on")
    ids = torch.tensor([one.id for one in examples], dtype=torch.int64)
    turn = 0
    while True:
        order = row_uniforms_64(ids, turn, seed, Stream.ORDER).argsort(stable=True)
        for place in order.tolist():
            yield examples[place]
        turn += 1


def cut(candidates: Sequence[Example], mask: Sequence[bool], tokens: int) -> list[Example]:
    """Return those in the mask, until they have so many tokens."""
    step, size = [], 0
    for one, is_kept in zip(candidates, mask, strict=True):
        if is_kept and size < tokens:
            step.append(one)
            size += len(one.answer)
    return step


def run_method(
    method: Method, subject: Subject, task: Task, policy: Policy, start: Start, seed: int, lr: float
) -> dict[str, Any]:
    """Train a policy by a method, and return what each round came to.

    Parameters
    ----------
    method, subject, task, seed
        The run.
    policy : Policy
        The starting model; trained in place.
    start : Start
        What is known of it.
    lr : float
        The learning rate of the first step; it falls linearly to 0.

    Returns
    -------
    dict
        ``course``, what was spent and measured after each round, and ``end``, more after the last.
    """
    run = Run(method, subject, task, policy, seed, lr, start.seed)
    course = []
    for part in range(run.parts):
        run.play(part)
        if (part + 1) % method.parts == 0:
            number = (part + 1) // method.parts
            is_last = number == subject.rounds
            seen = measure(subject, task, policy, start, number, seed, is_last=is_last)
            course.append({"round": number, **vars(run.spent), **seen})
    end = course[-1]
    end["used"] = run.spent.generation + run.spent.training
    if run.spent.answers:
        end["share"] = run.spent.kept / run.spent.answers
    check_tokens(end, subject, generates=method.family != "nothing")
    return {"course": course, "end": end}


def check_tokens(end: dict[str, Any], subject: Subject, *, generates: bool) -> None:
    """Raise TrainingError unless a run used the tokens that every run has, to less than an answer.

    A method that generates nothing is to have generated nothing.
    """
    wanted = {
        "generated": subject.generated * subject.rounds if generates else 0,
        "trained": subject.trained * subject.rounds,
    }
    for name, tokens in wanted.items():
        if not tokens <= end[name] <= tokens + subject.longest:
            raise TrainingError(
                f"{name} were {end[name]} tokens and not {tokens} to {tokens + subject.longest}"
            )
