"""Early exit from hidden states: the decisions of the full product, with less of it computed."""

import itertools
import math

import pytest
import torch

import rskernels
from rskernels.kernels.cpu.linear import launch
from rskernels.kernels.cpu.linear.blocks import blocks_of
from rskernels.kernels.layout import ORDER_BLOCK
from rskernels.kernels.product import Product
from rskernels.law.decision import Law

from .products import OPTIONS, draw_product

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Means and spreads of log r: from hardly any row accepted to all of them.
ACCEPTANCES = ((-7.0, 0.5), (-4.0, 1.0), (-1.5, 2.0), (0.0, 3.0), (2.0, 0.5))
N = 7200
WIDTHS = (300, 900, 2100)


def zipf(product):
    """Return a product with the most likely columns first."""
    V = len(product.weight)
    return product._replace(bias=-torch.arange(1.0, V + 1).log())


def draw(cpu, options, dtype, V, seed, temperature, *, rows=N, is_zipf=False):
    """Return a product, targets, the model's log-probabilities, and log r to be decided."""
    product = draw_product(rows, 4, V, dtype, options, seed=seed)
    if is_zipf:
        product = zipf(product)
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(V, (rows,), generator=generator)
    log_prob, _ = cpu.kernels.linear.target_log_prob(product, targets, temperature, -100)
    chosen = torch.randint(len(ACCEPTANCES), (rows,), generator=generator)
    mean, spread = torch.tensor(ACCEPTANCES).double()[chosen].unbind(-1)
    log_r = torch.randn(rows, generator=generator).double() * spread + mean
    return product, targets, log_prob.double(), log_r


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_million_lazy_decisions_are_those_of_the_full_product(cpu, dtype):
    # 4 dtypes x 6 options x 3 widths x 2 temperatures x 2 orders x 2 roles x 1800 rows.
    rows, decided, accepted = N // 4, 0, 0
    each = torch.linspace(0.4, 4.0, rows)
    cases = itertools.product(OPTIONS, WIDTHS, (0.7, each), (False, True))
    for seed, (options, V, temperature, is_ordered) in enumerate(cases):
        is_zipf = seed // 4 % 2 == 1
        order = torch.randperm(-(-V // ORDER_BLOCK)) if is_ordered else None
        product, targets, log_prob, log_r = draw(
            cpu, options, dtype, V, seed, temperature, rows=rows, is_zipf=is_zipf
        )
        for model_is_target in (False, True):
            density = log_prob - log_r if model_is_target else log_prob + log_r
            law = Law(density, 0.0, seed, 0, temperature, True, model_is_target)
            full = cpu.kernels.linear.mask(product, targets, law, False, order)
            lazy = cpu.kernels.linear.mask(product, targets, law, True, order)
            assert torch.equal(full, lazy), f"{options}, V = {V}, {seed}, target {model_is_target}"
            decided += rows
            accepted += int(full.sum())
    assert decided == 259_200
    assert 0.2 < accepted / decided < 0.8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bound_itself(cpu, dtype):
    # Acceptance ratios a few roundings around u: where leaving too early would show.
    product, targets, log_prob, _ = draw(cpu, "plain", dtype, 5000, 1, 1.0, is_zipf=True)
    log_u = rskernels.uniforms((N,), seed=9).log()
    step = torch.randint(-40, 41, (N,), generator=torch.Generator().manual_seed(1))
    log_r = log_u + step * 2.0 ** (-24 if dtype == torch.float32 else -50)
    law = Law(log_prob - log_r, 0.0, 9, log_space=True, model_is_target=True)
    full = cpu.kernels.linear.mask(product, targets, law)
    assert torch.equal(full, cpu.kernels.linear.mask(product, targets, law, True))
    assert 0.2 < full.float().mean() < 0.8


@pytest.fixture
def multiplied(monkeypatch):
    """Count the rows of every block that is multiplied."""
    counts = []

    def count(opened, rows, *rest):
        counts.append(rows.length)
        return read_block(opened, rows, *rest)

    read_block = launch._read_blocks
    monkeypatch.setattr(launch, "_read_blocks", count)
    return counts


def test_rows_that_are_certain_are_not_multiplied(cpu, multiplied):
    product = zipf(draw_product(1000, 8, 20_000, spread=1.0))
    targets = torch.full((1000,), 15_000)
    log_prob, _ = cpu.kernels.linear.target_log_prob(product, targets, 1.0, -100)
    for share in (0.0, 0.1, 1.0):
        # Of a row that has to be accepted every block is read.
        density = log_prob - torch.where(torch.arange(1000) < 1000 * share, 1.0, -8.0)
        law = Law(density, 0.0, 1, log_space=True, model_is_target=True)
        multiplied.clear()
        mask = cpu.kernels.linear.mask(product, targets, law, True)
        lazy = list(multiplied)
        multiplied.clear()
        assert torch.equal(mask, cpu.kernels.linear.mask(product, targets, law))
        assert multiplied == [1000] * len(multiplied)
        assert lazy == sorted(lazy, reverse=True)
        if share < 1.0:
            assert max(lazy[3:], default=0) < 1000 * share + 30
        else:
            assert lazy == multiplied


def test_rows_that_are_not_asked_for_are_not_multiplied(cpu, multiplied):
    product = draw_product(100, 8, 300)
    targets = torch.full((100,), -100)
    targets[::10] = 5
    cpu.kernels.linear.decide(product, targets, Law(1e-3, 1.0, 0))
    assert multiplied == [10] * len(list(blocks_of(300, None)))
    multiplied.clear()
    targets[:] = -100
    assert not cpu.kernels.linear.mask(product, targets, Law(1e-3, 1.0, 0)).any()
    assert multiplied == []


def _ends_with(value):
    """Return a product whose decisions are certain by the first block, and an odd last logit."""
    weight = torch.zeros(9000, 1)
    weight[0], weight[-1] = -5.0, value
    return Product(torch.ones(20, 1), weight, None, 1.0, 0.0, None), torch.zeros(20).long()


def test_what_is_not_multiplied_does_not_matter(cpu):
    product, targets = _ends_with(math.nan)
    mask = cpu.kernels.linear.mask
    assert mask(product, targets, Law(1.0, 1.0, 0), True).all()
    assert not mask(product, targets, Law(1.0, 1.0, 0)).any()
    assert not mask(product, targets, Law(1.0, 1.0, 0, model_is_target=True), True).any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_accept_mask_multiplies_to_the_end_unless_told_not_to(value):
    product, targets = _ends_with(value)
    z = rskernels.LinearLogits(product.hidden, product.weight)
    options = {"targets": targets, "seed": 1}
    assert not rskernels.accept_mask(z, 0.9, 1.0, **options).any()
    assert rskernels.accept_mask(z, 0.9, 1.0, assume_finite=True, **options).sum() > 12


def test_the_masks_decide_as_their_full_forms(cpu):
    product, targets, log_prob, log_r = draw(cpu, "bias", torch.float32, 3000, 2, 1.0)
    z = rskernels.LinearLogits(*product[:3])
    options = {"targets": targets, "seed": 4, "log_space": True}
    lazy = rskernels.verify_mask(z, log_prob - log_r, **options)
    assert torch.equal(lazy, rskernels.verify(z, log_prob - log_r, **options).mask)
    lazy = rskernels.accept_mask(z, log_prob + log_r, None, assume_finite=True, **options)
    assert torch.equal(lazy, rskernels.accept(z, log_prob + log_r, None, **options).mask)
