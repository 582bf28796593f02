"""Decisions whose log_prob carries a gradient: one pass for the decision and for the loss."""

import math

import pytest
import torch

import rskernels
from rskernels import Acceptance
from rskernels.law.decision import Law

from ..support.bits import same_bits
from ..support.cases import draw_case, layouts

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
WIDTHS = [1, 16, 513, 4097]


def decide_both(kernel, logits, targets, density, **law):
    """Return what ``decide`` and ``decide_with_totals`` return of the same rows."""
    placed = [kernel.place(value) for value in (logits, targets)]
    law = Law(kernel.place(density), 1.0, 3, log_space=True, **law)
    alone = Acceptance(*kernel.kernels.decide(*placed, law))
    log_prob, totals, mask, *others = kernel.kernels.decide_with_totals(*placed, law)
    return alone, Acceptance(mask, log_prob, *others), totals


def odd_rows(rows, V, dtype):
    """Return rows of which some are ignored or have no softmax."""
    logits, targets, density = draw_case((rows, V), dtype, seed=V)
    targets[0] = -100
    logits[1, V // 2] = math.nan
    logits[2] = -math.inf
    density[3] = math.nan
    return logits, targets, density


@pytest.mark.parametrize("each_temperature", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", WIDTHS)
def test_totals_change_nothing_and_are_those_of_target_log_prob(kernel, V, dtype, each_temperature):
    logits, targets, density = odd_rows(kernel.rows(37, slow=6), V, dtype)
    temperature = 0.7
    if each_temperature:
        temperature = torch.linspace(0.3, 2.0, len(targets))
        temperature[4] = math.nan
    alone, seen, totals = decide_both(kernel, logits, targets, density, temperature=temperature)
    assert same_bits([part.cpu() for part in seen], [part.cpu() for part in alone])

    want = kernel.log_prob(logits, targets, temperature)
    given = targets != -100
    assert same_bits(seen.log_prob.cpu()[given], want[given])
    upstream = torch.linspace(-1, 1, len(targets)).to(want.dtype)
    placed = [kernel.place(value) for value in (upstream, logits, targets, totals, temperature)]
    got = kernel.kernels.target_log_prob_backward(*placed, -100).cpu()
    assert same_bits(got, kernel.gradient(upstream, logits, targets, temperature))
    assert got[0].eq(0).all()
    assert got[3].isfinite().all()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 3), (2, 0, 3)])
@pytest.mark.parametrize("layout", ["sliced", "stepped", "transposed"])
def test_leading_shapes_and_layouts(kernel, shape, layout):
    logits, targets, density = draw_case((*shape, 37))
    _, _, want = decide_both(kernel, logits, targets, density)
    assert want.shape == (*shape, 2)
    view = getattr(layouts(logits), layout)
    alone, seen, totals = decide_both(kernel, view, targets, density)
    assert same_bits([*seen, totals], [*alone, want])


@pytest.mark.parametrize("rows", [16, 17, 400])
def test_every_row_of_many_units_has_its_totals(cpu, rows):
    logits, targets, density = draw_case((rows, 2000))
    targets[5] = -100
    _, _, totals = decide_both(cpu, logits, targets, density)
    want = cpu.kernels.target_log_prob(logits, targets, 1.0, -100)[1]
    assert same_bits(totals, want)


CALLS = {
    "accept": lambda z, targets, **law: rskernels.accept(z, 0.1, 1.5, targets=targets, **law),
    "verify": lambda z, targets, **law: rskernels.verify(z, 0.1, 0.5, targets=targets, **law),
}


@pytest.fixture(params=CALLS)
def call(request):
    return CALLS[request.param]


def test_a_step_that_reads_once_is_the_step_that_reads_twice(call):
    logits, targets, _ = draw_case((6, 5, 50))
    law = {"seed": 3, "temperature": torch.linspace(0.5, 1.5, 5), "row_offset": 9}
    once, twice = (logits.clone().requires_grad_() for _ in range(2))
    seen = call(once, targets, **law)
    assert 0 < seen.mask.sum() < seen.mask.numel()
    seen.log_prob[seen.mask].mean().backward()
    log_prob = rskernels.target_log_prob(twice, targets, temperature=law["temperature"])
    mask = call(twice.detach(), targets, **law).mask
    log_prob[mask].mean().backward()
    assert same_bits([seen.mask, seen.log_prob, once.grad], [mask, log_prob, twice.grad])
    assert once.grad[~mask].eq(0).all()


def test_only_log_prob_carries_a_gradient(call):
    logits, targets, _ = draw_case((6, 50))
    want = call(logits, targets, seed=3)
    logits.requires_grad_()
    seen = call(logits, targets, seed=3)
    assert same_bits(seen, want)
    assert [part.requires_grad for part in seen] == [False, True, False, False, False]
    with torch.no_grad():
        assert not call(logits, targets, seed=3).log_prob.requires_grad
    assert not call(logits.detach(), targets, seed=3).log_prob.requires_grad


def test_the_dense_form_carries_none(call):
    logits = torch.randn(6, 50, requires_grad=True)
    assert not any(part.requires_grad for part in call(logits, None, seed=3))


def test_gradcheck(call):
    logits, targets, _ = draw_case((3, 4, 7), torch.float64)
    logits.requires_grad_()
    one = lambda z: call(z, targets, seed=3, temperature=0.6).log_prob  # noqa: E731
    assert torch.autograd.gradcheck(one, logits)


def test_rows_left_out_by_the_mask_leave_no_trace(call):
    logits, targets, _ = draw_case((6, 50))
    targets[1] = -100
    logits[2, 7] = math.nan
    logits.requires_grad_()
    seen = call(logits, targets, seed=3)
    assert seen.log_prob.isnan().tolist() == [False, True, True, False, False, False]
    assert not seen.mask[[1, 2]].any()
    seen.log_prob[seen.mask].sum().backward()
    assert logits.grad[~seen.mask].eq(0).all()
    assert logits.grad[seen.mask].isfinite().all()


def test_an_ignored_row_has_no_gradient_whatever_its_upstream(call):
    logits, targets, _ = draw_case((4, 9))
    targets[1] = -100
    logits.requires_grad_()
    call(logits, targets, seed=3).log_prob.backward(torch.ones(4))
    assert logits.grad[1].eq(0).all()
    assert logits.grad[[0, 2, 3]].ne(0).all()


def second(call, logits, targets):
    value = call(logits, targets, seed=3).log_prob.sum()
    (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
    return torch.autograd.grad(gradient.square().sum(), logits)


def forward_mode(call, logits, targets):
    log_prob = lambda z: call(z, targets, seed=3).log_prob  # noqa: E731
    return torch.func.jvp(log_prob, (logits.detach(),), (torch.ones_like(logits),))


def dual(call, logits, targets):
    with torch.autograd.forward_ad.dual_level():
        tangent = torch.ones_like(logits)
        return call(torch.autograd.forward_ad.make_dual(logits, tangent), targets, seed=3)


def of_the_temperature(call, logits, targets):
    return call(logits, targets, seed=3, temperature=torch.ones((), requires_grad=True))


@pytest.mark.parametrize(
    ("derivative", "message"),
    [
        (second, "no second derivative"),
        (forward_mode, "no forward-mode derivative"),
        (dual, "no forward-mode derivative"),
        (of_the_temperature, "no gradient with respect to temperature"),
    ],
)
def test_what_is_not_offered_raises(call, derivative, message):
    logits = torch.randn(4, 9, requires_grad=True)
    with pytest.raises(NotImplementedError, match=message):
        derivative(call, logits, torch.tensor([1, 2, 3, 4]))


def test_a_temperature_with_gradient_decides_where_none_is_recorded(call):
    logits, targets, _ = draw_case((6, 50))
    temperature = torch.ones((), requires_grad=True)
    seen = call(logits, targets, seed=3, temperature=temperature)
    assert same_bits(seen, call(logits, targets, seed=3))
    with torch.no_grad():
        call(logits.requires_grad_(), targets, seed=3, temperature=temperature)


def test_targets_outside_raise_where_gradients_are_recorded(call):
    logits = torch.randn(4, 9, requires_grad=True)
    with pytest.raises(IndexError, match="got 9 in row 3"):
        call(logits, torch.tensor([1, 2, 3, 9]), seed=3)
