"""What the public functions of sequences take and return."""

import math

import pytest
import torch

import rskernels
from rskernels import accept_prefix, accept_sequences

from ..support.bits import same_bits

LOG_RATIO = torch.tensor([[0.1, -0.2, 0.3], [0.0, 0.4, math.nan]])
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_the_three_layouts_agree():
    padded = accept_sequences(LOG_RATIO, 1.1, mask=MASK, seed=1)
    starts = torch.tensor([0, 3, 5])
    packed = accept_sequences(LOG_RATIO[MASK], 1.1, cu_seqlens=starts, seed=1)
    listed = accept_sequences([LOG_RATIO[0], LOG_RATIO[1, :2]], 1.1, seed=1)
    holed = accept_sequences(list(LOG_RATIO), 1.1, mask=list(MASK), seed=1)
    for other in (packed, listed, holed):
        assert same_bits(other._replace(token_mask=0)[:1], padded[:1])
        assert same_bits(tuple(other[2:]), tuple(padded[2:]))
    assert torch.equal(packed.token_mask, padded.token_mask[MASK])
    assert [len(part) for part in listed.token_mask] == [3, 2]
    assert torch.equal(torch.cat(listed.token_mask), packed.token_mask)
    assert torch.equal(torch.stack(holed.token_mask), padded.token_mask)
    assert padded.tokens_given == 5


def test_no_sequences():
    seen = accept_sequences([], seed=0)
    assert seen.token_mask == []
    assert seen.counts.tolist() == [0, 0, 0, 0]
    assert accept_prefix([], seed=0).tolist() == []


def test_results_have_no_gradient():
    leaf = LOG_RATIO.clone().requires_grad_()
    seen = accept_sequences(leaf, mask=MASK, seed=0)
    assert not any(part.requires_grad for part in seen)
    listed = accept_sequences([leaf[0], leaf[1, :2]], seed=0)
    assert same_bits(listed.log_ratio, seen.log_ratio)
    assert torch.equal(accept_prefix(leaf, mask=MASK, seed=0), accept_prefix(
        LOG_RATIO, mask=MASK, seed=0
    ))  # fmt: skip


def test_seeds():
    values = torch.zeros(64, 4)
    by_number = accept_sequences(values, 2.0, seed=5).mask
    assert torch.equal(accept_sequences(values, 2.0, seed=torch.tensor([5])).mask, by_number)
    generator = torch.Generator().manual_seed(0)
    first = accept_sequences(values, 2.0, generator=generator).mask
    assert not torch.equal(accept_sequences(values, 2.0, generator=generator).mask, first)
    torch.manual_seed(0)
    first = accept_prefix(values, 1.1)
    torch.manual_seed(0)
    assert torch.equal(accept_prefix(values, 1.1), first)


def test_the_draw_is_that_of_the_sequence_alone():
    values = torch.full((100, 3), -0.3)
    u = rskernels.uniforms(100, seed=5, row_offset=7, stream=5)
    kept = accept_sequences(values, seed=5, row_offset=7).mask
    assert torch.equal(kept, values.double().sum(1) >= u.log())


@pytest.mark.parametrize("call", [accept_sequences, accept_prefix])
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"log_ratio": 1.0}, TypeError, "log_ratio must be"),
        ({"log_ratio": torch.ones(2, 3).int()}, TypeError, "float32, float64"),
        ({"log_ratio": torch.ones(3)}, ValueError, "with cu_seqlens"),
        ({"log_ratio": [torch.ones(2, 2)]}, ValueError, "must have one dimension"),
        ({"log_ratio": [1.0]}, TypeError, r"log_ratio\[0\]"),
        ({"mask": torch.ones(2, 3)}, TypeError, "mask must be bool"),
        ({"mask": torch.ones(2, 2).bool()}, ValueError, "mask must have the shape"),
        ({"mask": [True]}, TypeError, "mask must be a bool tensor"),
        ({"log_ratio": [torch.ones(2)], "mask": MASK}, TypeError, "mask must be a list"),
        ({"log_ratio": [torch.ones(2)], "mask": []}, ValueError, "mask has 0 tensors"),
        ({"cu_seqlens": torch.tensor([0, 2])}, ValueError, "must be packed"),
        ({"log_ratio": torch.ones(3), "cu_seqlens": torch.tensor([0.0])}, TypeError, "int64"),
        ({"log_ratio": torch.ones(3), "cu_seqlens": [0, 3]}, TypeError, "int64 or int32 tensor"),
        ({"log_ratio": torch.ones(3), "cu_seqlens": torch.empty(0).long()}, ValueError, "B . 1"),
        ({"log_ratio": torch.ones(3), "cu_seqlens": torch.tensor([0, 2])}, ValueError, "end at 2"),
        ({"log_ratio": [torch.ones(2)], "cu_seqlens": torch.tensor([0])}, ValueError, "a list"),
        ({"M": torch.ones(3)}, ValueError, "M must broadcast"),
        ({"M": -1.0}, ValueError, "M must be above 0"),
        ({"seed": 1.0}, TypeError, "seed must be"),
        ({"row_offset": -1}, ValueError, "row_offset must be"),
    ],
)
def test_what_is_refused(call, changed, error, message):
    given = {"log_ratio": torch.ones(2, 3), "seed": 0} | changed
    with pytest.raises(error, match=message):
        call(**given)


def test_a_statistic_has_a_name():
    with pytest.raises(ValueError, match="statistic must be one of sum, mean"):
        accept_sequences(LOG_RATIO, statistic="sequence", seed=0)


def test_masked_tensors_are_refused():
    from torch.masked import masked_tensor

    with pytest.raises(TypeError, match="MaskedTensor"):
        accept_sequences(masked_tensor(LOG_RATIO, MASK), seed=0)


class TestBernoulliOfTokens:
    """``bernoulli`` on [B, T] with a mask."""

    def test_padding_is_ignored(self):
        ratios = torch.tensor([[0.0, -math.inf, math.nan], [5.0, math.inf, math.nan]])
        mask = torch.tensor([[True, True, False], [False, True, True]])
        seen = rskernels.bernoulli(ratios, seed=0, mask=mask)
        assert seen.counts.tolist() == [1, 0, 2, 2]
        assert seen.mask.tolist() == [[True, False, False], [False, False, False]]
        assert seen.excess.tolist() == [0, 1]
        assert torch.equal(rskernels.bernoulli_mask(ratios, seed=0, mask=mask), seen.mask)

    def test_what_is_decided_is_as_without(self):
        ratios = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
        mask = ratios > -1
        plain = rskernels.bernoulli(ratios, 1.5, seed=3)
        seen = rskernels.bernoulli(ratios, 1.5, seed=3, mask=mask)
        assert torch.equal(seen.mask, plain.mask & mask)
        assert torch.equal(seen.log_ratio[mask], plain.log_ratio[mask])

    @pytest.mark.parametrize("mask", [torch.ones(2), torch.ones(3).bool(), [True]])
    def test_another_mask_is_refused(self, mask):
        with pytest.raises((TypeError, ValueError), match="mask must"):
            rskernels.bernoulli(torch.ones(2), seed=0, mask=mask)
