"""Rows of logits decided by ids that are given: the draw is the id's, whatever the order."""

import pytest
import torch

import rskernels

N, V = 3000, 7
MASKS = {"accept": rskernels.accept_mask, "verify": rskernels.verify_mask}


def rows(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = (2 * torch.randn(N, V, generator=generator)).to(dtype)
    targets = torch.randint(V, (N,), generator=generator)
    targets[::50] = -100
    density = torch.rand(N, generator=generator) / 5
    density[7::70] = torch.nan
    return logits, density, 0.1 + 3 * torch.rand(N, generator=generator), targets


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", MASKS)
def test_rows_are_decided_as_those_of_their_numbers(name, dtype):
    logits, density, M, targets = rows(dtype)
    logits.requires_grad_()
    decide, law = getattr(rskernels, name), {"targets": targets, "seed": 3}
    counted = decide(logits, density, M, **law, row_offset=5)
    named = decide(logits, density, M, **law, ids=torch.arange(N) + 5)
    for one, other in zip(counted[:4], named[:4], strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())
    torch.testing.assert_close(named.excess, counted.excess)
    assert counted.counts.min() > 0
    named.log_prob[named.mask].sum().backward()
    assert logits.grad.abs().sum() > 0

    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    shuffled = MASKS[name](
        logits[order], density[order], M[order], targets=targets[order], seed=3, ids=order + 5
    )
    assert torch.equal(shuffled, counted.mask[order])


@pytest.mark.parametrize("name", MASKS)
def test_ids_are_any_64_bits(name):
    logits, density, M, targets = rows()
    low = torch.arange(N)
    masks = [
        MASKS[name](logits, density, M, targets=targets, seed=3, ids=ids)
        for ids in (low, low - 2**63, low + 2**40, low * 0 + 9)
    ]
    assert all((one != masks[0]).any() for one in masks[1:])
    u = rskernels.uniforms(1, seed=3, row_offset=9)[0]
    seen = getattr(rskernels, name)(logits, density, M, targets=targets, seed=0)
    chosen = seen.log_ratio.double() - M.double().log() >= u.log()
    assert (masks[3] != chosen).sum() <= 1


def test_linear_logits_and_envelopes_take_them():
    _, density, _, targets = rows()
    generator = torch.Generator().manual_seed(2)
    hidden, weight = torch.randn(N, 4, generator=generator), torch.randn(V, 4, generator=generator)
    linear, ids = rskernels.LinearLogits(hidden, weight), torch.arange(N).flip(0)
    law = {"targets": targets, "seed": 1}
    seen = rskernels.accept(linear, density, 2.0, **law, ids=ids)
    back = rskernels.LinearLogits(hidden.flip(0), weight)
    law["targets"] = targets.flip(0)
    want = rskernels.accept(back, density.flip(0), 2.0, **law)
    assert torch.equal(seen.mask, want.mask.flip(0))
    assert 0 < seen.counts[0] < N
    law["targets"] = targets
    for options in ({"policy": "fixed", "M": 2.0}, {"policy": "leave_one_out"}):
        envelope = rskernels.Envelope(**options)
        mask = envelope.accept(linear, density, **law, ids=ids).mask
        law["targets"], other = targets.flip(0), rskernels.Envelope(**options)
        assert torch.equal(mask, other.accept(back, density.flip(0), **law).mask.flip(0))
        law["targets"] = targets
        assert mask.any()


def test_what_they_are_not():
    logits, density, M, targets = rows()
    ids = torch.arange(N)
    with pytest.raises(ValueError, match="ids are of rows with targets"):
        rskernels.accept_mask(logits, density[:, None], 2.0, ids=ids)
    with pytest.raises(ValueError, match="row_offset is for rows without ids, got 4"):
        rskernels.accept(logits, density, M, targets=targets, ids=ids, row_offset=4)
    with pytest.raises(TypeError, match="ids must be int64, got"):
        rskernels.verify(logits, density, M, targets=targets, ids=ids.int())
    with pytest.raises(ValueError, match="ids must have the decisions' shape"):
        rskernels.verify_mask(logits, density, M, targets=targets, ids=ids[1:])


def test_they_compile_in_one_graph():
    logits, density, M, targets = rows()
    ids = torch.arange(N).flip(0)

    def decide(logits, ids):
        return rskernels.verify_mask(logits, density, M, targets=targets, seed=2, ids=ids)

    compiled = torch.compile(decide, fullgraph=True, backend="eager")
    assert torch.equal(compiled(logits, ids), decide(logits, ids))
