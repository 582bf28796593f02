"""Sequences on every backend: their statistics, what is counted, and what changes nothing."""

import math

import pytest
import torch

from ...support.bits import same_bits

STATISTICS = ["sum", "mean", "max", "mean_k2", "mean_k3", "sum_k2"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# What crosses the sixteen lanes and the parts of the CPU kernels, the lanes and blocks of Triton's.
LENGTHS = [0, 1, 2, 15, 16, 17, 31, 33, 64, 65, 255, 257, 300, 1030]


def drawn(B=12, T=70, dtype=torch.float32, seed=0):
    """Return log ratios, and a mask with holes in it and an empty sequence."""
    generator = torch.Generator().manual_seed(seed)
    log_ratio = (torch.randn(B, T, generator=generator) * 0.1).to(dtype)
    mask = torch.rand(B, T, generator=generator) < 0.7
    mask[1], mask[2, :16], mask[2, 16:] = False, False, True
    mask[3], mask[4, 5:] = True, False
    return log_ratio, mask


def expected(tokens, statistic):
    """Return the statistic of one sequence in float64."""
    x = tokens.double()
    if len(x) == 0 or not (x < math.inf).all():
        return math.nan
    k = {"k2": -x.square() / 2, "k3": x + 1 - x.exp()}.get(statistic[-2:], x)
    over = statistic.partition("_")[0]
    return {"sum": k.sum(), "mean": k.mean(), "max": k.max()}[over].item()


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_statistic_and_dtype(backend, statistic, dtype):
    log_ratio, mask = drawn(dtype=dtype)
    log_ratio[5, mask[5].nonzero()[3]] = math.nan
    log_ratio[6, mask[6].nonzero()[0]] = math.inf
    log_ratio[7, mask[7].nonzero()[-1]] = -math.inf
    log_ratio[~mask] = math.nan
    M = torch.linspace(0.5, 1.5, 12)
    seen = backend.accept_sequences(log_ratio, M, mask=mask, statistic=statistic, seed=3)
    want = [expected(row[at], statistic) for row, at in zip(log_ratio, mask, strict=True)]
    want = torch.tensor(want, dtype=torch.float64)
    torch.testing.assert_close(seen.log_ratio, want, rtol=1e-12, atol=1e-14, equal_nan=True)
    assert torch.equal(seen.lengths, mask.sum(1))
    decided = backend.decide_ratios(seen.log_ratio, M, seed=3, stream=5)
    assert torch.equal(seen.mask, decided.mask)
    assert torch.equal(seen.token_mask, mask & decided.mask[:, None])
    assert seen.counts.tolist() == [decided.counts[0], decided.counts[1], 2, 1]
    assert torch.equal(seen.excess, decided.excess)
    assert seen.tokens_kept == seen.token_mask.sum()
    assert seen.tokens_given == mask.sum()
    assert seen.sequences_kept == decided.mask.sum()


@pytest.mark.parametrize("statistic", ["sum", "max"])
def test_every_length(backend, statistic):
    tokens = [torch.randn(n, generator=torch.Generator().manual_seed(n)) / 8 for n in LENGTHS]
    starts = torch.tensor([0, *LENGTHS]).cumsum(0)
    packed = {"cu_seqlens": starts, "statistic": statistic, "seed": 1}
    seen = backend.accept_sequences(torch.cat(tokens), 1.5, **packed)
    want = torch.tensor([expected(x, statistic) for x in tokens], dtype=torch.float64)
    torch.testing.assert_close(seen.log_ratio, want, rtol=1e-12, atol=1e-13, equal_nan=True)
    assert torch.equal(seen.token_mask, seen.mask.repeat_interleave(torch.tensor(LENGTHS)))
    assert seen.counts[3] == 1


def packed_from(log_ratio, mask, dtype=torch.int64):
    lengths = mask.sum(1)
    starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return log_ratio[mask], starts.to(dtype)


@pytest.mark.parametrize("statistic", ["sum", "mean_k2"])
def test_padding_packing_and_splits_change_no_bit(backend, statistic):
    log_ratio, mask = drawn(9, 150)
    law = {"statistic": statistic, "seed": 7}
    whole = backend.accept_sequences(log_ratio, 1.1, mask=mask, row_offset=4, **law)
    values, starts = packed_from(log_ratio, mask, torch.int32)
    packed = backend.accept_sequences(values, 1.1, cu_seqlens=starts, row_offset=4, **law)
    wider = torch.nn.functional.pad(log_ratio, (13, 300), value=math.nan)
    padded = backend.accept_sequences(
        wider, 1.1, mask=torch.nn.functional.pad(mask, (13, 300)), row_offset=4, **law
    )
    for other in (packed, padded):
        assert same_bits(other.log_ratio, whole.log_ratio)
        assert torch.equal(other.mask, whole.mask)
        assert torch.equal(other.counts, whole.counts)
    assert torch.equal(packed.token_mask, whole.token_mask[mask])
    for n in (0, 5, 8):
        alone = backend.accept_sequences(
            log_ratio[n : n + 1], 1.1, mask=mask[n : n + 1], row_offset=4 + n, **law
        )
        assert same_bits(alone.log_ratio, whole.log_ratio[n : n + 1])
        assert torch.equal(alone.mask, whole.mask[n : n + 1])


def test_threads_change_no_bit(threads):
    from ...support.backends import backend_of

    log_ratio, mask = drawn(700, 900)
    seen = []
    for count in (1, 2, 3):
        threads(count)
        kept = backend_of("cpu").accept_sequences(log_ratio, 1.1, mask=mask, seed=7)
        lengths = backend_of("cpu").accept_prefix(log_ratio, mask=mask, seed=7)
        seen.append((*kept, lengths))
    assert same_bits(seen[1], seen[0])
    assert same_bits(seen[2], seen[0])


def test_strides(backend):
    log_ratio, mask = drawn()
    want = backend.accept_sequences(log_ratio, mask=mask, seed=1)
    turned = backend.accept_sequences(log_ratio.T.clone().T, mask=mask.T.clone().T, seed=1)
    apart = torch.stack([log_ratio, log_ratio.new_full(log_ratio.shape, math.nan)], -1)
    assert same_bits(tuple(turned), tuple(want))
    assert same_bits(tuple(backend.accept_sequences(apart[..., 0], mask=mask, seed=1)), tuple(want))


@pytest.mark.parametrize("shape", [(0, 5), (0, 0), (3, 0)])
def test_nothing(backend, shape):
    seen = backend.accept_sequences(torch.empty(shape), mask=torch.empty(shape).bool(), seed=0)
    assert seen.counts.tolist() == [0, 0, 0, shape[0]]
    assert seen.token_mask.shape == shape
    assert backend.accept_prefix(torch.empty(shape), seed=0).tolist() == [0] * shape[0]
    packed = backend.accept_sequences(torch.empty(0), cu_seqlens=torch.zeros(1).long(), seed=0)
    assert packed.mask.shape == (0,)


@pytest.mark.parametrize("M", [math.nan, 0.0, -1.0])
def test_an_M_that_is_none(backend, M):
    log_ratio, mask = drawn()
    each = torch.ones(12)
    each[4] = M
    seen = backend.accept_sequences(log_ratio, each, mask=mask, seed=0)
    assert seen.counts[2] == 1
    assert not seen.mask[4]
    assert backend.accept_prefix(log_ratio, each, mask=mask, seed=0)[4] == 0


def test_a_neighbour_that_is_invalid_changes_nothing(backend):
    log_ratio, mask = drawn()
    want = backend.accept_sequences(log_ratio, 1.1, mask=mask, seed=2)
    log_ratio[5] = math.nan
    seen = backend.accept_sequences(log_ratio, 1.1, mask=mask, seed=2)
    others = torch.arange(12) != 5
    assert same_bits(seen.log_ratio[others], want.log_ratio[others])
    assert torch.equal(seen.mask[others], want.mask[others])


UNSOUND = [[0, 5, 3, 9], [1, 5, 9], [0, 4], [0, 12], [0, -1, 9], [9]]


@pytest.mark.parametrize("starts", UNSOUND)
def test_unsound_starts_fail_closed(starts):
    from ...support.backends import backend_of

    starts = torch.tensor(starts)
    values = torch.zeros(9)
    with pytest.raises(ValueError, match="cu_seqlens must begin at 0"):
        backend_of("cpu").accept_sequences(values, cu_seqlens=starts, seed=0)
    seen = backend_of("reference").accept_sequences(values, cu_seqlens=starts, seed=0)
    assert seen.counts.tolist() == [0, 0, len(starts) - 1, 0]
    assert not seen.token_mask.any()


@pytest.mark.triton
@pytest.mark.parametrize("starts", UNSOUND)
def test_unsound_starts_fail_closed_on_a_device(starts):
    from ...support.backends import backend_of

    starts, gpu = torch.tensor(starts), backend_of("gpu")
    seen = gpu.accept_sequences(torch.zeros(9), cu_seqlens=starts, seed=0)
    assert seen.counts.tolist() == [0, 0, len(starts) - 1, 0]
    assert not seen.token_mask.any()
    assert not gpu.accept_prefix(torch.zeros(9), cu_seqlens=starts, seed=0).any()
