"""More than 2**31 logits and more than 65,535 rows: every address is a 64-bit one.

Memory that nothing was written to costs nothing, so that few of the rows are real.
"""

import numpy as np
import pytest
import torch

import rskernels

from ..support.bits import same_bits

FAR = 2**30 + 50  # two steps of it are beyond 2**31 elements
N, V = 70_000, 32_000  # 2.24e9 logits
LAW = {"seed": 21, "row_offset": 2**32 - 2}


def untouched(*shape):
    """Return bfloat16 zeros whose pages are not there until they are written."""
    return torch.from_numpy(np.zeros(shape, np.int16)).view(torch.bfloat16)


def spread(values, steps):
    """Return the same bfloat16 values at other steps, each in elements."""
    last = sum((size - 1) * step for size, step in zip(values.shape, steps, strict=True))
    view = untouched(last + 1).as_strided(values.shape, steps)
    return view.copy_(values)


def draw(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).bfloat16()


SPREADS = {
    "rows far apart": ((3, 4100), (FAR, 1)),
    "columns far apart": ((3, 3), (1, FAR)),
    "two leading dimensions": ((2, 3, 20), (2 * FAR, 25, 1)),
}


@pytest.fixture(params=SPREADS)
def far(request):
    """Return logits that span more than 2**31 elements, and the same side by side."""
    shape, steps = SPREADS[request.param]
    near = draw(*shape)
    return spread(near, steps), near


def test_decisions_of_targets(kernel, far):
    logits, near = far
    targets = torch.arange(near.shape[:-1].numel()).view(near.shape[:-1]) % near.shape[-1]
    law = {"M": 1.5, **LAW}
    got = kernel.decide(logits, targets, 1 / near.shape[-1], **law)
    assert same_bits(got, kernel.decide(near, targets, 1 / near.shape[-1], **law))
    mask = kernel.mask(logits, targets, 1 / near.shape[-1], **law)
    assert torch.equal(mask, got.mask)


def test_dense_decisions(kernel, far):
    logits, near = far
    steps = logits.stride()
    density, M = near.float().softmax(-1).bfloat16(), near.abs() + 0.5
    got = kernel.decide(logits, None, spread(density, steps), spread(M, steps), **LAW)
    assert same_bits(got, kernel.decide(near, None, density, M, **LAW))


def test_gradients(kernel, far):
    logits, near = far
    targets = torch.arange(near.shape[:-1].numel()).view(near.shape[:-1]) % near.shape[-1]
    assert same_bits(kernel.log_prob(logits, targets), kernel.log_prob(near, targets))
    upstream = torch.linspace(-1, 1, targets.numel()).view(targets.shape)
    got = kernel.gradient(upstream, logits, targets)
    assert same_bits(got, kernel.gradient(upstream, near, targets))


def test_each_row_as_a_program(gpu, far, monkeypatch):
    # Few rows are a program a chunk.
    monkeypatch.setattr(gpu.launch, "FEW_ROWS", 0)
    test_decisions_of_targets(gpu, far)
    test_gradients(gpu, far)


def test_two_thousand_million_logits():
    logits, targets = untouched(N, V), torch.arange(N) % V
    ends = [0, 1, 65_535, 65_536, 67_108, 67_109, N - 1]  # 2**31 logits end in row 67,108
    logits[ends] = draw(len(ends), V)
    zero = rskernels.target_log_prob(logits[2:3], targets[2:3])
    # Uniform rows are accepted with probability a half.
    density, law = 0.5 / V, {"targets": targets, "seed": 3}
    seen = rskernels.accept(logits, density, 1.0, **law)
    assert torch.equal(rskernels.accept_mask(logits, density, 1.0, **law), seen.mask)
    want = zero.expand(N).clone()
    want[ends] = rskernels.target_log_prob(logits[ends], targets[ends])
    assert same_bits(seen.log_prob, want)
    ratio = torch.where(want == zero, density / zero.double().exp(), density / want.double().exp())
    u = rskernels.uniforms(N, seed=3)
    is_clear = (ratio - u).abs() > 1e-5
    assert is_clear.sum() > N - 100
    assert torch.equal(seen.mask[is_clear], (ratio >= u)[is_clear])
    assert seen.counts[0] == seen.mask.sum()
    for n in ends:
        alone = rskernels.accept(
            logits[n : n + 1], density, 1.0, targets=targets[n : n + 1], seed=3, row_offset=n
        )
        assert same_bits(alone[:3], [part[n : n + 1] for part in seen[:3]])


@pytest.mark.parametrize("form", ["target", "dense"])
def test_four_million_rows(form):
    count = 2**22 + 5
    logits = draw(7, 5).repeat(count // 7 + 1, 1)[:count]
    targets = torch.arange(count) % 5 if form == "target" else None
    law = {"targets": targets, "seed": 3}
    whole = rskernels.accept(logits, 0.1, 1.0, **law)
    for begin in (0, 65_534, 2**22):
        rows = slice(begin, begin + 5)
        part = {**law, "targets": None if targets is None else targets[rows]}
        some = rskernels.accept(logits[rows], 0.1, 1.0, **part, row_offset=begin)
        assert same_bits(some[:3], [one[rows] for one in whole[:3]])


@pytest.mark.large
@pytest.mark.slow
def test_two_thousand_million_decisions():
    logits = draw(1, V).expand(N, V)
    mask = rskernels.accept_mask(logits, 1 / V, 1.5, seed=3)
    for n in (0, 65_535, 65_536, 67_108, 67_109, N - 1):
        alone = rskernels.accept_mask(logits[:1], 1 / V, 1.5, seed=3, row_offset=n)
        assert torch.equal(alone[0], mask[n])


@pytest.mark.large
@pytest.mark.slow
def test_two_thousand_million_slopes():
    logits, targets = draw(1, V).expand(N, V), torch.arange(N) % V
    leaf = logits.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(rskernels.target_log_prob(leaf, targets).sum(), leaf)
    for n in (0, 65_535, 65_536, 67_108, 67_109, N - 1):
        row = logits[:1].clone().requires_grad_()
        rskernels.target_log_prob(row, targets[n : n + 1]).sum().backward()
        assert torch.equal(gradient[n], row.grad[0])
