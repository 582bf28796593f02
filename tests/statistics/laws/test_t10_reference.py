"""T10: a kernel's decisions are the float64 reference's, on the same uniforms."""

import pytest
import torch

import rskernels
from rskernels.kernels import reference
from rskernels.law.decision import Law

from ..intervals import assert_inside, flips

LOG_M = 0.3
LARGEST_EXPECTED = 4.0  # flips
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def check_flips(subject, seed, form="target", dtype=torch.float32, shape=(10_000, 50)):
    """Sensitive to the rounding of log q, log u and log M together."""
    N, V = shape
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(N, V, generator=generator)).to(dtype)
    log_q = reference.log_softmax(logits, 1.0)[0]
    targets = torch.randint(V, (N,), generator=generator) if form == "target" else None
    if form == "target":
        log_q = log_q.gather(-1, targets[:, None])[:, 0]
    log_p = log_q - torch.rand(log_q.shape, generator=generator, dtype=torch.float64)
    got = subject.decide(logits, targets, log_p, LOG_M, seed=seed, log_space=True)
    law = Law(log_p, LOG_M, seed, log_space=True)
    mask, _, log_ratio, _, _ = reference.decide(logits, targets, law)
    r, r_hat = ((seen.double() - LOG_M).exp().clamp(max=1) for seen in (got.log_ratio, log_ratio))
    flipped = got.mask != mask
    expected = (r - r_hat).abs().sum().item()
    assert_inside("T10 expected", expected, (0.0, LARGEST_EXPECTED))
    assert_inside("T10", flipped.sum(), (0, flips(expected)))
    u = rskernels.uniforms(N, seed=seed, columns=None if targets is not None else V)
    between = (torch.minimum(r, r_hat) <= u) & (u <= torch.maximum(r, r_hat))
    # Of the dense form's float32 logarithm of u, half a unit in the last place.
    between |= (u - r).abs() <= 2e-7 * (1 + u.log().abs()) * u
    assert between[flipped].all(), "T10: u is not between the two ratios"


def check_uniforms(subject, seed, rows=1 << 13):
    """Sensitive to any bit of a uniform: ratios just above it accept, just below it reject."""
    for law in (
        {"row_offset": 2**32 - rows // 2, "stream": 3, "seed": seed},
        {"row_offset": 2**62, "stream": 2**31 - 1, "seed": -seed},
    ):
        u = rskernels.uniforms(rows, **law)
        # Far nearer than the next float32, and farther than two libraries' logarithms differ.
        room = 1e-14 * (1 + u.log().abs())
        above = subject.bernoulli(torch.where(u < 1, u.log() + room, 0.0), **law)
        below = subject.bernoulli(u.log() - room, **law)
        assert above.all(), f"T10: {int((~above).sum())} uniforms are above the law's"
        assert not below.any(), f"T10: {int(below.sum())} uniforms are below the law's"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["target", "dense"])
def test_t10_flips(subject, kind, size, seed, form, dtype):
    if kind.startswith("reference"):
        pytest.skip("the reference is what kernels are compared with")
    if form == "target":
        shape = (size(200_000, reference=0, interpreted=80), 50)
    else:
        shape = (size(2_000, reference=0, interpreted=20), 500)
    check_flips(subject, seed, form, dtype, shape)


def test_t10_uniforms(subject, size, seed):
    check_uniforms(subject, seed, size(1 << 20, reference=1 << 16, interpreted=1 << 13))
