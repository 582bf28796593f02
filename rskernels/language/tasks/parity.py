r"""Parity with short and long answers, whose shares in rounds of STaR are known in closed form.

A prompt ``0110=`` gives bits. A long answer writes the parity of the first, the first two, and so
on to all bits, ``0100``; a short one only the last, ``0``. The verifier reads the last bit alone.

Let p be the share of long answers that a policy gives, and a long one be right with probability
c_L, a short one with c_S. Keeping the right answers (RFT, STaR: a verifier's tilt with beta = 0)
leaves, by Bayes,

    p' = p c_L / (p c_L + (1 - p) c_S).

Who can add bits one by one but not see their parity at once has c_L = 1 and c_S = 1/2, so

    p' = 2p / (1 + p),

by which the odds p/(1 - p) double in a round: after t rounds p_t = 2^t p/(1 + (2^t - 1) p). The
threshold 1/3 is where a long answer becomes the most likely one: the first bit of a long answer is
the first bit of the prompt, and a short answer shows the same bit half of the time; given it, the
next token goes on rather than ends if p > (1 - p)/2, that is p > 1/3. That is 2p/(1 + p) > 1/2.
The model is that of Tsilivis et al., "How reinforcement learning after next-token prediction
facilitates learning", arXiv 2510.11495, where long answers have this share in the data.

What is assumed: c_L and c_S do not change, and what a round trains gives the shares of what it
was trained on. A table does so. A transformer does as far as its long answers are right, no short
answer can be learnt by heart, and its likelihood is at its maximum, where the mean probability of a
long answer is their share.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from rskernels.language.task import Task

BITS = 12
EQUALS = "="
CHARACTERS = "01" + EQUALS
"""All characters that prompts and answers have."""

SIZES = {"bits": 14, "train": 12_000, "test": 1000}
SETTINGS: dict[str, Any] = {
    "form": "verifier", "beta": 0.0, "prompts": 2000, "samples": 4, "max_new_tokens": 15,
    "rows_at_once": 4096, "mean": "sequences", "clip": 1e9, "epochs": 3, "batch_size": 64,
    "micro_batch": 64, "lr": 1e-3, "schedule": "linear", "rounds": 4,
}  # fmt: skip
"""Of a task of these sizes: options of `rskernels.language.fine_tune` that keep to the closed form.

Mean over sequences: with one over tokens a step with more long answers, which have more tokens,
counts each of them less. No clipping, and a rate that falls to 0, so that no few steps decide more
than the others. Prompts anew in each round: a short answer that is trained on tells the parity.
"""


def make_task(seed: int, *, train: int = 2000, test: int = 500, bits: int = BITS) -> Task:
    """Return prompts of so many bits and their verifier; no prompt comes twice.

    Parameters
    ----------
    seed : int
        Decides the prompts.
    train, test : int
        How many of each kind.
    bits : int
        At least 2.

    Returns
    -------
    Task
        Rows with ``prompt``; a reward of 1 or 0. The key of an answer is whether it is long, and
        ``mean_long`` is measured, their share.

    Raises
    ------
    ValueError
        If there are fewer prompts than are asked for.
    """
    if bits < 2 or train < 1 or test < 1 or train + test > 1 << bits:
        raise ValueError(
            f"bits must be at least 2, and train and test at least 1 and together at most 2^bits, "
            f"got bits={bits}, train={train}, test={test}"
        )
    drawn = random.Random(f"parity {seed}").sample(range(1 << bits), train + test)
    rows = [{"prompt": f"{number:0{bits}b}{EQUALS}"} for number in drawn]
    return Task("parity", rows[test:], rows[:test], reward, kind_of, {"long": is_long})


def demonstrations(
    prompts: Sequence[str], count: int, seed: int, *, long: float = 0.1
) -> list[tuple[str, str]]:
    """Return prompts with right answers, long ones with probability ``long``.

    Parameters
    ----------
    prompts : sequence of str
        In whose length fresh ones are drawn: those given are left out.
    count, seed : int
        How many, and what decides them.
    long : float
        p.

    Returns
    -------
    list of (str, str)
        Prompt and answer.
    """
    generator = random.Random(f"demonstrations of parity {seed}")
    bits, left_out = len(prompts[0]) - 1, set(prompts)
    pairs: list[tuple[str, str]] = []
    while len(pairs) < count:
        prompt = f"{generator.getrandbits(bits):0{bits}b}{EQUALS}"
        if prompt not in left_out:
            answer = long_answer(prompt)
            pairs.append((prompt, answer if generator.random() < long else answer[-1]))
    return pairs


def reward(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """Return 1 of each answer whose last bit is the parity, and 0 of each other."""
    return [
        float(bool(answer) and set(answer) <= {"0", "1"} and answer[-1] == long_answer(prompt)[-1])
        for prompt, answer in zip(prompts, completions, strict=True)
    ]


def long_answer(prompt: str) -> str:
    """Return the parities of the first bits of a prompt, from one bit to all."""
    if prompt[-1:] != EQUALS or not set(prompt[:-1]) <= {"0", "1"}:
        raise ValueError(f"a prompt must be bits and then {EQUALS!r}, got {prompt!r}")
    parity, answer = 0, ""
    for bit in prompt[:-1]:
        parity ^= int(bit)
        answer += str(parity)
    return answer


def is_long(completion: str) -> bool:
    """Return whether an answer is long."""
    return len(completion.strip()) > 1


def kind_of(completion: str) -> str:
    """Return ``"long"`` or ``"short"``: right answers of either kind differ in nothing else."""
    return "long" if is_long(completion) else "short"


def share_after(share: float, rounds: int = 1) -> float:
    """Return the share of long answers after some rounds, ``2^t p/(1 + (2^t - 1) p)``.

    Parameters
    ----------
    share : float
        p, in [0, 1].
    rounds : int
        t.
    """
    if not 0.0 <= share <= 1.0 or rounds < 0:
        raise ValueError(f"share must be in [0, 1] and rounds at least 0, got {share}, {rounds}")
    factor = 2.0**rounds
    return factor * share / (1.0 + (factor - 1.0) * share)


def errors_after(share: float, kept: Sequence[int], *, answers: int | None = None) -> list[float]:
    r"""Return the standard error of the share after each round, by sampling alone.

    A round trains on n right answers, of which the long ones are a binomial share; its error goes
    through the next rounds by the derivative of the map, 2/(1 + p)^2:
    V_t = (2/(1 + p_{t-1})^2)^2 V_{t-1} + p_t (1 - p_t)/n_t, with V_0 = 0. Where shares are
    estimated from m answers each, the first one too, V_0 = p_0 (1 - p_0)/m, and p_t (1 - p_t)/m
    comes to each.

    Parameters
    ----------
    share : float
        p before the first round.
    kept : sequence of int
        n_t, the answers that each round was trained on.
    answers : int, optional
        m. None: the shares are known, not estimated.

    Returns
    -------
    list of float
        The root of the variance, a round each.
    """
    noise = 0.0 if answers is None else 1.0 / answers
    errors, variance = [], share * (1.0 - share) * noise
    for number in kept:
        slope = 2.0 / (1.0 + share) ** 2
        share = share_after(share)
        variance = slope**2 * variance + share * (1.0 - share) / number
        errors.append((variance + share * (1.0 - share) * noise) ** 0.5)
    return errors
