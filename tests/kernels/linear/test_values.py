"""Decisions from hidden states: those of the reference, and of the same logits stored."""

import math

import pytest
import torch

from rskernels import Acceptance
from rskernels.kernels import reference
from rskernels.kernels.product import Lora, Product
from rskernels.law.decision import Law
from rskernels.law.philox import row_uniforms

from .products import OPTIONS, draw_case, draw_product

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Around the ends of the first blocks, of the widest, and of what a product is padded to.
WIDTHS = (1, 2, 15, 63, 64, 65, 255, 256, 257, 767, 768, 769, 1792, 1793, 3840, 5000, 9217)
# Around what a tile is padded to, and a tile.
ROWS = (0, 1, 15, 16, 17, 511, 512, 513, 530)


def assert_lawful(backend, product, targets, density, M=1.0, **law):
    """Compare decisions with those of the reference, and return them."""
    law = Law(density, M, law.pop("seed", 0), **law)
    got = Acceptance(*backend.kernels.linear.decide(product, targets, law))
    want = Acceptance(*reference.linear.decide(product, targets, law))
    is_wide = product.hidden.dtype == torch.float64
    assert got.log_prob.dtype == (torch.float64 if is_wide else torch.float32)
    scale = 1e-12 if is_wide else 1e-5
    for name in ("log_prob", "log_ratio"):
        torch.testing.assert_close(
            getattr(got, name).double(), getattr(want, name),
            rtol=scale, atol=2 * scale, equal_nan=True,
        )  # fmt: skip
    u = row_uniforms(law.row_offset + torch.arange(targets.numel()), 0, law.seed, 0)
    log_M = reference.natural_log(M, law.log_space, want.log_prob)
    gap = want.log_ratio - log_M - u.view(targets.shape).double().log()
    flipped = got.mask != want.mask
    assert (gap[flipped].abs() < 4 * scale).all()
    assert torch.equal(got.counts[2:], want.counts[2:])
    assert (got.counts[:2] - want.counts[:2]).abs().sum() <= 2
    torch.testing.assert_close(got.excess, want.excess, rtol=1e-4, atol=1e-6)
    mask = backend.kernels.linear.mask(product, targets, law)
    assert torch.equal(mask, got.mask)
    log_prob, totals = backend.kernels.linear.target_log_prob(
        product, targets, law.temperature, law.ignore_index
    )
    assert totals.shape == (*targets.shape, 2)
    ignored = targets == law.ignore_index
    assert torch.equal(log_prob[~ignored].nan_to_num(), got.log_prob[~ignored].nan_to_num())
    assert (log_prob[ignored] == 0.0).all()
    return got


@pytest.mark.parametrize("V", WIDTHS)
def test_across_the_ends_of_blocks(cpu, V):
    for dtype in DTYPES:
        product = draw_product(20, 24, V, dtype, seed=V)
        targets, log_p = draw_case(product, seed=V)
        seen = assert_lawful(cpu, product, targets, log_p, 0.4, log_space=True, seed=V)
        assert 0 < seen.counts[0] < 20 or V < 3


@pytest.mark.parametrize("N", ROWS)
def test_across_the_ends_of_tiles(cpu, N):
    product = draw_product(N, 9, 700, seed=N)
    targets, log_p = draw_case(product, seed=N)
    assert_lawful(cpu, product, targets, log_p, log_space=True, row_offset=2**40)


@pytest.mark.parametrize("D", [1, 2, 15, 16, 17, 63, 64, 65, 100, 513, 8193])
def test_any_number_of_features(cpu, D):
    for dtype in DTYPES[:3]:
        product = draw_product(18, D, 300, dtype, seed=D)
        targets, log_p = draw_case(product)
        assert_lawful(cpu, product, targets, log_p, log_space=True, model_is_target=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS)
def test_every_option(cpu, options, dtype):
    product = draw_product(40, 33, 1500, dtype, options)
    temperature = torch.linspace(0.3, 3.0, 40)
    targets, log_p = draw_case(product, temperature=temperature)
    targets[3] = -7
    for model_is_target in (False, True):
        seen = assert_lawful(
            cpu, product, targets, log_p, torch.rand(40), log_space=True, row_offset=5, seed=3,
            temperature=temperature, model_is_target=model_is_target, ignore_index=-7,
        )  # fmt: skip
        assert 3 < seen.counts[0] < 39
        assert seen.counts[2:].tolist() == [0, 1]


def test_a_bias_of_another_dtype(cpu):
    product = draw_product(9, 8, 300, torch.bfloat16, "bias")
    for dtype in DTYPES:
        each = product._replace(bias=torch.linspace(-2.0, 2.0, 300).to(dtype))
        targets, log_p = draw_case(each)
        assert_lawful(cpu, each, targets, log_p, log_space=True)


def test_leading_dimensions_and_numbers(cpu):
    product = draw_product(24, 8, 300)
    targets, log_p = draw_case(product)
    shaped = targets.view(2, 3, 4)
    seen = assert_lawful(cpu, product, shaped, 1e-3, torch.tensor([[0.1], [0.4], [1.0]]))
    assert seen.mask.shape == (2, 3, 4)
    narrow = assert_lawful(cpu, product, targets.int(), log_p.float(), log_space=True)
    assert torch.equal(narrow.mask, assert_lawful(
        cpu, product, targets, log_p.float().double(), log_space=True, seed=torch.tensor([0])
    ).mask)  # fmt: skip


def _whole_numbers(N, D, V, options):
    """Return a product whose logits are whole numbers: the same however they are summed."""
    generator = torch.Generator().manual_seed(N + V)

    def draw(*shape):
        return torch.randint(-2, 3, shape, generator=generator).float()

    lora = Lora(draw(2, D), draw(V, 2), 2.0) if options else None
    bias, scale = (draw(V), 0.5) if options else (None, 1.0)
    return Product(draw(N, D), draw(V, D), bias, scale, 0.0, lora)


@pytest.mark.parametrize("options", [False, True])
@pytest.mark.parametrize("V", [100, 3000, 20000])
def test_decisions_are_those_about_the_same_logits_stored(cpu, V, options):
    product = _whole_numbers(300, 6, V, options)
    logits = reference.linear.logits_of(product).float()
    targets, log_p = draw_case(product)
    for model_is_target in (False, True):
        law = Law(log_p, 0.3, 5, log_space=True, model_is_target=model_is_target)
        for is_lazy in (False, True):
            mask = cpu.kernels.linear.mask(product, targets, law, is_lazy)
            assert torch.equal(mask, cpu.kernels.mask(logits, targets, law))
        seen = Acceptance(*cpu.kernels.linear.decide(product, targets, law))
        stored = Acceptance(*cpu.kernels.decide(logits, targets, law))
        torch.testing.assert_close(seen.log_prob, stored.log_prob, rtol=2e-7, atol=1e-6)
        assert torch.equal(seen.counts, stored.counts)


def test_a_certain_row_has_log_probability_0(cpu):
    # The target's logit is the same number in the row's sum and beside it.
    for D in (3, 100, 1001):
        product = draw_product(64, D, 1, seed=D, spread=30.0)
        zero = torch.zeros(64, dtype=torch.int64)
        assert (cpu.kernels.linear.target_log_prob(product, zero, 1.0, -100)[0] == 0.0).all()


@pytest.mark.parametrize("layout", ["sliced", "stepped", "transposed"])
@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_layouts(cpu, layout, dtype):
    product = draw_product(20, 24, 500, dtype, "lora")

    def moved(part):
        wide = torch.full((len(part) + 3, 2 * part.shape[1] + 3), math.nan, dtype=dtype)
        view = {
            "sliced": lambda: wide[: len(part), 1 : 1 + part.shape[1]],
            "stepped": lambda: wide[: len(part), 3::2],
            "transposed": lambda: part.t().contiguous().t(),
        }[layout]()
        return view.copy_(part)

    lora = Lora(moved(product.lora.A), moved(product.lora.B), product.lora.scale)
    targets, log_p = draw_case(product)
    assert_lawful(
        cpu, Product(moved(product.hidden), moved(product.weight), None, 1.0, 0.0, lora), targets,
        log_p, log_space=True,
    )  # fmt: skip


def test_expanded_rows(cpu):
    product = draw_product(1, 24, 500)
    product = product._replace(hidden=product.hidden.expand(40, 24))
    targets, log_p = draw_case(product)
    assert_lawful(cpu, product, targets, log_p, log_space=True)


def test_an_order_visits_every_column(cpu):
    V = 4100
    product = draw_product(60, 8, V)
    targets, log_p = draw_case(product)
    law = Law(log_p, 0.2, 1, log_space=True, model_is_target=True)
    plain = cpu.kernels.linear.mask(product, targets, law)
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        mask = cpu.kernels.linear.mask(product, targets, law, False, torch.tensor(order))
        assert (mask != plain).sum() <= 1
    # All mass in one column: a block left out or taken twice would change the decision.
    heavy = torch.arange(0, V, 97)
    weight = torch.zeros(V, len(heavy))
    weight[heavy, torch.arange(len(heavy))] = 30.0
    product = Product(torch.eye(len(heavy)), weight, None, 1.0, 0.0, None)
    q = 1.0 / (1.0 + (V - 1) * math.exp(-30.0))
    for is_lazy in (False, True):
        for model_is_target in (False, True):
            law = Law(q * (1 - 1e-5), 1.0, 0, model_is_target=model_is_target)
            order = torch.tensor([3, 4, 0, 1, 2])
            assert cpu.kernels.linear.mask(product, heavy, law, is_lazy, order).all()
        law = Law(0.5, 1.0, 0, model_is_target=True)
        assert not cpu.kernels.linear.mask(product, (heavy + 1) % V, law, is_lazy, order).any()
