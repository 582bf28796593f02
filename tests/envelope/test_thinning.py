"""Thinning and rejection control: functions of ratios and M alone, held to their formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rskernels import Envelope, bernoulli_mask, uniforms
from rskernels.envelope.control import control_weights
from rskernels.envelope.thinning import thin
from rskernels.law.streams import Stream

LOG = st.floats(-20, 20)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


@given(LOG, LOG)
def test_control_makes_up_for_what_M_cuts_off(log_ratio, log_M):
    weight = control_weights(column(log_ratio), column(log_M)).item()
    # Accepted with min(1, w/M) and weighed by max(w, M)/M: in the mean w/M.
    assert min(1.0, math.exp(log_ratio - log_M)) * weight == pytest.approx(
        math.exp(log_ratio - log_M)
    )


def test_control_weights_and_their_sums_are_finite_for_any_ratio():
    log_ratio = torch.tensor([0.0, 690.0, 709.0, 800.0, 1e6, 1e300], dtype=torch.float64)
    weights = control_weights(log_ratio, torch.zeros((), dtype=torch.float64))
    assert weights[:2].tolist() == pytest.approx([1.0, math.exp(690)])
    assert weights.repeat(1000).sum().isfinite()
    assert (weights.diff() >= 0).all()


def test_control_weighs_nan_where_nothing_is_decided():
    log_ratio = column(math.nan, math.inf, 0.0, 0.0, -math.inf)
    log_M = column(0.0, 0.0, math.nan, -math.inf, 0.0)
    assert control_weights(log_ratio, log_M).isnan().tolist() == [True, True, True, True, False]


def test_thinning_keeps_with_the_quotient_of_the_acceptances():
    generator = torch.Generator().manual_seed(1)
    log_ratio = 3 * torch.randn(1000, generator=generator, dtype=torch.float64)
    then, now = -1.0, column(1.5)
    w = log_ratio.exp()
    chance = (w / math.exp(1.5)).clamp(max=1) / (w / math.exp(-1.0)).clamp(max=1)
    kept = thin(log_ratio, then, now, seed=4, row_offset=10)
    u = uniforms(1000, seed=4, row_offset=10, stream=Stream.THIN)
    assert torch.equal(kept, chance >= u)
    # Other draws than those of the acceptances.
    assert not torch.equal(kept, bernoulli_mask(chance.log(), seed=4, row_offset=10))
    assert thin(log_ratio, then, column(then), seed=4).all()


def test_an_envelope_thins_by_the_M_of_each_row_then_and_now():
    envelope = Envelope(groups=2)
    ids = torch.arange(200) % 2
    envelope.update(column(0.5, 2.0), torch.tensor([0, 1]))
    then = torch.where(ids == 0, 0.0, 1.0)
    log_ratio = torch.linspace(-3, 2, 200)
    kept = envelope.thin(log_ratio, then, ids, seed=9)
    assert torch.equal(kept, thin(log_ratio, then, envelope.log_M(ids), seed=9))
    assert not kept.all()
