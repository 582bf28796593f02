"""The gradients with respect to what logits are made of, against float64 autograd."""

import math

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from rskernels.kernels import reference
from rskernels.kernels.cpu import linear
from rskernels.kernels.cpu.linear import gradient
from rskernels.kernels.product import Lora, Product, Wanted

from ...support.bits import same_bits
from .products import OPTIONS, draw_case, draw_product

ALL = Wanted(True, True, True, True, True)
# Of a gradient's norm; bfloat16 and float16 hold 8 and 11 bits, and sums are rounded to them once.
ROUNDING = {
    torch.float32: 2e-6,
    torch.float64: 1e-14,
    torch.bfloat16: 2**-8,
    torch.float16: 2**-11,
}


@pytest.fixture
def small_blocks(monkeypatch):
    """Make blocks of few rows and columns, so that small cases cross their edges."""
    monkeypatch.setattr(gradient, "TILE", 32)
    monkeypatch.setattr(gradient, "WIDTH", 64)


def parts_of(product):
    A, B, _ = product.lora or (None, None, 0.0)
    return [product.hidden, product.weight, product.bias, A, B]


def with_parts(product, parts):
    hidden, weight, bias, A, B = parts
    lora = None if product.lora is None else Lora(A, B, product.lora.scale)
    return product._replace(hidden=hidden, weight=weight, bias=bias, lora=lora)


def derived(product, upstream, log_prob_of):
    """Return the gradients that autograd finds, None where there is no part."""
    leaves = [None if part is None else part.clone().requires_grad_() for part in parts_of(product)]
    log_prob = log_prob_of(with_parts(product, leaves))
    given = [leaf for leaf in leaves if leaf is not None]
    found = iter(torch.autograd.grad(log_prob, given, upstream))
    return [None if leaf is None else next(found) for leaf in leaves]


def truth(product, targets, upstream, temperature=1.0, ignore_index=-100):
    wide = with_parts(product, [None if p is None else p.double() for p in parts_of(product)])
    call = reference.linear.target_log_prob
    return derived(
        wide, upstream.double(), lambda made: call(made, targets, temperature, ignore_index)
    )


def backward(product, targets, upstream, temperature=1.0, ignore_index=-100, wanted=ALL):
    _, totals = linear.target_log_prob(product, targets, temperature, ignore_index)
    return linear.target_log_prob_backward(
        upstream, product, targets, totals, temperature, ignore_index, wanted
    )


def draw_upstream(targets, dtype):
    generator = torch.Generator().manual_seed(1)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return torch.randn(targets.shape, generator=generator, dtype=wide)


def errors(got, want):
    """Return each gradient's error as a part of its norm."""
    pairs = [(one, other) for one, other in zip(got, want, strict=True) if other is not None]
    return [((one.double() - other).norm() / other.norm()).item() for one, other in pairs]


def assert_close(got, product, want, most):
    for one, part in zip(got, parts_of(product), strict=True):
        assert (one is None) == (part is None)
        assert part is None or (one.shape, one.dtype) == (part.shape, part.dtype)
    assert max(errors(got, want)) <= most, errors(got, want)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("N", "V"), [(2, 2), (31, 63), (32, 64), (33, 65), (65, 257)])
def test_every_option_dtype_and_edge_of_a_block(small_blocks, N, V, options, dtype):
    product = draw_product(N, 24, V, dtype, options)
    targets, _ = draw_case(product)
    upstream = draw_upstream(targets, dtype)
    got = backward(product, targets, upstream)
    assert_close(got, product, truth(product, targets, upstream), ROUNDING[dtype])


@pytest.mark.parametrize(("N", "V"), [(1023, 300), (1025, 2049)])
def test_blocks_as_large_as_they_are(N, V):
    product = draw_product(N, 32, V, options="all")
    targets, _ = draw_case(product)
    upstream = draw_upstream(targets, torch.float32)
    assert_close(backward(product, targets, upstream), product,
                 truth(product, targets, upstream), 2e-6)  # fmt: skip


@pytest.mark.parametrize("options", ["plain", "all"])
def test_in_bfloat16_not_less_exact_than_torch(options):
    product = draw_product(200, 64, 3000, torch.bfloat16, options)
    targets, _ = draw_case(product)
    upstream = draw_upstream(targets, torch.bfloat16)

    def eager(made):
        hidden, weight, bias, scale, softcap, lora = made
        z = hidden @ weight.T
        if lora is not None:
            z = z + lora.scale * ((hidden @ lora.A.T) @ lora.B.T)
        z = z * scale if bias is None else z * scale + bias
        z = softcap * torch.tanh(z / softcap) if softcap else z
        return torch.log_softmax(z.float(), -1).gather(-1, targets[:, None])[:, 0]

    want = truth(product, targets, upstream)
    ours = errors(backward(product, targets, upstream), want)
    torchs = errors(derived(product, upstream, eager), want)
    assert all(one <= other for one, other in zip(ours, torchs, strict=True)), (ours, torchs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_temperature_of_each_row_and_leading_dimensions(small_blocks, dtype):
    product = draw_product(36, 24, 200, dtype, "all")
    targets, _ = draw_case(product)
    targets = targets.view(4, 9)
    upstream = draw_upstream(targets, dtype)
    for temperature in (0.4, torch.linspace(0.4, 2.0, 9), torch.linspace(0.4, 2, 36).view(4, 9)):
        got = backward(product, targets, upstream, temperature)
        want = truth(product, targets, upstream, temperature)
        assert_close(got, product, want, ROUNDING[dtype])


@pytest.mark.parametrize("options", ["plain", "all"])
def test_rows_that_are_left_out_leave_no_trace_not_even_of_a_nan(small_blocks, options):
    product = draw_product(50, 24, 200, options=options)
    targets, _ = draw_case(product)
    upstream = draw_upstream(targets, torch.float32)
    temperature = torch.linspace(0.5, 1.5, 50)
    left_out = torch.arange(50) % 3 == 1
    kept = ~left_out
    want = backward(
        product._replace(hidden=product.hidden[kept]), targets[kept], upstream[kept],
        temperature[kept],
    )  # fmt: skip
    product.hidden[left_out] = math.nan
    upstream[left_out] = 0.0
    upstream[1] = 3.0
    targets[1] = -100
    temperature[4] = math.nan
    got = backward(product, targets, upstream, temperature)
    assert got.hidden[left_out].eq(0).all()
    assert same_bits(got.hidden[kept], want.hidden)
    others = [(one, other) for one, other in zip(got[1:], want[1:], strict=True) if one is not None]
    assert all(same_bits(one, other) for one, other in others)


def test_a_row_without_a_softmax_gives_nan_where_it_is_used(small_blocks):
    product = draw_product(20, 24, 200)
    targets, _ = draw_case(product)
    upstream = draw_upstream(targets, torch.float32)
    before = backward(product, targets, upstream).hidden
    product.hidden[5, 3] = math.nan
    upstream[7] = math.nan
    got = backward(product, targets, upstream)
    used = torch.arange(20)
    assert got.hidden.isnan().all(1).nonzero().view(-1).tolist() == [5, 7]
    kept = (used != 5) & (used != 7)
    assert same_bits(got.hidden[kept], before[kept])
    assert got.weight.isnan().all()


def test_classes_that_a_bias_shuts_out_have_no_gradient(small_blocks):
    product = draw_product(20, 24, 200, options="bias")
    product.bias[100:] = -math.inf
    targets = torch.arange(20)
    got = backward(product, targets, torch.ones(20))
    assert got.weight[100:].eq(0).all()
    assert got.bias[100:].eq(0).all()
    assert got.hidden.isfinite().all()
    some = Product(product.hidden, product.weight[:100], product.bias[:100], 1.0, 0.0, None)
    want = truth(some, targets, torch.ones(20))
    assert_close([got.hidden, got.weight[:100], got.bias[:100], None, None], some, want, 2e-6)


class Largest(TorchDispatchMode):
    """Notes the elements of the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.fixture
def multiplied(small_blocks, monkeypatch):
    """The multiplications of every product with slopes or for them, as a list."""
    work = []
    multiply, add_products = gradient.multiply, gradient.add_products

    def count_multiply(factor, count, pairs, out):
        features = sum(columns.shape[1] for _, columns in pairs)
        work.append(count * out.shape[1] * features)
        multiply(factor, count, pairs, out)

    def count_add(packed, slopes, out, *how):
        work.append(slopes.numel() * out.shape[1])
        add_products(packed, slopes, out, *how)

    monkeypatch.setattr(gradient, "multiply", count_multiply)
    monkeypatch.setattr(gradient, "add_products", count_add)
    return work


def gradients_of(product, targets, upstream, wanted):
    _, totals = linear.target_log_prob(product, targets, 1.0, -100)
    with Largest() as largest:
        got = linear.target_log_prob_backward(upstream, product, targets, totals, 1.0, -100, wanted)
    return largest.elements, got


N, D, V = 96, 8, 640


@pytest.mark.parametrize(
    ("wanted", "products"),
    [
        (Wanted(hidden=True, weight=True), 3),
        (Wanted(hidden=True), 2),
        (Wanted(weight=True), 2),
        (Wanted(), 0),
    ],
)
@pytest.mark.parametrize("used", [0, 30, 96])
def test_what_is_not_wanted_costs_no_product(multiplied, used, wanted, products):
    product = draw_product(N, D, V)
    targets, _ = draw_case(product)
    upstream = torch.zeros(N)
    upstream[N - used :] = 1.0
    largest, got = gradients_of(product, targets, upstream, wanted)
    assert sum(multiplied) == used * D * V * products
    assert [part is not None for part in got] == list(wanted)
    # The logits would be the largest.
    assert largest < N * V
    if used == 0:
        assert all(part.eq(0).all() for part in got if part is not None)


def test_a_frozen_weight_and_a_low_rank_one_that_is_trained(multiplied):
    product = draw_product(N, D, V, options="lora")
    targets, _ = draw_case(product)
    wanted = Wanted(hidden=True, A=True, B=True)
    _, got = gradients_of(product, targets, torch.ones(N), wanted)
    assert [part is not None for part in got] == list(wanted)
    rank = len(product.lora.A)
    assert sum(multiplied) == N * (2 * D * V + 3 * rank * V + 2 * rank * D)
    want = truth(product, targets, torch.ones(N))
    assert same_bits(got.B, backward(product, targets, torch.ones(N)).B)
    assert max(errors([got.hidden, got.A, got.B], [want[0], *want[3:]])) <= 2e-6


def test_parts_that_are_not_there_have_no_gradient():
    product = draw_product(3, 8, 20)
    targets, _ = draw_case(product)
    got = backward(product, targets, torch.ones(3))
    assert [part is not None for part in got] == [True, True, False, False, False]


@pytest.mark.parametrize("options", ["plain", "all"])
def test_no_rows(options):
    product = draw_product(0, 8, 20, options=options)
    got = backward(product, torch.empty(0, dtype=torch.int64), torch.empty(0))
    for one, part in zip(got, parts_of(product), strict=True):
        assert (one is None) == (part is None)
        assert part is None or (one.shape == part.shape and one.eq(0).all())


def test_the_same_call_gives_the_same_bits(small_blocks):
    product = draw_product(50, 24, 300, options="all")
    targets, _ = draw_case(product)
    upstream = draw_upstream(targets, torch.float32)
    before = [part.clone() for part in parts_of(product)]
    first, again = (backward(product, targets, upstream) for _ in range(2))
    assert same_bits(first, again)
    assert same_bits(parts_of(product), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layouts(small_blocks, dtype):
    product = draw_product(50, 24, 300, dtype, "all")
    targets, _ = draw_case(product)
    upstream = draw_upstream(targets, torch.float32)
    want = backward(product, targets, upstream)

    def sliced(part):
        wide = torch.full([2 * size + 3 for size in part.shape], 1e30, dtype=part.dtype)
        view = wide[tuple(slice(1, 2 * size + 1, 2) for size in part.shape)]
        return view.copy_(part)

    for turned in (sliced, lambda part: part.T.contiguous().T if part.dim() == 2 else part):
        view = with_parts(product, [turned(part) for part in parts_of(product)])
        for one, other in zip(backward(view, targets, upstream), want, strict=True):
            torch.testing.assert_close(one, other, rtol=2**-7, atol=1e-5)
            assert one.is_contiguous()


def test_int32_targets():
    product = draw_product(9, 8, 20)
    targets, _ = draw_case(product)
    upstream = torch.ones(9)
    want = backward(product, targets, upstream)
    assert same_bits(backward(product, targets.int(), upstream)[:2], want[:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neither_threads_nor_other_rows_change_a_gradient(dtype):
    product = draw_product(700, 40, 5000, dtype, "all")
    targets, _ = draw_case(product)
    upstream = draw_upstream(targets, dtype)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = backward(product, targets, upstream)
    finally:
        torch.set_num_threads(threads)
    whole = backward(product, targets, upstream)
    assert same_bits([alone.hidden, alone.weight], [whole.hidden, whole.weight])
    some = slice(33, 58)
    part = product._replace(hidden=product.hidden[some])
    assert same_bits([backward(part, targets[some], upstream[some]).hidden], [whole.hidden[some]])


@pytest.mark.parametrize("surplus", [8.0, 14.0, 30.0])
def test_of_confident_rows_no_less_exact_than_of_stored_logits(surplus):
    # Of 1 - q little is left, and any error of q is much of it.
    product = draw_product(64, 256, 500)
    targets = torch.arange(64)
    weight = product.weight.clone()
    hidden = product.hidden
    weight[:64] += surplus * hidden / hidden.square().sum(1, keepdim=True)
    product = product._replace(weight=weight)
    upstream = torch.ones(64)
    want = truth(product, targets, upstream)

    def stored(made):
        return functional.log_softmax(made.hidden @ made.weight.T, 1)[range(64), targets]

    ours, eager = (
        errors(backward(product, targets, upstream)[:2], want[:2]),
        errors(derived(product, upstream, stored)[:2], want[:2]),
    )
    assert max(ours) <= 2.0 * max(eager)


def test_a_vocabulary_of_one_has_no_gradient():
    product = draw_product(20, 40, 1)
    got = backward(product, torch.zeros(20, dtype=torch.int64), torch.ones(20))
    assert got.hidden.eq(0).all()
    assert got.weight.eq(0).all()
