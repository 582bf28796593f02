"""T2: a probability far below what 24 or 32 bits resolve is honoured."""

import math

import pytest
import torch

import rskernels

from ..forms import FORMS, accepts
from ..intervals import assert_inside, binomial
from ..tails import AHEAD, FIRST, STEP, tails

TINY = 2.0**-26


def check_tiny_rate(subject, seed, draws=1 << 31):
    """Sensitive to the resolution of u: 24-bit uniforms accept 128 of 2**31, or none."""
    accepted = accepts(FORMS["dense"], subject, draws, TINY, seed=seed)
    assert_inside("T2", accepted, binomial(draws, TINY))


def check_resolution(subject, seed, requested=26):
    """Of the uniforms at most 2**-12, half lie in the lower half of a step of 2**-32.

    Uniforms of 24 or 32 bits all lie at one place of their step. Each is found by decisions of its
    row alone.
    """
    lower = 0
    for row in _rows_of_small_uniforms(subject, seed, requested):

        def is_at_most(steps, row=row):
            log_ratio = torch.tensor([math.log((steps + AHEAD) * STEP)], dtype=torch.float64)
            return subject.bernoulli(log_ratio, seed=seed, row_offset=row).item()

        guess = rskernels.uniforms((), seed=seed, row_offset=row).item() / STEP - AHEAD
        lower += is_at_most(_step_of(is_at_most, max(0, math.floor(guess))) + 0.5)
    assert_inside("T2", lower, binomial(requested, 1 / 2))


def check_resolution_of_entries(subject, seed, rows=1 << 6):
    """As ``check_resolution``, of the entries of a dense decision, 64 or so of them."""
    is_lower = tails(subject, seed, rows, 1 << 12).is_lower
    assert len(is_lower) > rows // 4, f"T2: {len(is_lower)} uniforms are at most 2**-12"
    assert_inside("T2 entries", is_lower.sum(), binomial(len(is_lower), 1 / 2))


def _step_of(is_at_most, guess):
    """Return the step that a uniform of at most FIRST lies in, by bisection if not the guess."""
    if is_at_most(guess + 1) and (guess == 0 or not is_at_most(guess)):
        return guess
    step = 0
    for bit in reversed(range(round(math.log2(FIRST / STEP)))):
        step += 0 if is_at_most(step + (1 << bit)) else 1 << bit
    return step


def _rows_of_small_uniforms(subject, seed, requested):
    rows = []
    log_ratio = torch.tensor(math.log(FIRST), dtype=torch.float64).expand(1 << 16)
    for start in range(0, 1 << 24, len(log_ratio)):
        mask = subject.bernoulli(log_ratio, seed=seed, row_offset=start)
        rows += (start + mask.nonzero().flatten()).tolist()
        if len(rows) >= requested:
            return rows[:requested]
    raise AssertionError(f"T2: {len(rows)} of 2**24 uniforms are at most 2**-12")


def test_t2_tiny_rate(subject, kind, seed):
    if kind in ("reference", "interpreted"):
        pytest.skip("minutes to hours long; the resolution is tested below")
    check_tiny_rate(subject, seed)


def test_t2_resolution(subject, seed):
    check_resolution(subject, seed)


def test_t2_resolution_of_entries(subject, size, seed):
    check_resolution_of_entries(subject, seed, size(1 << 6, reference=1 << 6, interpreted=1 << 4))
