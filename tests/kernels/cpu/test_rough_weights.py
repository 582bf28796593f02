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


@pytest.mark.parametrize("name", ["accept", "verify"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deep_entries_are_decided_as_in_float64(dtype, name):
    # Logits 45 to 120 below the row's largest, about which float32 says little.
    rows, columns = 4, 4160
    logits = -torch.linspace(45, 120, columns).repeat(rows, 1)
    logits[:, 5] = 0.0
    log_q = logits.double().log_softmax(-1)
    log_u = rskernels.uniforms(rows, seed=5, columns=columns).double().log()
    generator = torch.Generator().manual_seed(4)
    near = torch.randn(log_q.shape, generator=generator).double() * 2.0**-11
    sign = -1.0 if name == "verify" else 1.0
    log_M = 40.0 * sign
    log_density = log_q + sign * (40.0 * sign + log_u + near)
    density, law = log_density.exp().to(dtype), {"targets": None, "seed": 5}
    given = logits.to(dtype), density, math.exp(log_M)
    got = getattr(rskernels, f"{name}_mask")(*given, **law)
    assert same_bits(got, getattr(rskernels, name)(*given, **law).mask)
    want = sign * (density.double().log() - log_q) - log_M >= log_u
    is_clear = near.abs() > 2.0**-13
    assert torch.equal(got[is_clear], want[is_clear])
    assert 0.3 < got.double().mean() < 0.7


@pytest.mark.parametrize("name", ["accept", "verify"])
@pytest.mark.parametrize("V", [10, 40, 130])
def test_what_has_vanished_keeps_its_meaning(V, name):
    # Weights that are 0 in float32 of logits that are numbers, and of those that are none.
    odd = [-math.inf, -1e3, -3e38, -150.0, -95.0, -60.0, 0.0]
    densities = [0.1, 0.0, -1.0, math.nan, 1e-44, 1e-30, math.inf, 0.2, 1e30]
    logits = torch.tensor(odd).repeat(V)[:V].repeat(9, 1)
    logits[:, -1] = 0.0
    density = torch.tensor(densities).repeat(V)[: 9 * V].view(9, V)
    law = {"targets": None, "seed": 7}
    for M in (1e-20, 1.0, 1e20):
        for p in (density, 0.1):
            want = getattr(rskernels, name)(logits, p, M, **law).mask
            assert same_bits(getattr(rskernels, f"{name}_mask")(logits, p, M, **law), want)
    # A finite logit is accepted where the draft's density is 0 in effect; the others are not.
    if name == "accept":
        got = rskernels.accept_mask(logits, 0.1, 1.0, **law)
        deep = (logits > -math.inf) & (logits < -90.0)
        assert got[deep].all()
        assert not got[logits == -math.inf].any()


@pytest.mark.parametrize("name", ["accept", "verify"])
def test_what_logarithms_round_off_is_within_the_band(name):
    # Logarithms that float32 rounds most, all of them in one direction: by 2**-17 and up to 2**-18.
    rows, columns, most = 4, 20000, 0.98 * 2.0**-18
    u = rskernels.uniforms(rows, seed=5, columns=columns).double()
    generator = torch.Generator().manual_seed(6)
    near = (torch.rand(u.shape, generator=generator).double() - 0.5) * 2.0**-14
    sign = -1.0 if name == "verify" else 1.0
    log_density, log_M = 100.0 + most, sign * (114.0 - most)
    # log r = sign * (log density - log q) - log M is log u + near; one logit is the total, nearly.
    log_q = log_density - sign * (log_M + u.log() + near)
    log_q[(log_q > -10.0) | (log_q < -25.0)] = -15.0
    log_q[:, 0] = 0.0
    logits = log_q
    for _ in range(3):
        logits = log_q + logits.logsumexp(-1, keepdim=True)
        logits[:, 0] = 0.0
    law = {"targets": None, "seed": 5, "log_space": True}
    given = logits.float(), log_density, log_M
    want = getattr(rskernels, name)(*given, **law).mask
    assert same_bits(getattr(rskernels, f"{name}_mask")(*given, **law), want)
    assert 0.3 < want.double().mean() < 0.7


def test_no_memory_for_weights_is_an_error(monkeypatch):
    def without_memory(share, arguments):
        return 1

    monkeypatch.setattr(launch, "dense_rows", {F32: without_memory})
    with pytest.raises(MemoryError, match="80000 bytes"):
        rskernels.accept_mask(torch.zeros(2, V), 0.1, 1.0)
