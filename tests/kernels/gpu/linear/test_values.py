"""What the Triton kernels make of hidden states is what float64 makes of the logits."""

import math

import pytest
import torch

from rskernels.kernels import reference
from rskernels.law.decision import Law
from rskernels.law.philox import row_uniforms

from .cases import FORMS, Linear, draw_product, logits_of

pytestmark = pytest.mark.triton
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LINEAR = Linear()
# Within a tile, a tile and a column, a block, and a block and a column; depths in like manner.
SHAPES = [(3, 1, 1), (1, 257, 64), (5, 1024, 65), (130, 1025, 16)]


def near(got, want, dtype, size=0.0):
    """Say whether a result is as exact as its largest summand allows."""
    size = want.abs().nan_to_num(0.0, 0.0) + size
    slack = 1e-12 + 1e-14 * size if dtype == torch.float64 else 2e-6 + 5e-7 * size
    same = (got == want) | (got.isnan() & want.isnan())
    return bool((same | ((got.double() - want).abs() <= slack)).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_log_probabilities_across_every_boundary(shape, dtype):
    product, targets = draw_product(*shape, dtype)
    targets[0] = shape[1] - 1
    log_prob, totals = LINEAR.log_prob(product, targets)
    z = logits_of(product)
    assert near(log_prob, reference.target_log_prob(z, targets, 1.0, -100), dtype)
    assert (log_prob <= 0).all()
    assert near(totals[:, 0] + totals[:, 1].log(), z.logsumexp(-1), dtype)
    assert log_prob.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decisions_in_every_form(form, dtype):
    product, targets = draw_product(6, 1100, 48, dtype, **FORMS[form])
    T = torch.tensor([1.0, 0.5, 2.0, 0.1, 30.0, math.nan])
    targets[4] = -7
    z = logits_of(product)
    want_log_q = reference.target_log_prob(z, targets, T, -7)
    shift = torch.linspace(-1.9, 1.2, 6).double()
    for model_is_target in (False, True):
        log_density = want_log_q + (shift if model_is_target else -shift)
        law = Law(log_density.nan_to_num(0.0), 0.2, 5, 3, T, True, model_is_target, -7)
        got, want = LINEAR.decide(product, targets, law), reference.decide(z, targets, law)
        # A logit of 8 over T.
        size = 8.0 / T.double()
        assert near(got.log_prob, want[1], dtype, size)
        assert near(got.log_ratio, want[2], dtype, size)
        log_u = row_uniforms(3 + torch.arange(6), 0, 5, 0).double().log()
        open_ = (want[2] - 0.2 - log_u).abs() > 1e-4
        assert torch.equal(got.mask[open_], want[0][open_])
        assert got.counts.tolist() == want[3].tolist()
        torch.testing.assert_close(got.excess, want[4], rtol=1e-4, atol=1e-6)
        assert torch.equal(LINEAR.mask(product, targets, law), got.mask)


def test_a_temperature_a_number_and_tensors_of_one_element():
    product, targets = draw_product(3, 300, 32)
    want = reference.target_log_prob(logits_of(product), targets, 0.7, -100)
    for T in (0.7, torch.tensor(0.7), torch.full((3,), 0.7)):
        assert near(LINEAR.log_prob(product, targets, T)[0], want, torch.float32)


def test_leading_dimensions_strides_and_int32_targets():
    product, targets = draw_product(6, 300, 33, torch.bfloat16, bias=True, rank=3)
    want = LINEAR.log_prob(product, targets)
    wide = torch.empty(6, 40, dtype=torch.bfloat16)
    wide[:, 1:34] = product.hidden
    transposed = product.weight.mT.contiguous().mT
    shaped = product._replace(hidden=wide[:, 1:34].view(2, 3, 33), weight=transposed)
    got = LINEAR.log_prob(shaped, targets.view(2, 3).int())
    assert got[0].shape == (2, 3)
    assert got[1].shape == (2, 3, 2)
    assert torch.equal(got[0].flatten(), want[0])


def test_a_softmax_of_one_column_and_of_far_columns():
    product, targets = draw_product(4, 1, 9)
    assert (LINEAR.log_prob(product, targets)[0] == 0).all()
    # Logits of 1e30: as far below another as a float32 goes, and T from end to end.
    product, targets = draw_product(4, 1200, 9, spread=1e30)
    T = torch.tensor([2e-30, 1.0, 1e28, 9e29])
    want = reference.target_log_prob(logits_of(product), targets, T, -100)
    got = LINEAR.log_prob(product, targets, T)[0].double()
    huge = want < -1e30
    torch.testing.assert_close(got[~huge], want[~huge], rtol=1e-5, atol=1e-5)
    assert (got[huge] < -1e30).all()


@pytest.mark.parametrize(
    "cause", ["nan", "inf", "all -inf", "weight nan", "target", "ignored", "T"]
)
def test_an_invalid_row_fails_alone(cause):
    product, targets = draw_product(5, 1100, 24, torch.float32, bias=True)
    T = torch.ones(5)
    law = Law(-6.0, 0.0, 3, 0, T, True, True)
    clean = LINEAR.decide(product, targets, law)
    hidden = product.hidden.clone()
    if cause == "nan":
        hidden[2, 23] = math.nan
    elif cause == "inf":
        hidden[2, 0] = math.inf
    elif cause == "all -inf":
        # 0 times inf elsewhere would be NaN: the row's own columns are -inf by their sign.
        product = product._replace(weight=product.weight.abs())
        clean = LINEAR.decide(product, targets, law)
        hidden[2] = -math.inf
    elif cause == "weight nan":
        product = product._replace(weight=product.weight.clone())
        product.weight[1024, 3] = math.nan
    elif cause == "target":
        targets = targets.clone()
        targets[2] = 1100
    elif cause == "ignored":
        targets = targets.clone()
        targets[2] = -100
    else:
        law = law._replace(temperature=torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0]))
    got = LINEAR.decide(product._replace(hidden=hidden), targets, law)
    lazy = LINEAR.mask(product._replace(hidden=hidden), targets, law, True)
    others = torch.arange(5) != 2
    if cause == "weight nan":  # every row has that column
        assert got.counts[2] == 5
        assert not (got.mask | lazy).any()
        return
    assert not got.mask[2]
    assert got.log_prob[2].isnan()
    assert got.counts[2:].tolist() == ([0, 1] if cause == "ignored" else [1, 0])
    for seen, want in zip(got[:3], clean[:3], strict=True):
        assert torch.equal(seen[others], want[others])
    assert torch.equal(lazy, got.mask)


def test_no_rows():
    product, targets = draw_product(0, 300, 8)
    law = Law(0.5, 1.0, 3)
    decided = LINEAR.decide(product, targets, law)
    assert decided.mask.shape == (0,)
    assert decided.counts.tolist() == [0, 0, 0, 0]
    assert LINEAR.mask(product, targets, law, True).shape == (0,)
    assert LINEAR.log_prob(product, targets)[1].shape == (0, 2)
