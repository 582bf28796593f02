"""Rows of a pool drawn by rejection towards a target density."""

import math

import pytest
import torch

from rskernels import Envelope
from rskernels.rsft.data.draw import draw_rows

DRAWS = 200_000


def shares_within(drawn, shares):
    """Say whether shares of the draws are within 5σ of those wanted."""
    seen = drawn.double() / drawn.sum()
    return ((seen - shares).abs() <= 5 * (shares * (1 - shares) / drawn.sum()).sqrt()).all()


def test_classes_come_as_often_as_wanted():
    # Two classes of 0.6 and 0.4 to halves: M = 1.25, and 0.8 of the proposals are kept.
    labels = (torch.arange(1000) >= 600).long()
    log_ratio = torch.tensor([0.5 / 0.6, 0.5 / 0.4]).log()[labels]
    drawn = draw_rows(log_ratio, DRAWS, seed=1)
    assert shares_within(labels[drawn.samples].bincount(), torch.tensor([0.5, 0.5]))
    assert drawn.report.log_M == pytest.approx(math.log(1.25))
    sigma = math.sqrt(0.8 * 0.2 / drawn.proposals)
    assert abs(drawn.acceptance_rate - 0.8) <= 5 * sigma
    assert drawn.report.violations == 0


def test_every_row_comes_by_its_ratio():
    ratio = torch.tensor([0.0, 1.0, 2.0, 5.0, math.nan, math.inf])
    drawn = draw_rows(ratio.log(), DRAWS, seed=2)
    counts = drawn.samples.bincount(minlength=6)
    assert counts[[0, 4, 5]].sum() == 0
    assert shares_within(counts[1:4], torch.tensor([1.0, 2.0, 5.0]) / 8)
    assert drawn.report.invalid > 0


def test_another_M_may_be_asked_for():
    log_ratio = torch.tensor([1.0, 4.0]).log()
    capped = draw_rows(log_ratio, DRAWS, log_M=math.log(2.0), on_violation="cap", seed=3)
    assert shares_within(capped.samples.bincount(), torch.tensor([1.0, 2.0]) / 3)
    assert capped.report.delta == pytest.approx(0.4, abs=0.01)
    exact = draw_rows(log_ratio, DRAWS, log_M=Envelope(on_violation="thin"), seed=3)
    assert shares_within(exact.samples.bincount(), torch.tensor([1.0, 4.0]) / 5)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"must have shape \[rows\] of at least 1, got \[2, 2\]"):
        draw_rows(torch.zeros(2, 2), 1)
    with pytest.raises(ValueError, match=r"got \[0\]"):
        draw_rows(torch.zeros(0), 1)
    with pytest.raises(ValueError, match="none of the 3 rows has a ratio p/q above 0"):
        draw_rows(torch.tensor([math.nan, math.inf, -math.inf]), 1)
