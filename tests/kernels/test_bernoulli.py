"""``bernoulli_mask``: the decision alone, for ratios that the caller has."""

import math

import pytest
import torch

import rskernels

from ..support.cases import draw_case
from ..support.layouts import layouts

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def unit_spread(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# A unit of the CPU kernel is 1024 rows, and so is a program of the Triton kernel.
@pytest.mark.parametrize("N", [0, 1, 2, 33, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_of_rows_and_dtype(backend, N, dtype):
    log_ratio = unit_spread(N, dtype) - 1
    u = rskernels.uniforms(N, seed=4, row_offset=9, stream=2)
    mask = backend.bernoulli(log_ratio, seed=4, row_offset=9, stream=2)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, log_ratio.double() >= u.log())
    assert N < 1000 or 0.3 * N < mask.sum() < 0.7 * N


@pytest.mark.parametrize("log_space", [False, True])
@pytest.mark.parametrize("shape", [None, (), (1,), (5,), (4, 1), (4, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_M_of_any_shape_and_dtype(backend, shape, dtype, log_space):
    log_ratio = unit_spread((4, 5))
    M = 1.7 if shape is None else (unit_spread(shape, seed=1).abs() + 0.3).to(dtype)
    log_M = torch.as_tensor(M).double() if log_space else torch.as_tensor(M).double().log()
    u = rskernels.uniforms((4, 5), seed=4)
    want = log_ratio.double() - log_M >= u.log()
    assert torch.equal(backend.bernoulli(log_ratio, M, seed=4, log_space=log_space), want)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (2, 0)])
def test_shapes_are_rows_in_order(backend, shape):
    log_ratio = unit_spread(shape)
    flat = backend.bernoulli(log_ratio.reshape(-1), seed=1)
    assert torch.equal(backend.bernoulli(log_ratio, seed=1), flat.view(shape))


def test_layouts(backend):
    log_ratio = unit_spread((6, 7))
    want = backend.bernoulli(log_ratio, seed=1)
    for view in vars(layouts(log_ratio)).values():
        assert torch.equal(backend.bernoulli(view, seed=1), want)
    one = log_ratio[:, :1].expand(6, 7)
    assert torch.equal(backend.bernoulli(one, seed=1), backend.bernoulli(one.clone(), seed=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_no_ratio_is_rejected(backend, dtype):
    values = torch.tensor([math.nan, math.inf, -math.inf, 0.0, 50.0, -1e30], dtype=dtype)
    # Long enough for every value to meet many uniforms.
    mask = backend.bernoulli(values.repeat(200), seed=0).view(200, 6)
    assert mask.sum(0).tolist() == [0, 0, 0, 200, 200, 0]


@pytest.mark.parametrize(
    ("M", "log_space", "accepted"),
    [
        (math.nan, False, False),
        (0.0, False, False),
        (-0.0, False, False),
        (-1.0, False, False),
        (-math.inf, False, False),
        (math.inf, False, False),
        (1e-30, False, True),
        (math.nan, True, False),
        (-math.inf, True, False),
        (math.inf, True, False),
        (-1.0, True, True),
    ],
)
def test_what_is_no_envelope_is_rejected(backend, M, log_space, accepted):
    M = torch.tensor([M, math.exp(-1) if not log_space else -1.0])
    mask = backend.bernoulli(torch.zeros(100, 2), M, seed=0, log_space=log_space)
    assert mask[:, 0].all() == mask[:, 0].any() == accepted
    assert mask[:, 1].all()


def test_streams_seeds_and_rows_are_separate(backend):
    log_ratio = torch.full((1024,), math.log(0.5))
    law = {"seed": 1, "row_offset": 0, "stream": 0}
    masks = [
        backend.bernoulli(log_ratio, **{**law, **change})
        for change in ({}, {"stream": 1}, {"seed": 2}, {"seed": 1 + 2**32}, {"row_offset": 2**32})
    ]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            # 512 expected; 7 standard deviations.
            assert 400 < (one ^ other).sum() < 624


def test_public_function():
    log_ratio = unit_spread((30, 4)).requires_grad_()
    mask = rskernels.bernoulli_mask(log_ratio, 1.5, seed=3, row_offset=2, stream=1)
    u = rskernels.uniforms((30, 4), seed=3, row_offset=2, stream=1)
    assert torch.equal(mask, log_ratio.double() - math.log(1.5) >= u.log())
    assert not mask.requires_grad
    in_log_space = rskernels.bernoulli_mask(
        log_ratio, math.log(1.5), log_space=True, seed=3, row_offset=2, stream=1
    )
    assert torch.equal(mask, in_log_space)
    plain = rskernels.bernoulli_mask(log_ratio, seed=3)
    assert torch.equal(plain, rskernels.bernoulli_mask(log_ratio, 1.0, seed=3))


def test_the_masks_use_stream_0():
    logits, targets, log_p = draw_case((50, 9))
    seen = rskernels.accept(logits, log_p, 0.2, targets=targets, log_space=True, seed=6)
    alone = rskernels.bernoulli_mask(seen.log_ratio, 0.2, log_space=True, seed=6)
    assert torch.equal(alone, seen.mask)
