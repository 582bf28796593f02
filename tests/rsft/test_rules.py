import math

import pytest
import torch
from torch.nn import functional as F

import rskernels
from rskernels.rsft.rules import (
    RULES,
    State,
    accept,
    control,
    importance,
    log_ratio,
    plain,
    reweight,
)

LOG_P = torch.tensor([0.5, 1.0, 4.0]).log()


def batch(rows=4096):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, 3, generator=generator)
    targets = torch.randint(3, (rows,), generator=generator)
    return logits, targets, LOG_P[targets]


def state(M, seed=7, row_offset=0):
    return State(torch.tensor(M, dtype=torch.float64).log(), seed, row_offset)


def test_plain_keeps_everything_with_weight_one():
    chosen = plain(*batch(), state(1.0))
    assert chosen.mask.all()
    assert chosen.weights.eq(1).all()
    assert chosen.counts.tolist() == [4096, 0, 0, 0]


def test_reweight_weighs_by_class_alone():
    logits, targets, log_p = batch()
    chosen = reweight(logits, targets, log_p, state(1.0))
    assert chosen.mask.all()
    assert torch.allclose(chosen.weights, LOG_P.exp()[targets] / 4)


def test_importance_weights_are_p_over_q():
    logits, targets, log_p = batch()
    chosen = importance(logits, targets, log_p, state(1.0))
    q = logits.softmax(-1).gather(-1, targets[:, None])[:, 0]
    w = LOG_P.exp()[targets] / q
    assert torch.allclose(chosen.weights, w / w.max(), rtol=1e-5)
    assert torch.allclose(chosen.log_ratio.float(), w.log(), atol=1e-5)


def test_accept_matches_the_operation_and_counts_violations():
    logits, targets, log_p = batch()
    chosen = accept(logits, targets, log_p, state(3.0, row_offset=11))
    expected = rskernels.accept_mask(
        logits, LOG_P.exp()[targets], 3.0, targets=targets, seed=7, row_offset=11
    )
    # exp and log of p̂ and M round differently; no u falls between the two for this seed.
    assert torch.equal(chosen.mask, expected)
    ratio = log_ratio(logits, targets, log_p).double().exp() / 3
    assert chosen.counts.tolist() == [int(expected.sum()), int((ratio > 1).sum()), 0, 0]
    assert chosen.excess.tolist() == pytest.approx(
        [float((ratio - 1).clamp(min=0).sum()), float(ratio.sum())], rel=1e-5
    )
    assert chosen.weights.eq(1).all()


def test_importance_is_self_normalised():
    logits, targets, log_p = batch()
    weights = importance(logits, targets, log_p, state(1.0)).weights.double()
    w = log_ratio(logits, targets, log_p).double().exp()
    torch.testing.assert_close(weights / weights.sum(), w / w.sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("M", [0.5, 3.0, 1e3])
def test_control_decides_as_accept_and_weighs_what_is_above_M(M):
    logits, targets, log_p = batch()
    chosen = control(logits, targets, log_p, state(M))
    assert torch.equal(chosen.mask, accept(logits, targets, log_p, state(M)).mask)
    w = log_ratio(logits, targets, log_p).double().exp()
    weights = torch.where(chosen.mask, w.clamp(min=M), 0)
    torch.testing.assert_close(chosen.weights.double(), weights / weights.max(), rtol=1e-5, atol=0)
    assert chosen.counts[1] == (w > M).sum()


def test_M_may_differ_by_row():
    logits, targets, log_p = batch()
    M = torch.tensor([1.0, 2.0, 9.0])[targets].log()
    for rule in (accept, control):
        chosen = rule(logits, targets, log_p, State(M, 7, 0))
        for label, one in enumerate((1.0, 2.0, 9.0)):
            alike = rule(logits, targets, log_p, state(one))
            rows = targets == label
            assert torch.equal(chosen.mask[rows], alike.mask[rows])
        # Accepted with min(1, w/M), the weight max(w, M) makes w of it, whichever M is the row's.
        w = log_ratio(logits, targets, log_p).double().exp()
        wanted = torch.where(chosen.mask, w.maximum(M.double().exp()), 0)
        expected = wanted / wanted.max() if rule is control else torch.ones(4096)
        torch.testing.assert_close(chosen.weights.double(), expected.double(), rtol=1e-5, atol=0)


# Spreads of log w: of a model that is nearly sure, beyond float32's and beyond float64's exp.
@pytest.mark.parametrize("spread", [90.0, 691.0, 1e4, 1e38])
@pytest.mark.parametrize("name", RULES)
def test_weights_are_finite_and_right_for_any_ratio(name, spread):
    logits = torch.zeros(64, 2)
    logits[:, 1] = torch.linspace(0, spread, 64)
    targets, log_p = torch.zeros(64, dtype=torch.int64), torch.zeros(64)
    if name == "reweight":
        log_p = logits[:, 1]
    chosen = RULES[name].select(logits, targets, log_p, state(3.0))
    weights = chosen.weights[chosen.mask].double()
    assert weights.isfinite().all()
    if name in ("plain", "accept", "transfer"):
        assert weights.eq(1).all()
        return
    log_weight = chosen.log_ratio[chosen.mask].double()
    if name == "control":
        log_weight = log_weight.clamp(min=math.log(3.0))
    share = log_weight.softmax(0)
    torch.testing.assert_close(weights / weights.sum(), share, rtol=1e-4, atol=1e-37)


def test_accept_draws_by_seed_and_row_id_only():
    logits, targets, log_p = batch()
    whole = accept(logits, targets, log_p, state(3.0, row_offset=100)).mask
    part = accept(logits[50:], targets[50:], log_p[50:], state(3.0, row_offset=150)).mask
    assert torch.equal(whole[50:], part)
    assert not torch.equal(whole, accept(logits, targets, log_p, state(3.0)).mask)
    other = accept(logits, targets, log_p, state(3.0, seed=8, row_offset=100)).mask
    assert not torch.equal(whole, other)


def test_accept_with_a_huge_M_rejects_the_whole_batch():
    chosen = accept(*batch(), state(1e30))
    assert not chosen.mask.any()
    assert chosen.counts.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("name", ["accept", "importance", "control"])
def test_invalid_rows_are_dropped_and_their_neighbours_untouched(name):
    logits, targets, log_p = batch(64)
    rule = RULES[name].select
    clean = rule(logits, targets, log_p, state(3.0))
    logits[5, 1] = torch.nan
    chosen = rule(logits, targets, log_p, state(3.0))
    others = torch.arange(64) != 5
    assert not chosen.mask[5]
    assert chosen.log_ratio[5].isnan()
    assert chosen.counts[2] == 1
    assert torch.equal(chosen.mask[others], clean.mask[others])


@pytest.mark.parametrize("name", ["accept", "importance", "control"])
def test_a_batch_of_invalid_rows_selects_nothing(name):
    logits, targets, log_p = batch(8)
    chosen = RULES[name].select(logits * torch.nan, targets, log_p, state(3.0))
    assert not chosen.mask.any()
    assert chosen.counts.tolist() == [0, 0, 8, 0]


def test_a_class_that_is_not_wanted_is_never_used():
    logits, targets, _ = batch()
    log_p = torch.tensor([-torch.inf, 0.0, 0.0])[targets]
    for rule in (reweight, importance, accept, control):
        chosen = rule(logits, targets, log_p, state(1.0))
        assert not chosen.mask[targets == 0].any()
        assert chosen.mask[targets != 0].any()
        assert chosen.counts[2] == 0
        assert chosen.weights.isfinite().all()


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_pure_and_has_the_stated_types(name):
    logits, targets, log_p = batch(64)
    before = logits.clone()
    first = RULES[name].select(logits, targets, log_p, state(3.0))
    again = RULES[name].select(logits, targets, log_p, state(3.0))
    assert torch.equal(logits, before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert (first.mask.dtype, first.mask.shape) == (torch.bool, (64,))
    assert (first.weights.dtype, first.weights.shape) == (torch.float32, (64,))
    assert first.log_ratio.shape == (64,)
    assert (first.counts.dtype, first.counts.shape) == (torch.int64, (4,))
    assert (first.excess.dtype, first.excess.shape) == (torch.float64, (2,))
    assert not any(field.requires_grad for field in first)


def test_reweight_is_class_weighted_cross_entropy():
    logits, targets, log_p = batch(64)
    weights = reweight(logits, targets, log_p, state(1.0)).weights
    each = F.cross_entropy(logits, targets, reduction="none")
    loss = (weights * each).sum() / weights.sum()
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets, weight=LOG_P.exp()))
