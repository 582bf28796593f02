"""The ends of the uniform law, at rows found to hold them: u is inside (0, 1], and r >= u accepts.

A statistic would need 2**64 draws to meet the lower end.
"""

import math

import pytest
import torch

import rskernels
from rskernels.law.philox import philox4x32

# Seed 0. The first was found by search, the second by inverting Philox: its words w0 and w1 are 0.
ROW_OF_ONE = 38471471
ROW_OF_SMALLEST, STREAM_OF_SMALLEST = 3456565718003457017, 2269590557
SMALLEST = 2.0**-65


def check_upper_end(subject, seed=None, form="bernoulli"):
    """u = 1 accepts r = 1, and rejects what is less."""
    law = {"seed": 0, "row_offset": ROW_OF_ONE}
    for log_ratio in (0.0, -1e-14):
        ratio = torch.tensor([log_ratio], dtype=torch.float64)
        if form == "bernoulli":
            mask = subject.bernoulli(ratio, **law)
        else:
            logits = torch.zeros(1, 1)
            targets = torch.zeros(1, dtype=torch.int64) if form == "target" else None
            mask = subject.mask(logits, targets, ratio, 0.0, log_space=True, **law)
        assert mask.item() == (log_ratio == 0), f"ends: u = 1, log r = {log_ratio}"


def check_lower_end(subject, seed=None):
    """u = 2**-65 accepts what is not less, and rejects r = 0."""
    law = {"seed": 0, "row_offset": ROW_OF_SMALLEST, "stream": STREAM_OF_SMALLEST}
    log_u = math.log(SMALLEST)
    for log_ratio, expected in ((-math.inf, False), (log_u - 1e-12, False), (log_u + 1e-12, True)):
        ratio = torch.tensor([log_ratio], dtype=torch.float64)
        mask = subject.bernoulli(ratio, **law)
        assert mask.item() == expected, f"ends: u = 2**-65, log r = {log_ratio}"


def test_rows_hold_the_ends():
    assert rskernels.uniforms((), seed=0, row_offset=ROW_OF_ONE) == 1.0
    low, high = ROW_OF_SMALLEST & 0xFFFFFFFF, ROW_OF_SMALLEST >> 32
    counter = torch.tensor([low, high, 0, STREAM_OF_SMALLEST])
    assert philox4x32(counter, torch.tensor([0, 0]))[:2].tolist() == [0, 0]


@pytest.mark.parametrize("form", ["bernoulli", "target", "dense"])
def test_upper_end(subject, form):
    check_upper_end(subject, form=form)


def test_lower_end(subject):
    check_lower_end(subject)
