"""Entries that are decided by their row's weights, where the draw is about the ratio itself."""

import math

import pytest
import torch

import rskernels
from rskernels.kernels.cpu import launch
from rskernels.kernels.cpu.dtypes import F32

from ...support.bits import same_bits

N, V = 12, 20000
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def draw(dtype, spread, is_late):
    generator = torch.Generator().manual_seed(3)
    logits = spread * torch.randn(N, V, generator=generator)
    if is_late:
        # Against the weights of the first part these are too large: the reference changes.
        logits[:, 700::9000] += 40.0
    near = torch.randn(N, V, generator=generator).double() * 2.0**-12
    return logits.to(dtype), near


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("spread", [1.0, 12.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["accept", "verify"])
def test_masks_are_those_that_logarithms_decide(dtype, spread, is_late, name):
    logits, near = draw(dtype, spread, is_late)
    log_q = logits.double().log_softmax(-1)
    u = rskernels.uniforms(N, seed=5, columns=V)
    sign = -1.0 if name == "verify" else 1.0
    # The density whose ratio is about u, for an M of 3.
    log_density = log_q + sign * (math.log(3.0) + u.log() + near)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    whole, mask = getattr(rskernels, name), getattr(rskernels, f"{name}_mask")
    for density, log_space in ((log_density.exp().to(wide), False), (log_density.to(wide), True)):
        M = math.log(3.0) if log_space else 3.0
        law = {"targets": None, "seed": 5, "log_space": log_space}
        want = whole(logits, density, M, **law).mask
        assert same_bits(mask(logits, density, M, **law), want)
        assert 0.3 < want.double().mean() < 0.7


def test_no_memory_for_weights_is_an_error(monkeypatch):
    def without_memory(share, arguments):
        return 1

    monkeypatch.setattr(launch, "dense_rows", {F32: without_memory})
    with pytest.raises(MemoryError, match="80000 bytes"):
        rskernels.accept_mask(torch.zeros(2, V), 0.1, 1.0)
