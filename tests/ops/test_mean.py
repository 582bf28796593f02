"""The mean over accepted rows: never NaN, and right in value and gradient."""

import math

import pytest
import torch

import rskernels

MASK = torch.tensor([True, False, True, False])
SPOILT = [1.0, math.nan, 3.0, math.inf]


def losses(values=SPOILT, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def expected(loss, mask, weights=None):
    """Return the mean by indexing, in float64."""
    kept = loss.double()[mask]
    return kept.mean() if weights is None else (kept * weights[mask].softmax(0)).sum()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_what_rejected_rows_hold_is_not_read(dtype):
    loss = losses(dtype=dtype)
    mean = rskernels.accepted_mean(loss, MASK)
    mean.backward()
    assert mean.dtype == torch.promote_types(dtype, torch.float32)
    assert mean == 2
    assert loss.grad.tolist() == [0.5, 0, 0.5, 0]


@pytest.mark.parametrize("weights", [None, torch.ones(4), torch.full((4,), math.nan)])
def test_nothing_accepted_is_0_and_moves_no_parameter(weights):
    loss = losses()
    mean = rskernels.accepted_mean(loss, torch.zeros(4, dtype=torch.bool), weights)
    mean.backward()
    assert mean == 0
    assert loss.grad.tolist() == [0, 0, 0, 0]
    loss = losses()
    rskernels.accepted_mean(loss, MASK, torch.zeros(4)).backward()
    assert loss.grad.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("dtype", "log_scale"),
    [(torch.float32, scale) for scale in (-80.0, 0.0, 85.0)]
    + [(torch.float64, scale) for scale in (-690.0, -138.0, 0.0, 690.0)],  # to 1e-300 and 1e300
)
@pytest.mark.parametrize("of", [torch.float32, torch.float64])
def test_weights_are_relative_whatever_their_scale(dtype, log_scale, of):
    generator = torch.Generator().manual_seed(0)
    loss, log_weights = torch.randn(2, 64, generator=generator).to(of).unbind()
    mask = torch.rand(64, generator=generator) < 0.5
    weights = (log_weights.double() + log_scale).exp().to(dtype)
    loss.requires_grad_()
    mean = rskernels.accepted_mean(loss, mask, weights.where(mask, math.nan))
    torch.testing.assert_close(mean.double(), expected(loss, mask, log_weights.double()))
    [gradient] = torch.autograd.grad(mean, loss)
    [wanted] = torch.autograd.grad(expected(loss, mask, log_weights.double()), loss)
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wrong", [-1.0, -math.inf, math.inf, math.nan])
def test_a_weight_that_is_none_makes_the_mean_nan_unless_its_row_is_rejected(wrong, dtype):
    weights = torch.tensor([wrong, 1.0, 2.0, 3.0], dtype=dtype)
    loss = losses([1.0, 2.0, 3.0, 4.0])
    mean = rskernels.accepted_mean(loss, MASK, weights)
    mean.backward()
    assert mean.isnan()
    assert loss.grad.isnan().tolist() == MASK.tolist()
    assert rskernels.accepted_mean(loss, MASK, weights.flip(0)).isfinite()
    # A sum of at least 0 does not hide it.
    assert rskernels.accepted_mean(loss, MASK, weights.fill_(wrong)).isnan()


def test_a_row_of_weight_0_is_as_one_that_was_rejected():
    loss = losses()
    mean = rskernels.accepted_mean(loss, torch.ones(4).bool(), torch.tensor([1.0, 0.0, 3.0, 0.0]))
    mean.backward()
    assert mean == 2.5
    assert loss.grad.tolist() == [0.25, 0, 0.75, 0]


def test_sums_are_wider_than_the_losses():
    everything = torch.ones(10_000, dtype=torch.bool)
    bfloat16 = torch.full((10_000,), 1.0, dtype=torch.bfloat16)  # its sum ends at 256
    assert rskernels.accepted_mean(bfloat16, everything).item() == pytest.approx(1, rel=1e-5)
    float16 = torch.full((10_000,), 6e4, dtype=torch.float16)  # its sum is infinite
    assert rskernels.accepted_mean(float16, everything).item() == pytest.approx(6e4, rel=1e-3)
    large = torch.full((10_000,), 3e38)
    assert rskernels.accepted_mean(large, everything).item() == pytest.approx(3e38, rel=1e-4)


def test_any_shape():
    assert rskernels.accepted_mean(torch.tensor(2.0), torch.tensor(True)) == 2
    nothing = torch.zeros(0, 3, requires_grad=True)
    rskernels.accepted_mean(nothing, nothing.bool(), nothing.detach()).backward()
    sheet = torch.arange(6.0).view(2, 3)
    assert rskernels.accepted_mean(sheet, sheet > 3) == 4.5


def test_invalid_rows_leave_no_trace_in_the_gradient_of_the_logits():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    logits[1, 2], logits[2, 3] = math.nan, math.inf
    logits.requires_grad_()
    targets = torch.arange(4)
    mask = rskernels.accept_mask(logits, 0.2, 0.01, targets=targets, seed=1)
    assert mask.tolist() == [True, False, False, True]
    loss = rskernels.accepted_mean(-rskernels.target_log_prob(logits, targets), mask)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad[mask].ne(0).all()
    assert logits.grad[~mask].eq(0).all()


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 3.0, 4.0])])
def test_it_compiles_whole_and_maps(weights):
    torch._dynamo.reset()
    arguments = (losses(), MASK) if weights is None else (losses(), MASK, weights)
    fast = torch.compile(rskernels.accepted_mean, fullgraph=True, backend="aot_eager")
    mean, want = fast(*arguments), rskernels.accepted_mean(*arguments)
    assert torch.equal(mean, want)
    [gradient] = torch.autograd.grad(mean, arguments[0])
    assert torch.equal(gradient, torch.autograd.grad(want, arguments[0])[0])
    many = [torch.stack([a.detach(), a.detach().flip(0)]) for a in arguments]
    each = torch.stack([rskernels.accepted_mean(*rows) for rows in zip(*many, strict=True)])
    assert torch.equal(torch.func.vmap(rskernels.accepted_mean)(*many), each)
    torch._dynamo.reset()


def test_autocast_does_not_narrow_it():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = torch.nn.Linear(3, 4)(torch.ones(3))  # bfloat16
        mean = rskernels.accepted_mean(loss, MASK)
    assert (loss.dtype, mean.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], MASK), TypeError, "loss must be a torch.Tensor, got list"),
        (
            (torch.ones(4).long(), MASK),
            TypeError,
            "loss must be float32.* or float16, got torch.int64",
        ),
        ((torch.ones(4), torch.ones(4)), TypeError, "mask must be bool, got torch.float32"),
        ((torch.ones(2, 4), MASK), ValueError, r"shape of the loss, \[2, 4\], got \[4\]"),
        ((torch.ones(4), MASK, MASK), TypeError, r"weights must be float32.*, got torch.bool"),
        ((torch.ones(4).to(torch.float8_e4m3fn), MASK), TypeError, "loss must be .*got .*float8"),
        ((torch.ones(4), MASK, torch.ones(4).to(torch.float8_e5m2)), TypeError, "weights must be"),
        ((torch.ones(4).to_sparse(), MASK), TypeError, "loss must be a strided tensor"),
        ((torch.ones(4), MASK.to_sparse()), TypeError, "mask must be a strided tensor"),
        ((torch.ones(4), MASK, torch.ones(1)), ValueError, r"weights must have the shape"),
        ((torch.ones(4), MASK.to("meta")), ValueError, "mask is on meta, the loss on cpu"),
    ],
)
def test_errors_say_what_is_accepted(arguments, error, message):
    with pytest.raises(error, match=message):
        rskernels.accepted_mean(*arguments)


def test_a_masked_tensor_is_refused():
    with pytest.warns(UserWarning, match="prototype"):
        masked = torch.masked.masked_tensor(torch.ones(4), MASK)
    with pytest.raises(TypeError, match=r"loss is a MaskedTensor.* leave rows out by the mask"):
        rskernels.accepted_mean(masked, MASK)
    with pytest.raises(TypeError, match="weights is a MaskedTensor"):
        rskernels.accepted_mean(torch.ones(4), MASK, masked)


TOKENS = torch.tensor([[1.0, math.nan, 3.0], [math.inf, 1.0, 5.0]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dim", [None, -1, 0, (0, 1)])
def test_a_mean_over_a_mask(dim, dtype):
    values = TOKENS.to(dtype, copy=True).requires_grad_()
    mask = torch.tensor([[True, False, True], [False, False, True]])
    mean = rskernels.masked_mean(values, mask, dim)
    mean.sum().backward()
    want = {None: 3.0, -1: [2.0, 5.0], 0: [1.0, 0.0, 4.0], (0, 1): 3.0}[dim]
    assert mean.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(mean, torch.tensor(want, dtype=mean.dtype))
    assert (values.grad[~mask] == 0).all()
    assert (values.grad[mask] > 0).all()


@pytest.mark.parametrize("dim", [None, -1])
def test_a_mean_over_an_empty_mask_is_0(dim):
    values = TOKENS.clone().requires_grad_()
    mean = rskernels.masked_mean(values, torch.zeros(2, 3).bool(), dim)
    mean.sum().backward()
    assert (mean == 0).all()
    assert (values.grad == 0).all()


def test_a_mask_broadcasts():
    mask = torch.tensor([[False], [True]])
    values = torch.tensor([[math.nan, math.inf], [1.0, 3.0]])
    assert rskernels.masked_mean(values, mask) == 2
    assert rskernels.masked_mean(values, mask, -1).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("values", "mask", "error", "message"),
    [
        (torch.ones(2), torch.ones(3).bool(), ValueError, "mask must broadcast"),
        (torch.ones(2), torch.ones(2, 2).bool(), ValueError, "mask must broadcast"),
        (torch.ones(2), torch.ones(2), TypeError, "mask must be bool"),
        (torch.ones(2).int(), torch.ones(2).bool(), TypeError, "values must be"),
        (1.0, torch.ones(2).bool(), TypeError, "values must be"),
    ],
)
def test_what_a_mean_over_a_mask_refuses(values, mask, error, message):
    with pytest.raises(error, match=message):
        rskernels.masked_mean(values, mask)


def test_no_sum_overflows_where_the_mean_does_not():
    values, mask = torch.full((4, 2), 3e38), torch.ones(4, 2, dtype=torch.bool)
    for dim in (None, 0, (0, 1)):
        mean = rskernels.masked_mean(values, mask, dim)
        torch.testing.assert_close(mean, torch.full_like(mean, 3e38))
