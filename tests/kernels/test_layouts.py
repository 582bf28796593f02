"""Layouts that need more than two strides, and empty ones, decide as contiguous tensors do."""

import pytest
import torch

import rskernels

from ..support.bits import same_bits


def many_strides():
    """Return logits [4, 5, 6, 300] whose leading dimensions do not merge, and targets."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, 4, 300, generator=generator).transpose(0, 2)
    return logits, torch.randint(300, (4, 5, 6), generator=generator)


@pytest.mark.parametrize("repeat", range(5))  # memory freed too early is not always reused
@pytest.mark.parametrize("form", ["target", "dense"])
def test_four_dimensions(form, repeat):
    logits, targets = many_strides()
    law = {"targets": targets if form == "target" else None, "seed": 3}
    want = rskernels.accept(logits.contiguous(), 1 / 300, 1.5, **law)
    assert same_bits(rskernels.accept(logits, 1 / 300, 1.5, **law), want)
    assert torch.equal(rskernels.accept_mask(logits, 1 / 300, 1.5, **law), want.mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_density_and_an_M_that_are_expanded(kernel, dtype):
    N, V = kernel.rows(60, slow=6), 40
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(N, V, generator=generator).to(dtype)
    p, M = (torch.rand(N, 1, generator=generator) for _ in range(2))
    apart = [value.expand(N, V).contiguous() for value in (p, M)]
    want = kernel.decide(logits, None, *apart)
    for values in ((p, M), (p.expand(N, V), M.expand(N, V)), (apart[0], M), (p, apart[1])):
        assert same_bits(kernel.decide(logits, None, *values), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("V", [1, 40])
def test_a_density_and_an_M_that_all_rows_share(kernel, V, dtype):
    # Logarithms that are taken once have the bits of those that each row takes.
    N = kernel.rows(60, slow=6)
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(N, V, generator=generator).to(dtype)
    p, M = torch.rand(2, V, generator=generator)
    p[1::5], p[2::5] = 0.0, 1e-40
    want = kernel.decide(logits, None, *(value.expand(N, V).contiguous() for value in (p, M)))
    for values in ((p, M), (p[None], M), (p, M.expand(N, V).contiguous())):
        assert same_bits(kernel.decide(logits, None, *values), want)
    for n in (0, N - 1):
        alone = kernel.decide(logits[n : n + 1], None, p, M, row_offset=n)
        assert same_bits(alone[:3], [part[n : n + 1] for part in want[:3]])


def test_the_gradient_of_four_dimensions():
    logits, targets = many_strides()
    gradients = []
    for leaf in (logits, logits.contiguous()):
        leaf = leaf.detach().requires_grad_()
        rskernels.target_log_prob(leaf, targets).square().sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize(
    "logits",
    [
        torch.zeros(0, 4, 3, 7),
        torch.zeros(4, 3, 6, 7).transpose(0, 2)[:0],
        torch.zeros(6, 7).as_strided((0, 5, 3, 7), (1, 2, 3, 4)),
    ],
)
def test_no_rows(logits):
    targets = torch.zeros(logits.shape[:-1], dtype=torch.int64)
    M = torch.rand(1, logits.shape[1], 1)
    assert rskernels.accept_mask(logits, 0.1, M[..., None]).shape == logits.shape
    assert rskernels.accept_mask(logits, 0.1, M, targets=targets).shape == targets.shape
    assert rskernels.target_log_prob(logits, targets).shape == targets.shape
    with pytest.raises(ValueError, match="no valid ratio"):
        rskernels.estimate_M(logits, 0.1, targets=targets)


def test_a_maximum_far_above_the_first_logits_is_not_rounded_more():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 9000, generator=generator)
    for column, shift in ((20, 39.0), (5000, 30.0), (8999, 8.0)):
        shifted = logits.clone()
        shifted[:, column] += shift
        targets = torch.full((200,), column)
        got = rskernels.target_log_prob(shifted, targets).double()
        want = shifted.double().log_softmax(-1)[:, column]
        assert (got - want).abs().max() < 1e-6 * (1 + want.abs().max())
