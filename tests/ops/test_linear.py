"""``LinearLogits``: what it takes and refuses, and the operations that take it for logits."""

import math

import pytest
import torch
from torch.masked import masked_tensor

import rskernels
from rskernels import ColumnOrder, LinearLogits

from ..support.bits import same_bits
from ..support.processes import run_python

DECIDERS = [rskernels.accept_mask, rskernels.accept, rskernels.verify_mask, rskernels.verify]
H, W = torch.zeros(2, 3, 8), torch.zeros(40, 8)


def draw(D=16, V=300):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 20, D, generator=generator)
    weight = torch.nn.Parameter(torch.randn(V, D, generator=generator) * 0.5)
    targets = torch.randint(V, (2, 20), generator=generator)
    return hidden, weight, targets


@pytest.mark.parametrize("function", DECIDERS)
def test_decides_as_about_the_logits(function):
    hidden, weight, targets = draw()
    bias = torch.linspace(-1.0, 1.0, 300)
    A, B = torch.full((2, 16), 0.1), torch.linspace(-1.0, 1.0, 600).view(300, 2)
    z = LinearLogits(hidden, weight, bias, scale=0.8, softcap=5.0, lora=(A, B, 0.5))
    x = 0.8 * (hidden @ weight.T + 0.5 * (hidden @ A.T) @ B.T) + bias
    logits = 5.0 * torch.tanh(x / 5.0)
    assert z.shape == logits.shape
    law = {"targets": targets, "temperature": 0.7, "seed": 4, "row_offset": 9}
    got, want = function(z, 1 / 300, 1.5, **law), function(logits, 1 / 300, 1.5, **law)
    if isinstance(got, torch.Tensor):
        assert torch.equal(got, want)
        assert got.any()
        return
    assert torch.equal(got.mask, want.mask)
    assert torch.equal(got.counts, want.counts)
    torch.testing.assert_close(got.log_prob, want.log_prob, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got.log_ratio, want.log_ratio, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got.excess, want.excess, rtol=1e-5, atol=1e-6)
    assert got.log_prob.requires_grad == want.log_prob.requires_grad
    assert not got.log_ratio.requires_grad


def test_log_prob_and_M_are_those_of_the_logits():
    hidden, weight, targets = draw()
    logits, z = hidden @ weight.detach().T, LinearLogits(hidden, weight.detach())
    targets[0, 3] = -100
    T = torch.linspace(0.5, 2.0, 20)
    got = rskernels.target_log_prob(z, targets, temperature=T)
    want = rskernels.target_log_prob(logits, targets, temperature=T)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    for options in ({}, {"method": "quantile", "level": 0.8}, {"log_space": True}):
        p_hat = -5.0 if options.get("log_space") else 0.01
        got = rskernels.estimate_M(z, p_hat, targets=targets, **options)
        want = rskernels.estimate_M(logits, p_hat, targets=targets, **options)
        assert math.isclose(got, want, rel_tol=1e-5)


def test_a_seed_is_drawn_and_an_order_taken():
    hidden, weight, targets = draw(V=2100)
    z = LinearLogits(hidden, weight)
    torch.manual_seed(5)
    first, second = (rskernels.verify_mask(z, 1e-4, targets=targets) for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(rskernels.verify_mask(z, 1e-4, targets=targets), first)
    order = ColumnOrder(torch.tensor([2, 0, 1]), 2100)
    law = {"targets": targets, "seed": 3}
    ordered = rskernels.verify_mask(z, 1e-4, order=order, **law)
    assert torch.equal(ordered, rskernels.verify_mask(z, 1e-4, **law))
    with pytest.raises(ValueError, match="order is of 2000 columns, the logits have 2100"):
        rskernels.verify_mask(z, 1e-4, order=ColumnOrder(torch.tensor([1, 0]), 2000), **law)


@pytest.mark.parametrize("function", DECIDERS)
def test_the_dense_form_is_refused(function):
    with pytest.raises(ValueError, match="LinearLogits need targets: the dense form decides"):
        function(LinearLogits(H, W), 0.1, 1.0, targets=None)


def test_M_of_entries_is_refused():
    with pytest.raises(ValueError, match="LinearLogits need targets: the dense form decides"):
        rskernels.estimate_M(LinearLogits(H, W), 0.1)


@pytest.mark.parametrize("function", DECIDERS)
def test_targets_outside_raise(function):
    targets = torch.zeros(2, 3, dtype=torch.int64)
    targets[1, 2] = 40
    with pytest.raises(IndexError, match=r"targets must be in \[0, 40\) .* got 40 in row 5"):
        function(LinearLogits(H, W), 0.1, 1.0, targets=targets)
    targets[1, 2] = -5
    result = function(LinearLogits(H, W), 1.0, 1.0, targets=targets, ignore_index=-5)
    if not isinstance(result, torch.Tensor):
        assert result.counts[3] == 1
        assert result.log_prob[1, 2].isnan()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LinearLogits([1.0], W), TypeError, "hidden must be a torch.Tensor, got list"),
        (
            lambda: LinearLogits(H.long(), W),
            TypeError,
            "hidden must be float32, .* got torch.int64",
        ),
        (lambda: LinearLogits(H[0, 0, 0], W), ValueError, r"shape \[..., D\] with D .* got \[\]"),
        (lambda: LinearLogits(H[..., :0], W), ValueError, r"D of at least 1, got \[2, 3, 0\]"),
        (lambda: LinearLogits(H, None), TypeError, "weight must be a torch.Tensor, got NoneType"),
        (lambda: LinearLogits(H, W.double()), TypeError, "weight is torch.float64, hidden torch"),
        (lambda: LinearLogits(H, W.T), ValueError, r"weight must have shape \[V, 8\], got \[8, 40"),
        (lambda: LinearLogits(H, W[:0]), ValueError, r"weight must have shape \[V, 8\], got \[0"),
        (lambda: LinearLogits(H, W.to("meta")), ValueError, "weight is on meta, hidden on cpu"),
        (lambda: LinearLogits(H, W, W), ValueError, r"bias must have shape \[40\], got \[40, 8\]"),
        (lambda: LinearLogits(H, W, 1.0), TypeError, "bias must be a torch.Tensor, got float"),
        (lambda: LinearLogits(H, W, scale=math.nan), ValueError, "scale must be finite, got nan"),
        (lambda: LinearLogits(H, W, scale=None), TypeError, "scale must be a number, got NoneType"),
        (lambda: LinearLogits(H, W, softcap=0.0), ValueError, "softcap must be above 0 or None"),
        (lambda: LinearLogits(H, W, softcap=math.inf), ValueError, "softcap must be finite"),
        (
            lambda: LinearLogits(H, W, softcap=1e39),
            ValueError,
            r"softcap must be of a size in \[1.1755e-38, 3.4028e\+38\], the normal numbers of "
            r"torch.float32, in which sums are made for torch.float32 hidden, got 1e\+39",
        ),
        (lambda: LinearLogits(H, W, softcap=1e-46), ValueError, "softcap must be of .* got 1e-46"),
        (lambda: LinearLogits(H, W, scale=-1e39), ValueError, r"scale must be of .* got -1e\+39"),
        (
            lambda: LinearLogits(H.bfloat16(), W.bfloat16(), scale=1e-40),
            ValueError,
            "scale must be of .* for torch.bfloat16 hidden, got 1e-40",
        ),
        (
            lambda: LinearLogits(H.double(), W.double(), softcap=1e-310),
            ValueError,
            "softcap must be of .* the normal numbers of torch.float64.* got 1e-310",
        ),
        (
            lambda: LinearLogits(H, W, lora=(W[:2], W[:, :2], 1e39)),
            ValueError,
            r"s of lora must be of .* got 1e\+39",
        ),
        (lambda: LinearLogits(H, W, lora=[1]), TypeError, r"tuple of \(A, B, s\) .* got list"),
        (lambda: LinearLogits(H, W, lora=(W, W)), TypeError, "got 2 of them"),
        (
            lambda: LinearLogits(H, W, lora=(W.T, W, 1.0)),
            ValueError,
            r"A of lora must have shape \[r, 8\], got \[8, 40\]",
        ),
        (
            lambda: LinearLogits(H, W, lora=(W[:2], W, 1.0)),
            ValueError,
            r"B of lora must have shape \[40, 2\], got \[40, 8\]",
        ),
        (
            lambda: LinearLogits(H, W, lora=(W[:2], W[:, :2], math.inf)),
            ValueError,
            "s of lora must be finite, got inf",
        ),
        (
            lambda: LinearLogits(masked_tensor(H, H == 0), W),
            TypeError,
            "hidden is a MaskedTensor, whose mask would be lost",
        ),
    ],
)
def test_parts_that_do_not_fit(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_of_any_size_that_sums_can_hold(dtype):
    hidden, weight, targets = draw()
    hidden, weight = hidden.to(dtype), weight.detach().to(dtype)
    product, most = hidden @ weight.T, 1e39 if dtype == torch.float64 else 3.4e38
    for logits, numbers in (
        (product * 0.0, {"scale": 0.0}),
        (product * -0.7, {"scale": -0.7}),
        (product * 1.2e-38, {"scale": 1.2e-38}),
        (product, {"softcap": most}),
        (product * 0.0, {"softcap": 1.2e-38}),
    ):
        got = rskernels.target_log_prob(LinearLogits(hidden, weight, **numbers), targets)
        want = rskernels.target_log_prob(logits, targets)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_it_says_what_it_is():
    z = LinearLogits(H, W, lora=(torch.zeros(2, 8), torch.zeros(40, 2), 1.0))
    assert repr(z) == (
        "LinearLogits(hidden [2, 3, 8], weight [40, 8], A [2, 8], B [40, 2], torch.float32, "
        "device=cpu)"
    )
    with pytest.raises(AttributeError):
        z.scale = 2.0


def test_hidden_states_of_any_strides():
    hidden, weight, targets = draw()
    law = {"targets": targets, "seed": 1}
    want = rskernels.accept(LinearLogits(hidden, weight), 0.01, 1.0, **law)
    moved = hidden.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert moved.stride() != hidden.stride()
    assert same_bits(rskernels.accept(LinearLogits(moved, weight), 0.01, 1.0, **law), want)
    negative = torch._neg_view(-hidden)
    assert same_bits(rskernels.accept(LinearLogits(negative, weight), 0.01, 1.0, **law), want)


MEMORY = """
import resource, torch
import rskernels

dtype = getattr(torch, {dtype!r})
V, N = 60_000, 2048
hidden, weight = torch.zeros(N, 64, dtype=dtype), torch.zeros(V, 64, dtype=dtype)
targets = torch.full((N,), V - 1)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def call(hidden, weight, targets):
    z = rskernels.LinearLogits(hidden, weight)
    rskernels.accept(z, 1e-5, 1.0, targets=targets)
    rskernels.verify_mask(z, 1e-5, targets=targets)
    rskernels.target_log_prob(z, targets)

# Of one thing each: what is loaded, compiled and set up counts before.
call(hidden[:600], weight[:4000], targets[:600] * 0)
before = peak()
call(hidden, weight, targets)
print(peak() - before)
"""


@pytest.mark.process
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_tensor_of_the_size_of_the_logits(dtype):
    # The logits are 480 MB; a tile of them is 4 MiB.
    assert int(run_python(MEMORY.format(dtype=dtype))) < 24 * 1024


FORK = """
import os, signal, torch
import rskernels

torch.set_num_threads(2)
generator = torch.Generator().manual_seed(0)
draw = lambda *shape: torch.randn(*shape, generator=generator)
z, targets = rskernels.LinearLogits(draw(600, 64), draw(5000, 64)), torch.arange(600)

def decide():
    return rskernels.accept_mask(z, 1e-4, 2.0, targets=targets, seed=1)

want = decide()  # by threads that a child has not
if (child := os.fork()) == 0:
    signal.alarm(60)
    torch.set_num_threads(1)
    os._exit(not torch.equal(decide(), want))
print(want.any().item(), os.waitpid(child, 0)[1])
"""


@pytest.mark.process
def test_a_child_of_fork_decides_on_one_thread():
    assert run_python(FORK).split() == ["True", "0"]
