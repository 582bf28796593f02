"""Prefixes on every backend: tokens accepted until the first that is not."""

import math

import pytest
import torch

import rskernels

from ...support.backends import backend_of
from .test_sequences import drawn, packed_from

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def expected(tokens, log_M, u):
    accepted = (tokens.double() < math.inf) & (tokens.double() - log_M >= u.log())
    return int(accepted.long().cumprod(0).sum())


@pytest.mark.parametrize("log_space", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_token_has_the_uniform_of_its_column(backend, dtype, log_space):
    log_ratio, mask = drawn(12, 300, dtype)
    # So high that long prefixes cross the parts of the kernels.
    log_ratio += 0.16
    M = torch.linspace(0.9, 1.1, 12)
    M = M.log() if log_space else M
    log_M = M.double() if log_space else M.double().log()
    u = rskernels.uniforms(12, seed=9, row_offset=5, stream=6, columns=300)
    lengths = backend.accept_prefix(
        log_ratio, M, mask=mask, seed=9, row_offset=5, log_space=log_space
    )
    want = [
        expected(row[at], log_M[n], u[n, : int(at.sum())])
        for n, (row, at) in enumerate(zip(log_ratio, mask, strict=True))
    ]
    assert lengths.tolist() == want
    assert max(want) > 64


def test_all_are_accepted_at_a_ratio_of_1(backend):
    _, mask = drawn(12, 200)
    assert torch.equal(backend.accept_prefix(torch.zeros(12, 200), mask=mask, seed=3), mask.sum(1))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 1, 15, 16, 63, 64, 130])
def test_an_invalid_token_ends_it(backend, at, value):
    log_ratio = torch.zeros(2, 131)
    log_ratio[1, at] = value
    assert backend.accept_prefix(log_ratio, seed=3).tolist() == [131, at]


def test_a_sequence_of_any_id_has_its_tokens_draws(backend):
    log_ratio, mask = drawn(9, 150)
    log_ratio += 0.1
    counted = backend.accept_prefix(log_ratio, mask=mask, seed=7, row_offset=4)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    named = {"mask": mask[order], "seed": 7, "ids": (order + 4).repeat_interleave(2)[::2]}
    assert torch.equal(backend.accept_prefix(log_ratio[order], **named), counted[order])
    ids = torch.tensor([-1, 2**62, -(2**63)])
    lengths = backend.accept_prefix(log_ratio[:3], mask=mask[:3], seed=7, ids=ids)
    want = backend_of("reference").accept_prefix(log_ratio[:3], mask=mask[:3], seed=7, ids=ids)
    assert torch.equal(lengths, want)
    assert len(set(lengths.tolist())) > 1


def test_padding_and_packing_change_nothing(backend):
    log_ratio, mask = drawn(9, 150)
    log_ratio += 0.1
    want = backend.accept_prefix(log_ratio, mask=mask, seed=7, row_offset=4)
    values, starts = packed_from(log_ratio, mask)
    packed = backend.accept_prefix(values, cu_seqlens=starts, seed=7, row_offset=4)
    assert torch.equal(packed, want)
    wider = torch.nn.functional.pad(log_ratio, (13, 30), value=0.0)
    padded = torch.nn.functional.pad(mask, (13, 30))
    assert torch.equal(backend.accept_prefix(wider, mask=padded, seed=7, row_offset=4), want)
    alone = backend.accept_prefix(log_ratio[5:6], mask=mask[5:6], seed=7, row_offset=9)
    assert torch.equal(alone, want[5:6])
