"""Arithmetic with several right answers: reach a number from others, by plus and minus.

A prompt ``3 7 12 9 make 10 :`` gives some numbers and a target. An answer starts at one of them and
adds or subtracts others, each total written out: ``7 + 12 = 19 - 9 = 10``. It is right if it uses
at least two of the numbers, each at most once, no total is wrong, negative or above ``HIGHEST``,
and the last is the target. Most prompts have several right answers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rskernels.language.task import Task

HIGHEST = 60
MAKE, ENDS = "make", ":"
WORDS = (*(str(i) for i in range(HIGHEST + 1)), "+", "-", "=", MAKE, ENDS)
"""All words that prompts and answers have."""


def make_task(seed: int, *, train: int = 2000, test: int = 200, given: int = 4, high: int = 12) -> Task:
    """Return prompts of ``given`` numbers from 1 to ``high``, and their verifier.

    Parameters
    ----------
    seed : int
        Decides the prompts. Those held out are in no other order among those to train on.
    train, test : int
        How many prompts.
    given, high : int
        How many numbers a prompt gives, and the largest.

    Returns
    -------
    Task
        Rows with ``prompt``. The key of an answer is its terms in any order.
    """
    generator = random.Random(f"arithmetic {seed}")
    rows: list[dict[str, Any]] = []
    held_out: set[tuple[int, ...]] = set()
    while len(rows) < test + train:
        numbers, target, _ = _problem(generator, given, high)
        problem = (*sorted(numbers), target)
        if len(rows) < test:
            if problem in held_out:
                continue
            held_out.add(problem)
        elif problem in held_out:
            continue
        rows.append({"prompt": prompt_of(numbers, target)})
    return Task("arithmetic", rows[test:], rows[:test], reward, terms_of)


def demonstrations(
    count: int, seed: int, *, noise: float = 0.6, given: int = 4, high: int = 12, without: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Return prompts with answers, of which a part reach another number than they should.

    Parameters
    ----------
    count, seed : int
        How many, and what decides them.
    noise : float
        The probability that a demonstration is of another target.
    given, high : int
        As of ``make_task``.
    without : sequence of str
        Prompts that are left out, in any order of their numbers: those held out.
    """
    generator = random.Random(f"demonstrations of arithmetic {seed}")
    left_out = {_problem_of(prompt) for prompt in without}
    pairs = []
    while len(pairs) < count:
        numbers, target, chains = _problem(generator, given, high)
        if (*sorted(numbers), target) in left_out:
            continue
        reached = target
        if generator.random() < noise:
            reached = generator.choice([total for total in chains if total != target])
        pairs.append((prompt_of(numbers, target), generator.choice(chains[reached])))
    return pairs


def reward(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """Return 1 of each right answer and 0 of each wrong one."""
    return [float(is_right(*pair)) for pair in zip(prompts, completions, strict=True)]


def is_right(prompt: str, completion: str) -> bool:
    """Return whether an answer is right."""
    *numbers, target = _problem_of(prompt)
    words = completion.split()
    # number, then (sign, number, =, total) at least once.
    if len(words) < 5 or len(words) % 4 != 1 or not all(w.isdecimal() for w in words[::2]):
        return False
    left, total = Counter(numbers), int(words[0])
    left[total] -= 1
    for sign, number, equals, said in zip(*(words[i::4] for i in range(1, 5)), strict=True):
        if sign not in ("+", "-") or equals != "=":
            return False
        left[int(number)] -= 1
        total += int(number) if sign == "+" else -int(number)
        if total != int(said) or not 0 <= total <= HIGHEST:
            return False
    return min(left.values()) >= 0 and total == target


def terms_of(completion: str) -> str:
    """Return an answer's terms with their signs, sorted: the same sum in another order is the same."""
    words = completion.split()
    terms = ["+" + number for number in words[:1]]
    terms += [sign + number for sign, number in zip(words[1::4], words[2::4], strict=False)]
    return " ".join(sorted(terms))


def prompt_of(numbers: Sequence[int], target: int) -> str:
    """Return the prompt of a problem."""
    return " ".join([*map(str, numbers), MAKE, str(target), ENDS])


def _problem_of(prompt: str) -> tuple[int, ...]:
    """Return a prompt's numbers, sorted, and its target."""
    words = prompt.split()
    if len(words) < 5 or words[-1] != ENDS or words[-3] != MAKE:
        raise ValueError(f"a prompt must be like {prompt_of([3, 7], 10)!r}, got {prompt!r}")
    return (*sorted(map(int, words[:-3])), int(words[-2]))


def _problem(generator: random.Random, given: int, high: int) -> tuple[list[int], int, dict[int, list[str]]]:
    """Draw numbers and a target, and return them with the answers that reach each total."""
    numbers = sorted(generator.randint(1, high) for _ in range(given))
    chains: dict[int, list[str]] = {}
    for place, number in enumerate(numbers):
        _extend(str(number), number, numbers[:place] + numbers[place + 1 :], chains)
    return numbers, generator.choice(sorted(chains)), chains


def _extend(chain: str, total: int, left: list[int], chains: dict[int, list[str]]) -> None:
    for place, number in enumerate(left):
        for sign, reached in (("+", total + number), ("-", total - number)):
            if 0 <= reached <= HIGHEST:
                longer = f"{chain} {sign} {number} = {reached}"
                chains.setdefault(reached, []).append(longer)
                _extend(longer, reached, left[:place] + left[place + 1 :], chains)
