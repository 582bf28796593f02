"""Temperatures in a tensor, as the public functions take and refuse them."""

import math

import pytest
import torch

import rskernels

from ..support.bits import same_bits
from ..support.cases import draw_case

DECIDERS = [rskernels.accept_mask, rskernels.accept, rskernels.verify_mask, rskernels.verify]
LAW = {"log_space": True, "seed": 5}


@pytest.mark.parametrize("form", ["target", "dense"])
@pytest.mark.parametrize("function", DECIDERS)
def test_each_row_is_as_at_its_number(function, form):
    logits, targets, log_p = draw_case((6, 40), dense=form == "dense")
    temperature = torch.linspace(0.2, 3, 6)
    law = {"targets": targets, "temperature": temperature, **LAW}
    got = function(logits, log_p, 0.3, **law)
    got = got if isinstance(got, torch.Tensor) else got[:3]
    for n, number in enumerate(temperature.tolist()):
        at = slice(n, n + 1)
        index = None if targets is None else targets[at]
        alone = {"targets": index, "temperature": number, "row_offset": n, **LAW}
        want = function(logits[at], log_p[at], 0.3, **alone)
        if isinstance(got, torch.Tensor):
            assert torch.equal(got[at], want)
        else:
            assert same_bits([part[at] for part in got], want[:3])


@pytest.mark.parametrize("targets", [torch.zeros(2, 3).long(), None], ids=["target", "dense"])
@pytest.mark.parametrize(
    ("error", "message", "temperature"),
    [
        (ValueError, r"broadcast to the logits' leading shape \[2, 3\], got \[2\]", torch.ones(2)),
        (ValueError, r"leading shape \[2, 3\], got \[5\]", torch.ones(5)),
        (ValueError, r"leading shape \[2, 3\], got \[1, 2, 3\]", torch.ones(1, 2, 3)),
        (ValueError, r"leading shape \[2, 3\], got \[2, 3, 5\]", torch.ones(2, 3, 5)),
        (ValueError, r"leading shape \[2, 3\], got \[0\]", torch.ones(0)),
        (ValueError, r"temperature is on meta", torch.ones(3, device="meta")),
        (TypeError, r"temperature must be float32, .*, got torch.bool", torch.ones(3).bool()),
        (TypeError, r"temperature must be a strided tensor", torch.ones(3).to_sparse()),
    ],
)
def test_what_is_refused(error, message, temperature, targets):
    logits = torch.zeros(2, 3, 5)
    for function in DECIDERS:
        with pytest.raises(error, match=message):
            function(logits, 0.5, 1.0, targets=targets, temperature=temperature)
    if targets is not None:
        with pytest.raises(error, match=message):
            rskernels.target_log_prob(logits, targets, temperature=temperature)


def test_meta_tensors():
    logits, temperature = torch.zeros(2, 3, 5, device="meta"), torch.ones(3, device="meta")
    targets = torch.zeros(2, 3, dtype=torch.int64, device="meta")
    seen = rskernels.accept(logits, 0.5, 1.0, targets=targets, temperature=temperature, seed=0)
    assert seen.log_prob.shape == (2, 3)
    assert rskernels.accept_mask(logits, 0.5, 1.0, temperature=temperature).shape == (2, 3, 5)
    log_prob = rskernels.target_log_prob(logits, targets, temperature=temperature)
    assert log_prob.shape == (2, 3)


def test_a_view_that_is_negated_when_it_is_read():
    logits, targets, log_p = draw_case((6, 40))
    temperature = torch.linspace(0.2, 3, 6)
    negated = torch.complex(torch.zeros(6), -temperature).conj().imag
    assert negated.is_neg()
    law = {"targets": targets, **LAW}
    want = rskernels.accept(logits, log_p, 0.3, temperature=temperature, **law)
    assert same_bits(rskernels.accept(logits, log_p, 0.3, temperature=negated, **law), want)


def test_masks_carry_no_gradient_to_it():
    logits, targets, log_p = draw_case((6, 40))
    temperature = torch.ones(6, requires_grad=True)
    seen = rskernels.accept(logits, log_p, 0.3, targets=targets, temperature=temperature, **LAW)
    assert not any(part.requires_grad for part in seen)


def test_a_gradient_that_it_would_not_get_is_refused():
    logits, targets, _ = draw_case((6, 40))
    logits.requires_grad_()
    temperature = torch.linspace(0.2, 3, 6).requires_grad_()
    with pytest.raises(NotImplementedError, match=r"no gradient.*temperature\.detach\(\)"):
        rskernels.target_log_prob(logits, targets, temperature=temperature)
    with torch.no_grad():
        want = rskernels.target_log_prob(logits, targets, temperature=temperature)
    got = rskernels.target_log_prob(logits, targets, temperature=temperature.detach())
    assert torch.equal(got.detach(), want)


def test_gradient_of_the_logits():
    logits, targets, _ = draw_case((3, 4, 7), torch.float64)
    logits.requires_grad_()
    targets[0, 1] = -100
    temperature = torch.linspace(0.3, 2.0, 4)
    assert torch.autograd.gradcheck(
        lambda z: rskernels.target_log_prob(z, targets, temperature=temperature), logits
    )


@pytest.mark.parametrize("form", ["target", "dense"])
@pytest.mark.parametrize("how", [{}, {"method": "quantile", "level": 0.9}], ids=["max", "quantile"])
def test_estimates_of_M(form, how):
    logits, targets, log_p = draw_case((300, 40), dense=form == "dense")
    temperature = torch.linspace(0.5, 3, 300)
    options = {"targets": targets, "log_space": True, **how}
    spoilt = temperature.clone()
    spoilt[7] = math.nan
    kept = torch.arange(300) != 7
    log_M = rskernels.estimate_M(logits, log_p, temperature=spoilt, **options)
    log_q = torch.log_softmax(logits.double() / temperature[:, None], -1)
    if targets is not None:
        log_q = log_q.gather(-1, targets[:, None])[:, 0]
    ratios = (log_p - log_q)[kept].flatten()
    if how:
        want = ratios.kthvalue(math.ceil(0.9 * len(ratios))).values.item()
        assert want <= log_M + 1e-5 <= want + 1 / 256 + 1e-4
    else:
        assert log_M == pytest.approx(ratios.max().item(), abs=2e-5)
