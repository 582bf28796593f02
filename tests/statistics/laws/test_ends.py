"""The ends of the uniform law, at rows found to hold them: u is inside (0, 1], and r >= u accepts.

A statistic would need 2**64 draws to meet the lower end. What keeps u from it, half a unit of the
last of its 64 bits, is met where it alone has u rounded up.
"""

import math

import pytest
import torch

import rskernels
from rskernels.law.philox import row_uniforms, word_uniform

# Seed 0, found by search. In the second row's u what follows the last bit that float32 keeps is one
# half of it, but for the half unit.
ROW_OF_ONE, ROW_OF_HALF = 38471471, 342070201295
LEAD_OF_HALF, TRAIL_OF_HALF = 0x3BF46, 0x2000000


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


def check_half_unit(subject, seed=None):
    """The half unit behind the last bit of u, without which u could be 0, is not left out."""
    law = {"seed": 0, "row_offset": ROW_OF_HALF}
    log_u = math.log(rskernels.uniforms((), **law))
    for log_ratio, expected in ((-math.inf, False), (log_u - 1e-12, False), (log_u + 1e-12, True)):
        ratio = torch.tensor([log_ratio], dtype=torch.float64)
        mask = subject.bernoulli(ratio, **law)
        assert mask.item() == expected, f"ends: log u = {log_u}, log r = {log_ratio}"


def test_rows_hold_the_ends():
    assert rskernels.uniforms((), seed=0, row_offset=ROW_OF_ONE) == 1.0
    numerator = LEAD_OF_HALF << 33 | TRAIL_OF_HALF << 1 | 1
    u = torch.tensor([numerator, numerator - 1]).float() * 2.0**-65
    assert u[0] > u[1]
    assert word_uniform(torch.tensor(LEAD_OF_HALF), torch.tensor(TRAIL_OF_HALF)) == u[0]
    assert row_uniforms(torch.tensor(ROW_OF_HALF), 0, 0, 0) == u[0]


@pytest.mark.parametrize("form", ["bernoulli", "target", "dense"])
def test_upper_end(subject, form):
    check_upper_end(subject, form=form)


def test_half_unit(subject):
    check_half_unit(subject)
