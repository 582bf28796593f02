"""``target_log_prob`` and its gradient, against float64 torch."""

import math

import pytest
import torch

import rskernels

from ..support.bits import same_bits
from ..support.cases import draw_case, layouts

WIDTHS = [1, 2, 15, 16, 17, 64, 65, 4095, 4096, 4097, 8193]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# Of the gradient's own size; bfloat16 and float16 hold 8 and 11 bits.
GRADIENT_ROUNDING = {
    torch.float32: 1e-5,
    torch.float64: 1e-12,
    torch.bfloat16: 2**-8,
    torch.float16: 2**-10,
}


def truth(logits, targets, temperature=1.0):
    leaf = logits.detach().double().requires_grad_()
    log_q = torch.log_softmax(leaf / temperature, -1)
    return leaf, log_q.gather(-1, targets[..., None].long())[..., 0]


def assert_gradient(kernel, got, want, dtype, exponents=1.0):
    assert got.dtype == dtype
    assert got.shape == want.shape
    rounding = GRADIENT_ROUNDING[dtype]
    if kernel.is_slow and dtype == torch.bfloat16:
        # Triton's interpreter truncates to bfloat16; a device rounds.
        rounding *= 2
    # An exponential is as exact as the size of its exponent allows.
    rounding += 1e-7 * exponents if dtype != torch.float64 else 0.0
    # float16 rounds what is below its normal numbers to their fixed spacing.
    floor = 2**-24 if dtype == torch.float16 else 1e-12
    worst = ((got.double() - want).abs() - rounding * want.abs()).max()
    assert worst <= floor, worst


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", WIDTHS)
def test_every_width_and_dtype(kernel, V, dtype):
    logits, targets, _ = draw_case((kernel.rows(9), V), dtype, seed=V)
    leaf, want = truth(logits, targets)
    got = kernel.log_prob(logits, targets)
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(got.double(), want.detach(), rtol=0, atol=tolerance)
    assert (got <= 0).all()

    upstream = torch.randn(got.shape, generator=torch.Generator().manual_seed(1)).to(got.dtype)
    (want_gradient,) = torch.autograd.grad(want, leaf, upstream.double())
    assert_gradient(kernel, kernel.gradient(upstream, logits, targets), want_gradient, dtype)


@pytest.mark.parametrize("temperature", [0.05, 0.7, 20.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_temperatures(kernel, dtype, temperature):
    logits, targets, _ = draw_case((4, 100), dtype)
    leaf, want = truth(logits, targets, temperature)
    got = kernel.log_prob(logits, targets, temperature)
    torch.testing.assert_close(got.double(), want.detach(), rtol=1e-6, atol=1e-5)
    upstream = torch.ones_like(got)
    (want_gradient,) = torch.autograd.grad(want, leaf, upstream.double())
    gradient = kernel.gradient(upstream, logits, targets, temperature)
    assert_gradient(kernel, gradient, want_gradient, dtype, exponents=20 / temperature)


def test_not_less_exact_than_torch_in_the_same_dtype(kernel):
    logits, targets, _ = draw_case((4, 8193))
    want = truth(logits, targets)[1].detach()
    same = torch.log_softmax(logits, -1).gather(-1, targets[..., None])[..., 0]
    error = (kernel.log_prob(logits, targets).double() - want).abs().max()
    assert error <= 2 * (same.double() - want).abs().max() + 1e-6


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 3), (2, 0, 3)])
@pytest.mark.parametrize("layout", ["sliced", "stepped", "transposed"])
def test_leading_shapes_and_layouts(kernel, shape, layout):
    logits, targets, _ = draw_case((*shape, 37))
    want = kernel.log_prob(logits, targets)
    upstream = torch.linspace(-1, 1, max(targets.numel(), 1))[: targets.numel()].view(shape)
    slopes = kernel.gradient(upstream, logits, targets)
    assert want.shape == shape
    assert slopes.shape == logits.shape
    torch.testing.assert_close(want.double(), truth(logits, targets)[1].detach(), rtol=0, atol=1e-5)
    view = getattr(layouts(logits), layout)
    assert same_bits(kernel.log_prob(view, targets), want)
    assert same_bits(kernel.gradient(upstream, view, targets), slopes)


def test_ignored_rows_give_0_and_no_gradient(backend):
    logits = torch.randn(4, 5)
    logits[1] = math.nan
    targets = torch.tensor([0, -1, 2, -1])
    got = backend.log_prob(logits, targets, ignore_index=-1)
    assert got[[1, 3]].tolist() == [0.0, 0.0]
    assert (got[[0, 2]] < 0).all()
    # ignore_index may also be a class.
    assert backend.log_prob(logits, torch.tensor([0, 3, 2, 3]), ignore_index=3)[3] == 0
    if backend.name != "reference":
        gradient = backend.gradient(torch.ones(4), logits, targets, ignore_index=-1)
        assert gradient[[1, 3]].eq(0).all()
        assert gradient[[0, 2]].isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 17, 4095, 4096])
def test_a_bad_row_is_nan_and_its_neighbours_are_as_before(kernel, bad, at):
    logits, targets, _ = draw_case((3, 4097))
    upstream = torch.tensor([1.0, 2.0, 3.0])
    before = kernel.log_prob(logits, targets), kernel.gradient(upstream, logits, targets)
    logits[1, at] = bad
    after = kernel.log_prob(logits, targets), kernel.gradient(upstream, logits, targets)
    assert after[0][1].isnan()
    assert same_bits([t[::2] for t in after], [t[::2] for t in before])


def test_a_row_of_only_minus_inf_gives_nan(backend):
    logits = torch.zeros(3, 20)
    logits[1] = -math.inf
    got = backend.log_prob(logits, torch.zeros(3, dtype=torch.int64))
    assert got.isnan().tolist() == [False, True, False]


def test_minus_inf_classes_have_no_gradient(kernel):
    logits = torch.zeros(2, 20)
    logits[:, 5:] = -math.inf
    targets = torch.tensor([0, 7])
    got = kernel.log_prob(logits, targets)
    assert got.tolist() == [pytest.approx(-math.log(5)), -math.inf]
    gradient = kernel.gradient(torch.ones(2), logits, targets)
    assert gradient[0].tolist() == pytest.approx([0.8] + [-0.2] * 4 + [0.0] * 15)


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_autograd(layout):
    logits, targets, _ = draw_case((3, 4, 7), torch.float64)
    if layout == "transposed":
        logits = logits.transpose(0, 2).contiguous().transpose(0, 2)
    logits.requires_grad_()
    targets[0, 1] = -100
    assert torch.autograd.gradcheck(
        lambda z: rskernels.target_log_prob(z, targets, temperature=0.6), logits
    )


def test_autograd_through_sums_and_products():
    logits, targets, _ = draw_case((6, 50))
    logits.requires_grad_()
    before = logits.detach().clone()
    weights = torch.tensor([0.0, 1.0, 2.0, 0.0, -1.0, 0.5])
    # An expanded upstream, then a product's: one pass each.
    rskernels.target_log_prob(logits, targets).sum().backward()
    (weights * rskernels.target_log_prob(logits, targets)).sum().backward()
    leaf, want = truth(logits, targets)
    ((1 + weights) * want).sum().backward()
    torch.testing.assert_close(logits.grad.double(), leaf.grad, rtol=1e-5, atol=1e-6)
    assert torch.equal(logits.detach(), before)


def test_backward_twice_gives_the_same_and_changes_nothing():
    logits, targets, _ = draw_case((6, 50))
    logits.requires_grad_()
    upstream = torch.arange(6.0)
    log_prob = rskernels.target_log_prob(logits, targets)
    first = torch.autograd.grad(log_prob, logits, upstream, retain_graph=True)[0]
    kept = first.clone()
    second = torch.autograd.grad(log_prob, logits, upstream)[0]
    assert same_bits(first, second)
    assert same_bits(first, kept)
    assert upstream.tolist() == [0, 1, 2, 3, 4, 5]


def test_rejected_rows_leave_no_trace_in_the_gradient():
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    logits[1, 3] = math.nan
    logits.requires_grad_()
    targets = torch.tensor([1, 2, 3, 4])
    mask = rskernels.accept_mask(logits, 1.0, 1.0, targets=targets, seed=0)
    assert mask.tolist() == [True, False, True, True]
    kept = torch.where(mask, rskernels.target_log_prob(logits, targets), 0.0)
    kept.sum().backward()
    assert logits.grad[[0, 2, 3]].isfinite().all()
    assert logits.grad[1].eq(0).all()


def test_float16_logits_train_in_their_dtype():
    linear = torch.nn.Linear(8, 5).to(torch.bfloat16)
    inputs = torch.randn(6, 8, dtype=torch.bfloat16)
    loss = -rskernels.target_log_prob(linear(inputs), torch.arange(6) % 5).mean()
    loss.backward()
    assert loss.dtype == torch.float32
    assert linear.weight.grad.dtype == torch.bfloat16
    assert linear.weight.grad.isfinite().all()


def test_second_derivatives_are_refused():
    # Better no answer than one that leaves out a term.
    logits = torch.randn(3, 5, requires_grad=True)
    log_prob = rskernels.target_log_prob(logits, torch.tensor([0, 1, 2]))
    (gradient,) = torch.autograd.grad(log_prob.sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError):
        (gradient.square().sum() + logits.square().sum()).backward()


def test_forward_mode_is_right_or_refused():
    logits, tangent = torch.randn(3, 5), torch.randn(3, 5)
    targets = torch.tensor([0, 1, 2])

    def through(function):
        return torch.func.jvp(function, (logits,), (tangent,))[1]

    want = through(lambda z: z.log_softmax(-1).gather(-1, targets[:, None])[:, 0])
    try:
        got = through(lambda z: rskernels.target_log_prob(z, targets))
    except (RuntimeError, NotImplementedError):
        return
    torch.testing.assert_close(got, want)


def second(logits, targets):
    (gradient,) = torch.autograd.grad(
        rskernels.target_log_prob(logits, targets).sum(), logits, create_graph=True
    )
    return torch.autograd.grad(gradient.square().sum(), logits)


def forward_mode(logits, targets):
    call = lambda z: rskernels.target_log_prob(z, targets)  # noqa: E731
    return torch.func.jvp(call, (logits.detach(),), (torch.ones_like(logits),))


def vmapped(logits, targets):
    return torch.func.vmap(rskernels.target_log_prob)(logits[None], targets[None])


@pytest.mark.parametrize(
    ("derivative", "message"),
    [
        (second, "no second derivative"),
        (forward_mode, "no forward-mode derivative"),
        (vmapped, "have no vmap"),
    ],
)
def test_what_is_not_offered_raises(derivative, message):
    logits = torch.randn(4, 9, requires_grad=True)
    with pytest.raises(NotImplementedError, match=message):
        derivative(logits, torch.tensor([1, 2, 3, 4]))
