"""Walks on a graph of 21 nodes, few enough for their law to be known by enumeration.

Nodes 0 to 20 lie on a ring; node i also leads to 8i mod 21. A prompt ``3 to 17 :`` asks for a walk
of at most ``MOST_STEPS`` steps that ends at 17 when it first comes there, and an answer such as
``4 11 10 17`` names the nodes after the first. The reward is 1 if it does, or by what the nodes on
the way cost.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rskernels.language.task import Reward, Task
from rskernels.language.tasks.prompts import COLON, TO, ends_of, prompt_of

NODES, MOST_STEPS = 21, 6
WORDS = (*map(str, range(NODES)), TO, COLON)
"""All words that prompts and answers have."""

NEIGHBOURS = tuple(
    tuple(sorted({(node - 1) % NODES, (node + 1) % NODES, 8 * node % NODES} - {node}))
    for node in range(NODES)
)
"""Of each node, two or three: 8 * 8 is 1 modulo 21, so that edges lead both ways."""

TOLLS = tuple(7 * node % 10 / 10 for node in range(NODES))
"""What a node costs, 0 to 0.9."""


@dataclass(frozen=True)
class Walks:
    """All walks that a prompt may be answered with, and their law.

    Attributes
    ----------
    start, goal : int
        Of the prompt.
    nodes : Tensor
        int64 ``[W, MOST_STEPS]``: the nodes after the first, -1 after the end.
    prob : Tensor
        float64 ``[W]``: of the walk that goes to each neighbour alike until it is at the goal or
        has had ``MOST_STEPS`` steps. They sum to 1.
    """

    start: int
    goal: int
    nodes: Tensor
    prob: Tensor

    @property
    def answers(self) -> list[str]:
        """The walks as answers."""
        return [" ".join(str(n) for n in walk if n >= 0) for walk in self.nodes.tolist()]

    def places(self, drawn: Tensor) -> Tensor:
        """Return which walk each of some is, int64 ``[N]``; they are ``[N, MOST_STEPS]``."""
        digits = (NODES + 1) ** torch.arange(MOST_STEPS)
        codes = ((self.nodes + 1) * digits).sum(-1).sort()
        wanted = ((drawn + 1) * digits).sum(-1)
        at = torch.searchsorted(codes.values, wanted).clamp(max=len(self.prob) - 1)
        if not torch.equal(codes.values[at], wanted):
            raise ValueError(f"drawn must be walks from {self.start} to {self.goal}")
        return codes.indices[at]


def all_walks(start: int, goal: int) -> Walks:
    """Return the walks that a prompt may be answered with, and their law."""
    _check_nodes(start, goal)
    open_walks: list[tuple[list[int], float]] = [([], 1.0)]
    ended: list[tuple[list[int], float]] = []
    for step in range(MOST_STEPS):
        longer = []
        for walk, prob in open_walks:
            after = NEIGHBOURS[walk[-1] if walk else start]
            longer += [([*walk, node], prob / len(after)) for node in after]
        is_last = step + 1 == MOST_STEPS
        ended += [pair for pair in longer if is_last or pair[0][-1] == goal]
        open_walks = [pair for pair in longer if pair[0][-1] != goal]
    nodes = torch.tensor([walk + [-1] * (MOST_STEPS - len(walk)) for walk, _ in ended])
    return Walks(start, goal, nodes, torch.tensor([p for _, p in ended], dtype=torch.float64))


def draw_walks(start: int, goal: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw walks by going to each neighbour alike, a step of all at a time.

    Parameters
    ----------
    start, goal : int
        Of the prompt.
    count : int
        N.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor
        int64 ``[N, MOST_STEPS]``, -1 after the end.
    """
    _check_nodes(start, goal)
    most = max(map(len, NEIGHBOURS))
    table = torch.tensor([[*after, *[-1] * (most - len(after))] for after in NEIGHBOURS])
    degrees = torch.tensor([len(after) for after in NEIGHBOURS])
    walks = torch.full((count, MOST_STEPS), -1)
    at = torch.full((count,), start)
    runs = torch.ones(count, dtype=torch.bool)
    for step in range(MOST_STEPS):
        u = torch.rand(count, generator=generator, dtype=torch.float64)
        choice = (u * degrees[at]).long()
        at = torch.where(runs, table[at, choice], at)
        walks[:, step] = torch.where(runs, at, -1)
        runs &= at != goal
    return walks


def make_task(seed: int, *, train: int = 340, test: int = 80, reward: str = "reach") -> Task:
    """Return prompts and what their answers are worth.

    Parameters
    ----------
    seed : int
        Decides which of the 420 prompts are held out, and which are trained on.
    train, test : int
        How many prompts of each kind. None is of both.
    reward : {"reach", "toll"}
        ``reach``: 1 of a walk that ends at its goal, else 0. ``toll``: 1 less the mean of
        ``TOLLS`` over its nodes, if it ends there, and else 0; so at most 1.

    Returns
    -------
    Task
        Rows with ``prompt``. The key of an answer is the answer: each walk is another.

    Raises
    ------
    ValueError
        If there are fewer prompts than are asked for, or the reward is not known.
    """
    problems = [(a, b) for a in range(NODES) for b in range(NODES) if a != b]
    if train < 1 or test < 1 or train + test > len(problems):
        raise ValueError(
            f"train and test must be at least 1 and together at most {len(problems)}, got "
            f"{train} and {test}"
        )
    if reward not in REWARDS:
        raise ValueError(f"reward must be one of {', '.join(REWARDS)}, got {reward!r}")
    random.Random(f"graph {seed}").shuffle(problems)
    rows: list[dict[str, Any]] = [{"prompt": prompt_of(*each)} for each in problems]
    return Task("graph", rows[test : test + train], rows[:test], REWARDS[reward])


def demonstrations(prompts: Sequence[str], count: int, seed: int) -> list[tuple[str, str]]:
    """Return prompts with random walks, ``count`` of them, as ``seed`` decides."""
    generator = random.Random(f"demonstrations of graph {seed}")
    pairs = []
    for _ in range(count):
        prompt = generator.choice(prompts)
        at, goal = problem_of(prompt)
        walk: list[int] = []
        while len(walk) < MOST_STEPS and at != goal:
            at = generator.choice(NEIGHBOURS[at])
            walk.append(at)
        pairs.append((prompt, " ".join(map(str, walk))))
    return pairs


def reach(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """Return 1 of each answer that is a walk to its goal, and 0 of each other."""
    pairs = zip(prompts, completions, strict=True)
    return [float(_walk_to_goal(prompt, answer) is not None) for prompt, answer in pairs]


def toll(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """Return 1 less the mean toll of each answer that is a walk to its goal, 0 of each other."""
    worth = []
    for prompt, answer in zip(prompts, completions, strict=True):
        walk = _walk_to_goal(prompt, answer)
        worth.append(1.0 - sum(TOLLS[n] for n in walk) / len(walk) if walk else 0.0)
    return worth


REWARDS: dict[str, Reward] = {"reach": reach, "toll": toll}


def problem_of(prompt: str) -> tuple[int, int]:
    """Return the start and the goal of a prompt, two nodes."""
    start, goal = ends_of(prompt)
    _check_nodes(start, goal)
    return start, goal


def _walk_to_goal(prompt: str, completion: str) -> list[int] | None:
    at, goal = problem_of(prompt)
    words = completion.split()
    if not 1 <= len(words) <= MOST_STEPS or not all(word.isdecimal() for word in words):
        return None
    walk = [int(word) for word in words]
    for node in walk:
        if at == goal or node not in NEIGHBOURS[at]:
            return None
        at = node
    return walk if at == goal else None


def _check_nodes(start: int, goal: int) -> None:
    if not (0 <= start < NODES and 0 <= goal < NODES) or start == goal:
        raise ValueError(
            f"start and goal must be two of the nodes 0 to {NODES - 1}, got {start} and {goal}"
        )
