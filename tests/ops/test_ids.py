"""Rows of logits decided by ids that are given: the draw is the id's, whatever the order."""

import math

import pytest
import torch

import rskernels
from rskernels.law.philox import row_uniforms
from rskernels.ops import ratios

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


def rows_near(name, log_M, dtype=torch.float32):
    """Return rows whose log r is within some 1e-6 of log u of seed 3: the log of their density."""
    generator = torch.Generator().manual_seed(1)
    logits, _, _, targets = rows(dtype)
    index = targets.clamp(min=0)
    log_q = logits.double().log_softmax(-1).gather(1, index[:, None])[:, 0]
    noise = 1e-6 * torch.randn(N, generator=generator).double()
    log_w = row_uniforms(torch.arange(N), 0, 3, 0).double().log() + log_M + noise
    return logits, log_w + log_q if name == "accept" else log_q - log_w, index


def assert_near_rows_agree(name, dtype=torch.float32):
    """Compare decisions by ids with those by numbers, of Ms of each kind."""
    decide, ids = getattr(rskernels, name), torch.arange(N)
    numbers = [torch.tensor(log_M, dtype=torch.float64) for log_M in (0.53, 66.1)]
    of_rows = torch.linspace(-0.7, 300.3, N, dtype=torch.float64)
    for log_M in (*(number.item() for number in numbers), *numbers, of_rows):
        logits, log_density, targets = rows_near(name, log_M, dtype)
        law = {"targets": targets, "seed": 3}
        M = log_M.exp() if isinstance(log_M, torch.Tensor) else math.exp(log_M)
        for log_space, of in ((True, (log_density, log_M)), (False, (log_density.exp(), M))):
            law["log_space"] = log_space
            counted, named = decide(logits, *of, **law), decide(logits, *of, **law, ids=ids)
            assert torch.equal(named.mask, counted.mask)
            assert torch.equal(named.counts, counted.counts)
            assert N / 5 < counted.counts[0] < N
            assert torch.equal(MASKS[name](logits, *of, **law, ids=ids), counted.mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", MASKS)
def test_rows_near_their_draw_are_decided_as_by_their_numbers(name, dtype):
    assert_near_rows_agree(name, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_M_that_is_not_rounded_as_ratios_are_is_found(monkeypatch, dtype):
    def otherwise(M, log_space, log_ratio):
        log_M = torch.as_tensor(M, dtype=torch.float64)
        log_M = log_M if log_space else log_M.log()
        return log_M if log_ratio.dtype == torch.float32 else log_M.float()

    monkeypatch.setattr(ratios, "rounded_log_M", otherwise)
    for name in MASKS:
        with pytest.raises(AssertionError):
            assert_near_rows_agree(name, dtype)


@pytest.mark.parametrize("name", MASKS)
def test_rows_near_their_draw_are_decided_alike_by_envelopes(name):
    logits, log_density, targets = rows_near(name, 66.1)
    masks = []
    for ids in (None, torch.arange(N)):
        decide = getattr(rskernels.Envelope(policy="fixed", M=math.exp(66.1)), name)
        law = {"targets": targets, "seed": 3, "ids": ids, "log_space": True}
        masks.append(decide(logits, log_density, **law).mask)
    assert torch.equal(*masks)
    assert masks[0].any()


def test_every_backend_rounds_M(kernel):
    count = kernel.rows(N, slow=512)
    for name in MASKS:
        logits, log_density, targets = (part[:count] for part in rows_near(name, 66.1))
        law, is_target = {"seed": 3, "log_space": True}, name == "verify"
        of = (logits, targets, log_density, 66.1)
        seen = kernel.decide(*of, **law, model_is_target=is_target)
        log_M = ratios.rounded_log_M(66.1, True, seen.log_ratio)
        named = kernel.bernoulli(seen.log_ratio, log_M, **law, ids=torch.arange(count))
        assert torch.equal(named, seen.mask)
        unrounded = kernel.bernoulli(seen.log_ratio, 66.1, **law, ids=torch.arange(count))
        assert not torch.equal(unrounded, seen.mask)


def test_ids_that_are_not_used_are_found(monkeypatch):
    def by_place(log_ratio, M, ids, **law):
        return bernoulli(log_ratio, M, **law)

    bernoulli = ratios.bernoulli
    monkeypatch.setattr(ratios, "bernoulli", by_place)
    for name in MASKS:
        with pytest.raises(AssertionError):
            test_rows_are_decided_as_those_of_their_numbers(name, torch.float32)


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


@pytest.mark.parametrize("name", MASKS)
def test_what_is_refused_is_so_with_ids(name):
    logits, density, M, targets = rows()
    wide = rskernels.ColumnOrder(torch.tensor([0]), V + 1)
    fits = rskernels.ColumnOrder(torch.tensor([0]), V)
    cases = [
        ({"order": "nonsense"}, TypeError, "must be a ColumnOrder or None, got str"),
        ({"order": wide}, ValueError, "order is of 8 columns, the logits have 7"),
        ({"logits": logits.numpy()}, TypeError, "logits must be a torch.Tensor, got ndarray"),
        ({"logits": [1.0]}, TypeError, "logits must be a torch.Tensor, got list"),
    ]
    if name == "accept":
        cases.append(({"assume_finite": torch.ones(2)}, RuntimeError, "is ambiguous"))
    for changed, error, message in cases:
        given = {"logits": logits, "targets": targets, "seed": 3} | changed
        source = given.pop("logits")
        for ids in (None, torch.arange(N)):
            with pytest.raises(error, match=message):
                MASKS[name](source, density, M, **given, ids=ids)
    law = {"targets": targets, "seed": 3, "ids": torch.arange(N)}
    want = MASKS[name](logits, density, M, **law)
    assert torch.equal(MASKS[name](logits, density, M, **law, order=fits), want)


def test_they_compile_in_one_graph():
    logits, density, M, targets = rows()
    ids = torch.arange(N).flip(0)

    def decide(logits, ids):
        return rskernels.verify_mask(logits, density, M, targets=targets, seed=2, ids=ids)

    compiled = torch.compile(decide, fullgraph=True, backend="eager")
    assert torch.equal(compiled(logits, ids), decide(logits, ids))
