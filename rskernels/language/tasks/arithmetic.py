"""Arithmetic in steps, with many right answers: from one number to another.

A prompt ``7 to 18 :`` asks for a way from 7 to 18. An answer such as ``+5 =12 +2 =14 +4 =18`` adds
or subtracts 1 to ``LARGEST`` in each of at most ``MOST_STEPS`` steps, and writes each total out. It
is right if no total is wrong or outside of 0 to ``HIGHEST``, and the last is the number asked for.
Most prompts have hundreds of right answers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from rskernels.language.task import Task
from rskernels.language.tasks.prompts import COLON, TO, ends_of, prompt_of

HIGHEST, LARGEST, MOST_STEPS = 20, 5, 5
MOVES = tuple(f"{sign}{size}" for sign in "+-" for size in range(1, LARGEST + 1))
TOTALS = tuple(f"={total}" for total in range(HIGHEST + 1))
WORDS = (*map(str, range(HIGHEST + 1)), TO, COLON, *MOVES, *TOTALS)
"""All words that prompts and answers have."""


def make_task(seed: int, *, train: int = 320, test: int = 100) -> Task:
    """Return prompts and their verifier.

    Parameters
    ----------
    seed : int
        Decides which of the 420 prompts are held out, and which are trained on.
    train, test : int
        How many prompts of each kind. None is of both.

    Returns
    -------
    Task
        Rows with ``prompt``; a reward of 1 or 0. The key of an answer is its steps in any order.

    Raises
    ------
    ValueError
        If there are fewer prompts than are asked for.
    """
    problems = [(a, b) for a in range(HIGHEST + 1) for b in range(HIGHEST + 1) if a != b]
    if train < 1 or test < 1 or train + test > len(problems):
        raise ValueError(
            f"train and test must be at least 1 and together at most {len(problems)}, got "
            f"{train} and {test}"
        )
    random.Random(f"arithmetic {seed}").shuffle(problems)
    rows: list[dict[str, Any]] = [{"prompt": prompt_of(*each)} for each in problems]
    return Task("arithmetic", rows[test : test + train], rows[:test], reward, steps_of)


def demonstrations(
    prompts: Sequence[str], count: int, seed: int, *, slips: float = 0.25
) -> list[tuple[str, str]]:
    """Return prompts with answers of somebody who miscalculates.

    Parameters
    ----------
    prompts : sequence of str
        From which each is drawn.
    count, seed : int
        How many, and what decides them.
    slips : float
        The probability of each total to be wrong by 1 or 2. What follows goes on from there by the
        steps that were planned, so that the last total is mostly wrong too.

    Returns
    -------
    list of (str, str)
        Prompt and answer.
    """
    generator = random.Random(f"demonstrations {seed}")
    pairs = []
    for _ in range(count):
        prompt = generator.choice(prompts)
        at, goal = ends_of(prompt)
        words = []
        for move in _plan(at, goal, generator):
            at += move
            if generator.random() < slips:
                at += generator.choice((-2, -1, 1, 2))
            at = min(max(at, 0), HIGHEST)
            words.append(f"{move:+d} ={at}")
        pairs.append((prompt, " ".join(words)))
    return pairs


def reward(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """Return 1 of each right answer and 0 of each other, as TRL's rewards do."""
    return [float(is_right(*pair)) for pair in zip(prompts, completions, strict=True)]


def is_right(prompt: str, completion: str) -> bool:
    """Return whether an answer is right."""
    at, goal = ends_of(prompt)
    words = completion.split()
    moves, totals = words[::2], words[1::2]
    if len(moves) != len(totals) or not 1 <= len(moves) <= MOST_STEPS:
        return False
    for move, total in zip(moves, totals, strict=True):
        if move not in MOVES or total not in TOTALS:
            return False
        at += int(move)
        if total != f"={at}":
            return False
    return at == goal


def steps_of(completion: str) -> str:
    """Return an answer's steps, sorted: the same steps in another order are the same answer."""
    return " ".join(sorted(completion.split()[::2]))


def _plan(at: int, goal: int, generator: random.Random) -> list[int]:
    """Draw a way of at most ``MOST_STEPS`` steps."""
    least = -(-abs(goal - at) // LARGEST)
    moves: list[int] = []
    for left in reversed(range(generator.randint(least, min(least + 1, MOST_STEPS)))):
        possible = [
            move
            for size in range(1, LARGEST + 1)
            for move in (size, -size)
            if 0 <= at + move <= HIGHEST
            # One step cannot stand still.
            and (abs(goal - at - move) <= LARGEST * left and (left != 1 or at + move != goal))
        ]
        moves.append(generator.choice(possible))
        at += moves[-1]
    return moves
