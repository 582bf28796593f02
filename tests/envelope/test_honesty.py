"""Law 5: a ratio above M is accepted, counted, and its excess mass summed."""

import math

import pytest
import torch

import rskernels

from ..support.cases import draw_case

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.fixture(params=["target", "dense"])
def batch(request):
    def draw(N, V, dtype=torch.float32):
        return draw_case((N, V), dtype, dense=request.param == "dense", seed=5)

    return draw


def test_ratios_above_M_are_accepted_counted_and_summed(backend):
    # Model probabilities 1/2, 1/4, 1/4; w = p_hat/q = 2, 4, 1; M = 2.
    thirds = backend.rows(100, slow=10)
    logits = torch.tensor([math.log(2.0), 0.0, 0.0], dtype=torch.float64).repeat(3 * thirds, 1)
    density = torch.tensor([1.0, 1.0, 0.25], dtype=torch.float64)
    targets = torch.arange(3 * thirds) % 3
    for form, p in ((targets, density[targets]), (None, density)):
        seen = backend.decide(logits, form, p, 2.0, seed=1)
        each = thirds if form is not None else 3 * thirds
        column = seen.mask.view(-1, 3) if form is not None else seen.mask
        # w/M of 1 and 2 are certain; 1/2 is not.
        assert column[:, :2].all()
        assert 0 < column[:, 2].sum() < each
        assert seen.counts[0] == seen.mask.sum()
        near_one = seen.log_ratio > math.log(2.0)
        assert seen.counts[1] == near_one.sum()
        assert each <= seen.counts[1] <= 2 * each
        assert seen.excess.tolist() == pytest.approx([1.0 * each, 3.5 * each], rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [5, 4100])
def test_counts_and_excess_are_those_of_the_results(kernel, batch, dtype, V):
    logits, targets, log_p = batch(kernel.rows(300), V, dtype)
    log_M = 0.75  # of float32, so that the dense form compares with the same number
    seen = kernel.decide(logits, targets, log_p, log_M, log_space=True)
    log_r = seen.log_ratio.double() - log_M
    assert seen.counts.dtype == torch.int64
    assert seen.excess.dtype == torch.float64
    assert seen.counts.tolist() == [seen.mask.sum(), (log_r > 0).sum(), 0, 0]
    assert seen.counts[1] > 0 or kernel.is_slow
    assert seen.mask[log_r >= 0].all()
    want = torch.stack([(log_r.exp() - 1).clamp(min=0).sum(), log_r.exp().sum()])
    torch.testing.assert_close(seen.excess, want, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [17, 4100])
@pytest.mark.parametrize("model_is_target", [False, True])
def test_an_envelope_taken_from_the_ratios_is_not_violated(
    kernel, batch, model_is_target, dtype, V
):
    logits, targets, log_p = batch(kernel.rows(200, slow=2), V, dtype)
    law = {"log_space": True, "model_is_target": model_is_target}
    top = kernel.decide(logits, targets, log_p, 0.0, **law).log_ratio.max()
    for log_M in (top, top.item()):
        seen = kernel.decide(logits, targets, log_p, log_M, **law)
        assert seen.counts[1] == 0
        assert seen.excess[0] == 0
        # The largest ratio itself is certain.
        assert seen.mask[seen.log_ratio == top].all()
    just_below = torch.nextafter(top, torch.tensor(-math.inf, dtype=top.dtype))
    assert kernel.decide(logits, targets, log_p, just_below, **law).counts[1] >= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dense", [False, True])
def test_an_M_that_equals_the_ratio_is_met_and_not_violated(kernel, dtype, dense):
    # Of one column q is 1, so that p = M q.
    N = kernel.rows(4000, slow=24)
    p = torch.rand(N, generator=torch.Generator().manual_seed(2)) * 3 + 0.1
    targets = None if dense else torch.zeros(N, dtype=torch.long)
    density = p[:, None] if dense else p
    seen = kernel.decide(torch.zeros(N, 1, dtype=dtype), targets, density, density)
    assert seen.counts.tolist() == [N, 0, 0, 0]


@pytest.mark.parametrize("dense", [False, True])
def test_a_ratio_beyond_float32_is_a_violation(backend, dense):
    lowest = torch.finfo(torch.float32).min
    logits = torch.tensor([[lowest, 10.0, 3.0], [10.0, lowest, 3.0]])
    targets = None if dense else torch.tensor([0, 1])
    seen = backend.decide(logits, targets, 0.5, 1.0, temperature=0.7)
    at = ([0, 1], [0, 1]) if dense else slice(None)
    assert seen.mask[at].all()
    assert seen.log_ratio[at].isfinite().all()
    # Of the dense form the last column's too.
    assert seen.counts.tolist()[1:] == [4 if dense else 2, 0, 0]


def test_excess_bounds_the_bias(backend):
    # w is 2.5 on 16 of 64 equal cells, 0.5 on the others; M = 2: the excess mass is 1/8.
    logits = torch.zeros(1, 64)
    w = torch.where(torch.arange(64) < 16, 2.5, 0.5)
    seen = backend.decide(logits, None, w / 64, 2.0)
    assert seen.counts[1] == 16
    delta = (seen.excess[0] / seen.excess[1]).item()
    assert delta == pytest.approx(1 / 8, rel=1e-5)
    accepted = (w / 2).clamp(max=1) / (w / 2).clamp(max=1).sum()
    assert (accepted - w / w.sum()).clamp(min=0).sum() == pytest.approx(3 / 56)
    assert delta >= 3 / 56


def test_invalid_and_ignored_rows_add_nothing(backend):
    logits = torch.zeros(4, 2)
    logits[1, 0] = math.nan
    targets = torch.tensor([0, 0, -100, 1])
    seen = backend.decide(logits, targets, torch.tensor([1.0, 1.0, 1.0, math.nan]), 1.0)
    assert seen.counts.tolist() == [1, 1, 2, 1]
    assert seen.excess.tolist() == pytest.approx([1.0, 2.0], rel=1e-5)


def test_no_rows_count_nothing(backend):
    for targets in (torch.empty(0, dtype=torch.int64), None):
        seen = backend.decide(torch.zeros(0, 5), targets, 0.5, 1.0)
        assert seen.counts.tolist() == [0, 0, 0, 0]
        assert seen.excess.tolist() == [0, 0]


def test_many_rows_are_counted_exactly():
    # More than the 2**24 that a float32 sum could count.
    logits = torch.zeros(1, 1).expand(1 << 15, 600)
    mask, _, _, counts, excess = rskernels.accept(logits, 1, 0.5, seed=0)
    assert mask.all()
    assert counts.tolist() == [mask.numel(), mask.numel(), 0, 0]
    assert counts[0] > 1 << 24
    assert excess.tolist() == pytest.approx([1199 * mask.numel(), 1200 * mask.numel()], rel=1e-5)
