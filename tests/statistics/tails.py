"""Where small uniforms of dense entries lie in their step of 2**-32, told by decisions alone.

The leading word of an entry is its step; where it lies in the step is up to the trailing word.
"""

import math
from typing import NamedTuple

import torch

import rskernels

FIRST, STEP = 2.0**-12, 2.0**-32
AHEAD = 2.0**-11  # of a step: no uniform above 2**-22 lies on a threshold


class Tails(NamedTuple):
    """Entries whose uniforms are at most FIRST."""

    rows: torch.Tensor
    columns: torch.Tensor
    steps: torch.Tensor
    """int64: how many whole steps their uniforms hold."""
    is_lower: torch.Tensor
    """Whether the uniform lies in the lower half of its step."""


def log_ratio_of(steps):
    """Return the log ratio that accepts uniforms of at most so many steps."""
    return ((steps.double() + AHEAD) * STEP).log()


def tails(subject, seed, rows, columns):
    """Return the tails of a dense decision of ``rows`` rows; float64 logits, so that log u is."""
    logits = torch.zeros(columns, dtype=torch.float64).expand(rows, -1)

    def decide(log_ratio):
        # The model gives every class 1/columns.
        return subject.mask(
            logits, None, log_ratio - math.log(columns), 0.0, log_space=True, seed=seed
        )

    small = decide(torch.full((rows, columns), math.log(FIRST), dtype=torch.float64))
    at = small.nonzero(as_tuple=True)

    def is_at_most(steps):
        log_ratio = torch.full((rows, columns), -math.inf, dtype=torch.float64)
        log_ratio[at] = log_ratio_of(steps)
        return decide(log_ratio)[at]

    u = rskernels.uniforms(rows, seed=seed, columns=columns)[at]
    guess = (u / STEP - AHEAD).floor().clamp(min=0)
    is_right = is_at_most(guess + 1) & ~(is_at_most(guess) & (guess > 0))
    steps = guess if is_right.all() else _by_bisection(is_at_most, guess)
    return Tails(*at, steps.long(), is_at_most(steps + 0.5))


def _by_bisection(is_at_most, like):
    steps = torch.zeros_like(like)
    for bit in reversed(range(round(math.log2(FIRST / STEP)))):
        steps = torch.where(is_at_most(steps + (1 << bit)), steps, steps + (1 << bit))
    return steps
