"""Gradients of log-probabilities whose logits are not stored are float64's, of the rows used."""

import math

import pytest
import torch

from rskernels.kernels import reference
from rskernels.kernels.product import Lora, Product

from ....support.bits import same_bits
from .cases import FORMS, Linear, draw_product, logits_of, rows_of

pytestmark = pytest.mark.triton
LINEAR = Linear()
ALL = (True,) * 5
N, V, D = 9, 700, 40
MOST = {torch.float32: 2e-6, torch.float64: 1e-14}


@pytest.fixture(autouse=True)
def narrow_bands(monkeypatch):
    """Keep narrow bands, so that there are several."""
    monkeypatch.setattr("rskernels.kernels.gpu.linear.backward.BAND", 256)


def parts_of(product):
    """Return hidden, weight, bias, A and B."""
    lora = product.lora or (None, None)
    return product.hidden, product.weight, product.bias, lora[0], lora[1]


def of_autograd(log_prob, upstream, product):
    """Return the gradients that autograd gives of a function of a product's parts."""
    parts = [
        part.detach().requires_grad_() if part is not None else None for part in parts_of(product)
    ]
    hidden, weight, bias, A, B = parts
    lora = None if A is None else Lora(A, B, product.lora.scale)
    result = log_prob(Product(hidden, weight, bias, product.scale, product.softcap, lora))
    wanted = [part for part in parts if part is not None]
    seen = iter(torch.autograd.grad(result, wanted, upstream.to(result.dtype)))
    return [None if part is None else next(seen) for part in parts]


def exact(product, targets, upstream, T=1.0):
    """Return the gradients in float64."""
    parts = [None if part is None else part.double() for part in parts_of(product)]
    lora = None if parts[3] is None else Lora(parts[3], parts[4], product.lora.scale)
    wide = Product(*parts[:3], product.scale, product.softcap, lora)
    return of_autograd(
        lambda it: reference.target_log_prob(logits_of(it), targets, T, -100), upstream, wide
    )


def errors(got, want):
    """Return the relative errors of gradients that there are."""
    assert [one is None for one in got] == [one is None for one in want]
    pairs = [(a, b) for a, b in zip(got, want, strict=True) if a is not None]
    return [float((a.double() - b).norm() / b.norm()) for a, b in pairs]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_those_of_float64(form, dtype):
    product, targets = draw_product(N, V, D, dtype, **FORMS[form])
    upstream, T = torch.linspace(-1, 2, N), torch.linspace(0.5, 2.0, N)
    upstream[3], targets[5] = 0.0, -100
    got = LINEAR.gradient(upstream, product, targets, ALL, T)
    for part, one in zip(parts_of(product), got, strict=True):
        assert part is None or (one.dtype, one.shape) == (part.dtype, part.shape)
    assert max(errors(got, exact(product, targets, upstream, T))) < MOST[dtype]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_less_exact_than_eager(dtype):
    product, targets = draw_product(150, 300, 70, dtype, bias=True, rank=3)
    upstream = torch.linspace(0.5, 1.5, 150)
    want = exact(product, targets, upstream)

    def eager(it):
        hidden, weight, bias, _, _, lora = it
        z = hidden @ weight.mT + lora.scale * ((hidden @ lora.A.mT) @ lora.B.mT) + bias
        return z.log_softmax(-1).gather(-1, targets[:, None])[:, 0]

    theirs = errors(of_autograd(eager, upstream, product), want)
    ours = errors(LINEAR.gradient(upstream, product, targets, ALL), want)
    assert all(a <= b for a, b in zip(ours, theirs, strict=True)), (ours, theirs)


def test_only_what_is_wanted_is_computed():
    product, targets = draw_product(N, V, D, torch.float32, **FORMS["all"])
    upstream = torch.linspace(-1, 2, N)
    every = LINEAR.gradient(upstream, product, targets, ALL)
    for at in range(5):
        wanted = tuple(other == at for other in range(5))
        got = LINEAR.gradient(upstream, product, targets, wanted)
        assert [one is not None for one in got] == list(wanted)
        assert same_bits(got[at], every[at])


def test_a_row_without_upstream_leaves_no_trace():
    product, targets = draw_product(N, V, D, torch.bfloat16, **FORMS["all"])
    upstream = torch.ones(N)
    upstream[[0, 4]] = 0.0
    used = upstream.nonzero()[:, 0]
    want = LINEAR.gradient(upstream[used], rows_of(product, used), targets[used], ALL)
    product.hidden[0], product.hidden[4, 3] = math.nan, math.inf
    targets[0] = V + 3
    T = torch.ones(N)
    T[4] = math.nan
    got = LINEAR.gradient(upstream, product, targets, ALL, T)
    assert (got[0][[0, 4]] == 0).all()
    assert same_bits((got[0][used], *got[1:]), want)


def test_an_undefined_row_that_is_used_is_seen():
    product, targets = draw_product(N, V, D)
    product.hidden[2, 0] = math.nan
    hidden, weight, *_ = LINEAR.gradient(torch.ones(N), product, targets, ALL)
    assert hidden[2].isnan().all()
    assert not hidden[[0, 1, 3, 4, 5, 6, 7, 8]].isnan().any()
    assert weight.isnan().all()


def test_the_gradient_of_a_hidden_state_is_its_rows_alone():
    product, targets = draw_product(131, 300, 24, torch.float32, rank=3)
    upstream = torch.linspace(-1, 2, 131)
    want = LINEAR.gradient(upstream, product, targets, ALL)[0]
    order = torch.randperm(131, generator=torch.Generator().manual_seed(0))
    for rows in (torch.tensor([130]), torch.arange(60, 131), order):
        got = LINEAR.gradient(upstream[rows], rows_of(product, rows), targets[rows], ALL)[0]
        assert same_bits(got, want[rows])


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_is_used(count):
    product, targets = draw_product(count, V, D, torch.bfloat16, **FORMS["all"])
    got = LINEAR.gradient(torch.zeros(count), product, targets, ALL)
    for part, one in zip(parts_of(product), got, strict=True):
        assert one.shape == part.shape
        assert (one == 0).all()


def test_leading_dimensions_and_strides():
    product, targets = draw_product(6, V, 33, torch.float32, bias=True)
    upstream = torch.linspace(-1, 2, 6)
    want = LINEAR.gradient(upstream, product, targets, ALL)
    wide = torch.zeros(6, 40)
    wide[:, 1:34] = product.hidden
    weight = product.weight.mT.contiguous().mT
    shaped = product._replace(hidden=wide[:, 1:34].view(2, 3, 33), weight=weight)
    got = LINEAR.gradient(upstream.view(2, 3), shaped, targets.view(2, 3), ALL)
    assert got[0].shape == (2, 3, 33)
    assert same_bits((got[0].view(6, 33), *got[1:3]), want[:3])
