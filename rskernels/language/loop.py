"""The algorithm: in each round sample answers, score, select, train on them, evaluate.

`rskernels.language.run.fine_tune` runs it in a folder, with metrics and checkpoints.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rskernels.envelope import Envelope
from rskernels.language.choose import Scored, answer_ids, choose, same_answers
from rskernels.language.config import LanguageConfig
from rskernels.language.evaluate import scores_of
from rskernels.language.parallel import Ranks, load_state, state_of
from rskernels.language.policy import Policy
from rskernels.language.rollouts import Rollout, Rollouts
from rskernels.language.task import Task
from rskernels.language.train import Example, Step, Trainer
from rskernels.law.philox import row_uniforms_64
from rskernels.law.streams import Stream
from rskernels.rsft.errors import DataError, TrainingError
from rskernels.select import TiltedSelection


@dataclass
class Totals:
    """Sums over the rounds that are done."""

    steps: int = 0
    answers: int = 0
    generated_tokens: int = 0
    gradient_answers: int = 0
    gradient_tokens: int = 0
    seconds: float = 0.0


@dataclass
class Place:
    """Where a run is: the round, and the steps of it that are done."""

    round: int = 0
    step: int = 0
    totals: Totals = field(default_factory=Totals)


class Selected(NamedTuple):
    """The answers of a round, and which are trained on."""

    rows: list[Rollout]
    ids: torch.Tensor
    """int64, of each row."""
    selection: TiltedSelection
    numbers: dict[str, Any]
    """What the round's record says of them."""


class Loop:
    """Rounds on a policy.

    Parameters
    ----------
    policy, task, config, ranks
        Of the run.
    folder : Path
        Where answers of unfinished stages are kept.
    """

    def __init__(
        self, policy: Policy, task: Task, config: LanguageConfig, ranks: Ranks, folder: Path
    ) -> None:
        check_task(task)
        self.policy, self.task, self.config, self.ranks = policy, task, config, ranks
        self.rollouts = Rollouts(policy, task, config, ranks, folder)
        self.rollouts.check_lengths(self.tested)
        self.trainer = Trainer(policy, config, ranks)
        self.place = Place()
        self.envelope: Envelope | None = None
        if config.envelope is not None:
            self.envelope = Envelope.parse(config.envelope, groups=len(task.train))
        self._envelope_before = self._envelope_state()
        self._given: dict[str, Any] | None = None
        if config.restart:
            state = state_of(self.trainer.module, self.trainer.optimizer)
            self._given = ranks.of_first(copy.deepcopy(state) if ranks.is_first else None)

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, as tensors, numbers and containers of them."""
        return {
            **state_of(self.trainer.module, self.trainer.optimizer),
            # Of before this round, whose answers are learnt from again on resuming.
            "envelope": self._envelope_before,
            "place": asdict(self.place),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned, which every process has."""
        load_state(self.trainer.module, self.trainer.optimizer, saved)
        place = saved["place"]
        self.place = Place(place["round"], place["step"], Totals(**place["totals"]))
        if self.envelope is not None:
            self.envelope.load_state_dict(saved["envelope"])
            self._envelope_before = saved["envelope"]

    def sample(self, show: Callable[[float], None] = lambda part: None) -> Selected:
        """Make, score and select the answers of this round."""
        config, number = self.config, self.place.round
        samples = config.samples + (config.pilot or 0)
        started = time.perf_counter()
        prompts = self.prompts_of(number)
        must_exist, policy = self.place.step > 0, self.trainer.whole()
        rows = self.rollouts.make(
            policy, "train", number, prompts, samples, must_exist=must_exist, show=show
        )
        # Of a sharded model it is a copy, whose memory training needs.
        del policy
        seconds = time.perf_counter() - started
        mine = [row for row in rows if row.sample < config.samples]
        scored = scored_of(mine, number)
        others = [row for row in rows if row.sample >= config.samples]
        # An answer without a reward cannot be ranked among those that have one.
        pilot = [row for row in others if row.reward < math.inf]
        if others and not pilot:
            raise TrainingError(f"the reward gave no number for any of {len(others)} pilot answers")
        selection = self.select(scored, pilot)
        numbers = {
            **measures_of(mine, selection, config.right),
            **parts_of(self.task, mine, selection, config.right),
            "pilot_invalid": len(others) - len(pilot),
            "answers": len(rows),
            "generated_tokens": sum(len(row.tokens) for row in rows),
            "generation_seconds": seconds,
        }
        return Selected(mine, scored.ids, selection, numbers)

    def select(self, scored: Scored, others: list[Rollout]) -> TiltedSelection:
        """Decide answers by the form. M is learnt from the others before, and from these after."""
        pilot = scored_of(others, self.place.round) if others else None
        envelope, beta = self.envelope, self.config.beta
        if envelope is None or beta is None:
            return choose(self.config, scored, pilot, None)
        if pilot is not None:
            envelope.update(pilot.rewards / beta, pilot.groups)
        selection = choose(self.config, scored, pilot, envelope)
        envelope.update(scored.rewards / beta, scored.groups, accepted=selection.mask)
        return selection

    def train(self, selected: Selected, show: Callable[[int, int, Step], None]) -> None:
        """Train on what was selected, from the step that is reached.

        ``show`` is called after each step, with the place moved on.
        """
        if self.place.step == 0 and self._given is not None:
            self.trainer.optimizer = self.trainer.new_optimizer()
            load_state(self.trainer.module, self.trainer.optimizer, self._given)
        weights = selected.selection.log_weights.exp().tolist()
        kept = selected.selection.mask.tolist()
        examples = [
            Example(self.rollouts.tokens_of("train", row.prompt), row.tokens, weight, name)
            for row, weight, name, is_kept in zip(
                selected.rows, weights, selected.ids.tolist(), kept, strict=True
            )
            if is_kept
        ]

        def count(done: int, steps: int, step: Step) -> None:
            self.place.step = done
            totals = self.place.totals
            totals.steps += 1
            totals.gradient_answers += step.answers
            totals.gradient_tokens += step.tokens
            totals.seconds += step.seconds
            show(done, steps, step)

        self.trainer.run(examples, self.place.round, self.place.step, count)

    def evaluate(self, show: Callable[[float], None] = lambda part: None) -> dict[str, Any]:
        """Return how good answers to the held-out prompts are."""
        config, number = self.config, self.place.round
        places = list(range(self.tested))
        started = time.perf_counter()
        policy = self.trainer.whole()
        rows = self.rollouts.make(policy, "test", number, places, config.eval_samples, show=show)
        best = self.rollouts.make(policy, "test", number, places, 1, is_greedy=True)
        n = config.eval_samples
        each = [rows[at : at + n] for at in range(0, len(rows), n)]
        scores = scores_of(
            self.task,
            [self.task.test[place] for place in places],
            [[row.text for row in of] for of in each],
            [[row.reward >= config.right for row in of] for of in each],
            [row.reward >= config.right for row in best],
        )
        return {
            **scores,
            "test_reward": mean_of([row.reward for row in rows]),
            "evaluation_seconds": time.perf_counter() - started,
        }

    def next_round(self, selected: Selected | None) -> None:
        """Count what the round generated, and go on to the next."""
        if selected is not None:
            totals, numbers = self.place.totals, selected.numbers
            totals.answers += numbers["answers"]
            totals.generated_tokens += numbers["generated_tokens"]
            totals.seconds += numbers["generation_seconds"]
        self.place.round += 1
        self.place.step = 0
        self._envelope_before = self._envelope_state()

    def prompts_of(self, number: int) -> list[int]:
        """Return the places of the prompts of a round."""
        every, most = torch.arange(len(self.task.train)), self.config.prompts
        if most is None or most >= len(every):
            return every.tolist()
        ids = answer_ids("prompt", number, every, torch.zeros_like(every))
        u = row_uniforms_64(ids, 0, self.config.seed, Stream.ORDER)
        return sorted(u.argsort(stable=True)[:most].tolist())

    @property
    def tested(self) -> int:
        """How many held-out prompts are asked, the first of them."""
        return min(self.config.eval_prompts or len(self.task.test), len(self.task.test))

    def _envelope_state(self) -> dict[str, Any]:
        return {} if self.envelope is None else self.envelope.state_dict()


def check_task(task: Task) -> None:
    """Raise DataError if a task has no prompts, or rows without a prompt or of other columns."""
    for part in task.parts.values():
        check_task(part)
    for kind, rows in (("train", task.train), ("test", task.test)):
        if not rows:
            raise DataError(f"the task {task.name} has no prompts to {kind}")
        for at, row in enumerate(rows):
            if not isinstance(row.get("prompt"), str):
                raise DataError(f"row {at} of {kind} of the task {task.name} has no text as prompt")
            if row.keys() != rows[0].keys():
                raise DataError(
                    f"row {at} of {kind} of the task {task.name} has columns {sorted(row)}, the "
                    f"first {sorted(rows[0])}"
                )


def scored_of(rows: Sequence[Rollout], number: int) -> Scored:
    """Return answers with what selecting needs of them."""
    groups = torch.tensor([row.prompt for row in rows], dtype=torch.int64)
    samples = torch.tensor([row.sample for row in rows], dtype=torch.int64)
    return Scored(
        torch.tensor([row.reward for row in rows], dtype=torch.float64),
        groups,
        answer_ids("train", number, groups, samples),
        same_answers(groups.tolist(), [row.tokens for row in rows]),
    )


def measures_of(
    rows: Sequence[Rollout], selection: TiltedSelection, right: float
) -> dict[str, Any]:
    """Return the numbers of a round's answers, and of those that were selected."""
    tokens = sum(len(row.tokens) for row in rows)
    kept = [row for row, is_kept in zip(rows, selection.mask.tolist(), strict=True) if is_kept]
    chosen = {(row.prompt, tuple(row.tokens)) for row in kept}
    overall = selection.overall
    names = ("acceptance", "violations", "invalid", "unknown", "delta", "kl", "ess")
    if all(math.isnan(row.reward) for row in rows):
        raise TrainingError(f"the reward gave no number for any of {len(rows)} answers")
    if overall["invalid"] == len(rows):
        other = next(row.reward for row in rows if not math.isnan(row.reward))
        raise TrainingError(
            f"none of {len(rows)} answers has a reward that the form {selection.form!r} takes, got "
            f"such as {other:g}: verifier and rft take 0 and 1; parts of 1 are for another form, "
            "as bounded, quantile or threshold; no form takes infinity"
        )
    return {
        "reward": mean_of([row.reward for row in rows]),
        "right": sum(row.reward >= right for row in rows) / len(rows),
        "prompts_without_right": len({row.prompt for row in rows})
        - len({row.prompt for row in rows if row.reward >= right}),
        "accepted": len(kept),
        "accepted_reward": mean_of([row.reward for row in kept]),
        "accepted_distinct": len(chosen) / len(kept) if kept else None,
        **{name: finite(overall[name]) for name in names},
        "entropy": -sum(row.log_prob for row in rows) / tokens,
        "ended": sum(row.ended for row in rows) / len(rows),
        "tokens_an_answer": tokens / len(rows),
    }


def parts_of(
    task: Task, rows: Sequence[Rollout], selection: TiltedSelection, right: float
) -> dict[str, float]:
    """Return the shares of right and of accepted answers of each task, where several are mixed."""
    kept = selection.mask.tolist()
    numbers: dict[str, float] = {}
    for name in task.parts:
        at = [i for i, row in enumerate(rows) if task.train[row.prompt]["task"] == name]
        if at:
            numbers[f"{name}/right"] = sum(rows[i].reward >= right for i in at) / len(at)
            numbers[f"{name}/acceptance"] = sum(kept[i] for i in at) / len(at)
    return numbers


def mean_of(values: Sequence[float]) -> float | None:
    """Return the mean of the finite values; None if there are none."""
    held = [value for value in values if math.isfinite(value)]
    return sum(held) / len(held) if held else None


def finite(value: float) -> float | None:
    """Return a number as JSON takes it."""
    return value if math.isfinite(value) else None
