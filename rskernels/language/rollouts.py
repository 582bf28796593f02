"""Answers with rewards, made block by block and kept on the disk, so that none is made twice.

A block is some prompts and sample numbers, cut by the configuration alone. Processes take blocks in
turns. Each generates and scores its block, and appends it as a line to a file of its own. A run
that was killed reads the lines that are whole, and makes what is missing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from rskernels.language.choose import answer_ids
from rskernels.language.config import LanguageConfig
from rskernels.language.generate import generate
from rskernels.language.parallel import Ranks
from rskernels.language.policy import Policy
from rskernels.language.task import Row, Task, rewards_of
from rskernels.rsft.errors import CheckpointError, DataError

PART = ".part.jsonl"
NAMED = 20  # prompts that are too long


class Rollout(NamedTuple):
    """An answer and what it is worth."""

    prompt: int
    """The prompt's place in the task."""
    sample: int
    tokens: list[int]
    """With the token that ended it, if one did."""
    ended: bool
    log_prob: float
    """Sum over its tokens, by the law that they were drawn from."""
    text: str
    reward: float
    """NaN where the reward function gave none."""


class Block(NamedTuple):
    """Answers that are generated together: those of some sample numbers to some prompts."""

    number: int
    prompts: list[int]
    samples: range


def blocks_of(
    prompts: Sequence[int], lengths: Sequence[int], samples: int, most: int
) -> list[Block]:
    """Cut answers into blocks of at most ``most``; prompts of similar length come together.

    Parameters
    ----------
    prompts : sequence of int
        Places in the task.
    lengths : sequence of int
        Tokens of each of these prompts.
    samples : int
        Answers to each.
    most : int
        At least 1.
    """
    order = sorted(range(len(prompts)), key=lambda at: (lengths[at], prompts[at]))
    together = max(1, most // samples)
    width = min(samples, most)
    blocks: list[Block] = []
    for start in range(0, len(order), together):
        chosen = [prompts[at] for at in order[start : start + together]]
        for first in range(0, samples, width):
            numbers = range(first, min(first + width, samples))
            blocks.append(Block(len(blocks), chosen, numbers))
    return blocks


class Rollouts:
    """Makes answers of a policy to the prompts of a task, and scores them.

    Parameters
    ----------
    policy, task, config, ranks
        Of the run; the policy is asked for tokens and texts alone.
    folder : Path
        Where the blocks of an unfinished stage are kept. Every process must see it for a run to go
        on from what others had made.
    """

    def __init__(
        self, policy: Policy, task: Task, config: LanguageConfig, ranks: Ranks, folder: Path
    ) -> None:
        self.policy, self.task, self.config, self.ranks = policy, task, config, ranks
        self.folder = folder
        self._tokens: dict[tuple[str, int], list[int]] = {}

    def make(
        self,
        policy: Policy,
        kind: str,
        number: int,
        prompts: Sequence[int],
        samples: int,
        *,
        is_greedy: bool = False,
        must_exist: bool = False,
        show: Callable[[float], None] = lambda part: None,
    ) -> list[Rollout]:
        """Return answers of all processes, by prompt and sample number.

        Parameters
        ----------
        policy : Policy
            The model that answers, whole in this process.
        kind : {"train", "test"}
            Which prompts of the task.
        number : int
            The round.
        prompts : sequence of int
            Their places.
        samples : int
            Answers to each.
        is_greedy : bool
            Whether the one answer is the most likely token at every place.
        must_exist : bool
            Whether all have been made: the model has since been trained on them.
        show : callable
            Called with the part of this process's blocks that is done.

        Raises
        ------
        CheckpointError
            If some that must exist are missing.
        """
        lengths = [len(self.tokens_of(kind, place)) for place in prompts]
        blocks = blocks_of(prompts, lengths, samples, self.config.rows_at_once)
        stem = f"{number:04d}-{kind}{'-greedy' * is_greedy}"
        done = self._saved(stem)
        missing = [block for block in blocks if block.number not in done]
        if missing and must_exist:
            raise CheckpointError(
                f"{self.folder} lacks {len(missing)} of {len(blocks)} blocks of answers that the "
                "model is being trained on; it cannot make them again"
            )
        mine = missing[self.ranks.rank :: self.ranks.count]
        made = []
        if missing:
            path = self.folder / f"{stem}.{self.ranks.rank}{PART}"
            with path.open("a", encoding="utf-8") as file:
                for at, block in enumerate(mine):
                    rows = self._block(policy, kind, number, block, is_greedy)
                    _append(file, block.number, rows)
                    made += rows
                    show((at + 1) / len(mine))
        rows = [row for part in done.values() for row in part] + self.ranks.gathered(made)
        return sorted(rows, key=lambda row: (row.prompt, row.sample))

    def tokens_of(self, kind: str, place: int) -> list[int]:
        """Return the tokens of a prompt."""
        key = kind, place
        if key not in self._tokens:
            self._tokens[key] = self.policy.encode(
                self.rows_of(kind)[place]["prompt"], self.config.chat
            )
        return self._tokens[key]

    def check_lengths(self, tested: int) -> None:
        """Raise DataError if a prompt to train, or one of the first to test, cannot be asked."""
        room = getattr(self.policy.causal.config, "max_position_embeddings", None) or math.inf
        places = {"train": len(self.task.train), "test": tested}
        long = [
            (kind, place, tokens)
            for kind, count in places.items()
            for place in range(count)
            if (tokens := len(self.tokens_of(kind, place))) + self.config.max_new_tokens > room
        ]
        if long:
            named = [f"row {place} to {kind} has {tokens}" for kind, place, tokens in long[:NAMED]]
            left = len(long) - len(named)
            raise DataError(
                f"{len(long)} of {sum(places.values())} prompts are too long: "
                f"max_new_tokens={self.config.max_new_tokens} with their tokens are more than the "
                f"{room} places that the model has; {', '.join(named)}"
                + (f", and {left} more" if left else "")
            )

    def rows_of(self, kind: str) -> list[Row]:
        """Return the prompts of a kind."""
        return self.task.train if kind == "train" else self.task.test

    def forget(self, upto: int) -> None:
        """Delete the blocks of rounds up to one, which are done with."""
        self.ranks.wait()
        if self.ranks.is_first and self.folder.is_dir():
            for path in self.folder.glob(f"*{PART}"):
                if int(path.name[:4]) <= upto:
                    path.unlink()

    def _block(
        self, policy: Policy, kind: str, number: int, block: Block, is_greedy: bool
    ) -> list[Rollout]:
        config, places = self.config, block.prompts
        ids = answer_ids(
            kind, number, torch.tensor(places)[:, None], torch.tensor(list(block.samples))
        )
        answers = generate(
            policy,
            [self.tokens_of(kind, place) for place in places],
            None if is_greedy else ids,
            seed=config.seed,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
        )
        texts = [self.policy.decode(a.tokens[: len(a.tokens) - a.ended]) for a in answers]
        named = [(place, sample) for place in places for sample in block.samples]
        rows = [self.rows_of(kind)[place] for place, _ in named]
        rewards = rewards_of(self.task, rows, [row["prompt"] for row in rows], texts)
        return [
            Rollout(*name, answer.tokens, answer.ended, answer.log_prob, text, reward)
            for name, answer, text, reward in zip(named, answers, texts, rewards, strict=True)
        ]

    def _saved(self, stem: str) -> dict[int, list[Rollout]]:
        """Return the blocks on the disk, which the first rank joins to one file."""
        done: dict[int, list[Rollout]] = {}
        if self.ranks.is_first:
            self.folder.mkdir(parents=True, exist_ok=True)
            paths = sorted(self.folder.glob(f"{stem}.*{PART}"))
            for number, rows in (block for path in paths for block in _read(path)):
                done[number] = rows
            if paths:
                whole = self.folder / f"{stem}.tmp"
                with whole.open("w", encoding="utf-8") as file:
                    for number, rows in done.items():
                        _append(file, number, rows)
                whole.replace(self.folder / f"{stem}.0{PART}")
                for path in paths:
                    if path.name != f"{stem}.0{PART}":
                        path.unlink()
        return self.ranks.of_first(done)


def _append(file: IO[str], number: int, rows: list[Rollout]) -> None:
    """Write a block as one line, and bring it to the system."""
    listed = [row._replace(reward=_json(row.reward)) for row in rows]
    file.write(json.dumps({"block": number, "rows": listed}) + "\n")
    file.flush()


def _read(path: Path) -> Iterator[tuple[int, list[Rollout]]]:
    """Return the blocks of a file, but for a line that a killed process left unfinished."""
    for line in path.read_bytes().split(b"\n"):
        try:
            block: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        rows = (Rollout(*row) for row in block["rows"])
        yield (
            block["block"],
            [row._replace(reward=math.nan) if row.reward is None else _number(row) for row in rows],
        )


def _json(reward: float) -> Any:
    """Return a reward as JSON takes it: infinities as texts, None for NaN."""
    if math.isnan(reward):
        return None
    return reward if math.isfinite(reward) else str(reward)


def _number(row: Rollout) -> Rollout:
    return row._replace(reward=float(row.reward))
