"""``bernoulli_mask`` and ``bernoulli``: decisions about ratios that the caller has."""

import math

import pytest
import torch

import rskernels
from rskernels.law.philox import row_uniforms
from rskernels.law.streams import Stream

from ..support.bits import same_bits
from ..support.cases import draw_case, layouts

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def unit_spread(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_accounted(backend, log_ratio, M=1.0, **law):
    """Compare what is counted and summed with float64 sums, and return it."""
    got = backend.decide_ratios(log_ratio, M, **law)
    dtype = torch.float64 if log_ratio.dtype == torch.float64 else torch.float32
    log_M = torch.as_tensor(M, dtype=torch.float64)
    log_M = (log_M if law.get("log_space") else log_M.log()).expand(log_ratio.shape)
    given = log_ratio.to(dtype)
    valid = (given < math.inf) & (log_M > -math.inf)
    assert torch.equal(got.mask, backend.bernoulli(log_ratio, M, **law))
    assert same_bits(got.log_ratio, torch.where(valid, given, math.nan))
    log_r = torch.where(valid, given.double() - log_M.to(dtype).double(), -math.inf)
    counts = [got.mask.sum(), (log_r > 0).sum(), (~valid).sum(), 0]
    assert got.counts.tolist() == list(map(int, counts))
    assert got.counts.dtype == torch.int64
    r = log_r.exp()
    want = torch.stack([(r - 1).clamp(min=0).sum(), r.sum()])
    torch.testing.assert_close(got.excess, want, rtol=1e-12, atol=1e-300)
    return got


@pytest.mark.parametrize("N", [0, 1, 15, 16, 17, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_and_excess(backend, N, dtype):
    log_ratio = unit_spread(N, dtype)
    log_ratio[3::97] = math.nan
    log_ratio[5::97] = math.inf
    log_ratio[6::97] = -math.inf
    seen = assert_accounted(backend, log_ratio, 1.3, seed=4, row_offset=9, stream=2)
    assert N < 1000 or (seen.counts[:3] > 0).all()


@pytest.mark.parametrize("log_space", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_against_an_M_of_each_row(backend, dtype, log_space):
    M = torch.tensor([math.nan, -math.inf, math.inf, 0.0, -1.0, 0.5, 2.0], dtype=dtype)
    log_ratio = unit_spread((300, 7))
    seen = assert_accounted(backend, log_ratio, M, seed=4, log_space=log_space)
    assert seen.counts[2] == 300 * (2 if log_space else 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_M_that_equals_the_largest_ratio_is_not_violated(backend, dtype):
    log_ratio = unit_spread(200, dtype, seed=2)
    M = log_ratio.double().max().exp().item()
    seen = assert_accounted(backend, log_ratio, M, seed=0)
    if dtype != torch.float64:
        # As float64 the logarithm of M may be less, by the rounding of exp and log.
        assert seen.counts[1] == 0
        assert seen.excess[0] == 0


@pytest.mark.parametrize("log_M", [0.0, 1e300, -1e300, math.inf])
def test_ends_of_ratios_and_M(backend, log_M):
    log_ratio = torch.tensor([800.0, 3e38, -3e38, -math.inf, 0.0])
    seen = backend.decide_ratios(log_ratio, log_M, log_space=True, seed=0)
    log_r = log_ratio.double() - log_M
    assert torch.equal(seen.mask, log_r >= 0)
    assert seen.counts.tolist() == [seen.mask.sum(), (log_r > 0).sum(), 0, 0]
    assert seen.excess.tolist() == [(log_r.exp() - 1).clamp(min=0).sum(), log_r.exp().sum()]


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


def test_the_public_record():
    log_ratio = unit_spread((30, 4)).requires_grad_()
    law = {"seed": 3, "row_offset": 2, "stream": 1}
    seen = rskernels.bernoulli(log_ratio, 1.5, **law)
    assert isinstance(seen, rskernels.Acceptance)
    assert torch.equal(seen.mask, rskernels.bernoulli_mask(log_ratio, 1.5, **law))
    assert torch.equal(seen.log_ratio, log_ratio.detach())
    assert same_bits(seen.log_prob, torch.full((30, 4), math.nan))
    assert not any(part.requires_grad for part in seen)
    in_log_space = rskernels.bernoulli(log_ratio, math.log(1.5), log_space=True, **law)
    assert same_bits(seen, in_log_space)
    plain = rskernels.bernoulli(log_ratio, seed=3)
    assert same_bits(plain, rskernels.bernoulli(log_ratio, 1.0, seed=3))


def test_ratios_of_a_model_are_counted_as_accept_counts_them():
    logits, targets, log_p = draw_case((50, 9))
    logits[3, 2] = math.nan
    law = {"log_space": True, "seed": 6}
    seen = rskernels.accept(logits, log_p, 0.2, targets=targets, **law)
    alone = rskernels.bernoulli(seen.log_ratio, 0.2, **law)
    assert same_bits(alone.log_ratio, seen.log_ratio)
    assert torch.equal(alone.mask, seen.mask)
    assert torch.equal(alone.counts, seen.counts)
    torch.testing.assert_close(alone.excess, seen.excess, rtol=1e-12, atol=0)


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


# Either end of 64 bits, and both sides of a word's.
ENDS = [0, 1, -1, 2**31, 2**32 - 1, 2**32, -(2**32), 2**63 - 1, -(2**63)]


@pytest.mark.parametrize("N", [0, 1, 15, 17, 1023, 1025, 3000])
def test_rows_of_any_ids(backend, N):
    ids = torch.randint(-(2**63), 2**63 - 1, (N,), generator=torch.Generator().manual_seed(1))
    ids[: len(ENDS)] = torch.tensor(ENDS)[:N]
    log_ratio = unit_spread(N) - 1
    law = {"seed": -4, "stream": 9}
    want = log_ratio.double() >= row_uniforms(ids, 0, law["seed"], 9).double().log()
    mask = backend.bernoulli(log_ratio, ids=ids, **law)
    assert torch.equal(mask, want)
    assert torch.equal(backend.decide_ratios(log_ratio, ids=ids, **law).mask, want)
    # Neither the order nor the neighbours of a row change its decision.
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    assert torch.equal(backend.bernoulli(log_ratio[order], ids=ids[order], **law), mask[order])
    strided = torch.stack([ids, ids + 1], -1)[:, 0]
    assert torch.equal(backend.bernoulli(log_ratio, ids=strided, **law), mask)
    for n in range(0, N, max(1, N // 3)):
        alone = backend.bernoulli(log_ratio[n : n + 5], ids=ids[n : n + 5], **law)
        assert torch.equal(alone, mask[n : n + 5])


def test_ids_that_count_are_those_of_row_offset(backend):
    log_ratio = unit_spread((40, 30))
    ids = torch.arange(2**33, 2**33 + 1200).view(40, 30)
    want = backend.decide_ratios(log_ratio, 1.3, seed=1, row_offset=2**33)
    assert same_bits(backend.decide_ratios(log_ratio, 1.3, seed=1, ids=ids), want)


def test_sequences_of_any_ids(backend):
    log_ratio = unit_spread((37, 5)) / 3
    ids = torch.randint(-(2**63), 2**63 - 1, (37,), generator=torch.Generator().manual_seed(1))
    seen = backend.accept_sequences(log_ratio, seed=3, ids=ids)
    alone = backend.bernoulli(seen.log_ratio, seed=3, stream=int(Stream.SEQUENCE), ids=ids)
    assert torch.equal(seen.mask, alone)
    back = backend.accept_sequences(log_ratio.flip(0), seed=3, ids=ids.flip(0))
    assert torch.equal(back.mask.flip(0), seen.mask)
    counted = backend.accept_sequences(log_ratio, seed=3, ids=torch.arange(5, 42))
    assert same_bits(counted, backend.accept_sequences(log_ratio, seed=3, row_offset=5))


def test_public_functions_take_ids():
    log_ratio, ids = unit_spread(len(ENDS)), torch.tensor(ENDS)
    law = {"seed": 5, "ids": ids, "stream": 3}
    mask = rskernels.bernoulli_mask(log_ratio, **law)
    assert torch.equal(rskernels.bernoulli(log_ratio, **law).mask, mask)
    operands = (log_ratio, None, 1.0, None, 5, 0, 3, False, ids)
    assert torch.equal(torch.ops.rskernels.bernoulli(*operands), mask)
    kept = torch.zeros(len(ids), dtype=torch.bool)
    kept[::2] = True
    assert torch.equal(rskernels.bernoulli_mask(log_ratio, mask=kept, **law), mask & kept)
    seen = rskernels.accept_sequences(log_ratio[:, None], seed=5, ids=ids)
    want = rskernels.bernoulli_mask(log_ratio, seed=5, ids=ids, stream=Stream.SEQUENCE)
    assert torch.equal(seen.mask, want)


META = torch.zeros(4, dtype=torch.int64, device="meta")


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([0, 1, 2, 3], TypeError, r"ids must be an int64 tensor or None, got list"),
        (torch.arange(4).int(), TypeError, r"ids must be int64, got torch.int32"),
        (torch.arange(3), ValueError, r"ids must have the decisions' shape \[4\], got \[3\]"),
        (torch.arange(4).to_sparse(), TypeError, r"ids must be a strided tensor"),
        (META, ValueError, r"ids are on meta, the decisions on cpu"),
    ],
)
def test_what_are_no_ids(ids, error, message):
    with pytest.raises(error, match=message):
        rskernels.bernoulli_mask(torch.zeros(4), ids=ids)
    with pytest.raises(error, match=message):
        rskernels.bernoulli(torch.zeros(4), ids=ids)
    with pytest.raises(error, match=message):
        rskernels.accept_sequences(torch.zeros(4, 2), ids=ids)


def test_ids_and_a_row_offset_exclude_each_other():
    for decide in (rskernels.bernoulli_mask, rskernels.bernoulli):
        with pytest.raises(ValueError, match=r"row_offset is for rows without ids, got 3 with"):
            decide(torch.zeros(4), ids=torch.arange(4), row_offset=3)
