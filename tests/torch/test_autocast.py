"""Autocast: masks of the logits as they come out of the model, without a cast of their own."""

import pytest
import torch

import rskernels

from ..support.bits import same_bits

AUTOCAST = [torch.bfloat16, torch.float16]


@pytest.fixture(params=AUTOCAST, ids=str)
def dtype(request):
    return request.param


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Linear(8, 50)


def batch(N=64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, 8, generator=generator), torch.arange(N) % 50


def decide(logits, targets):
    return (
        *rskernels.accept(logits, 0.02, 1.5, targets=targets, seed=4),
        *rskernels.verify(logits, 0.02, targets=None, seed=4),
        rskernels.accept_mask(logits, 0.02, 1.5, targets=targets, seed=4),
        *rskernels.bernoulli(logits, 2.0, seed=4),
        rskernels.target_log_prob(logits, targets),
    )


def test_logits_made_under_autocast(model, dtype):
    inputs, targets = batch()
    with torch.autocast("cpu", dtype=dtype), torch.no_grad():
        logits = model(inputs)
        assert logits.dtype == dtype
        inside = decide(logits, targets)
    assert same_bits(inside, decide(logits, targets))
    assert inside[1].dtype == inside[2].dtype == inside[-1].dtype == torch.float32
    # What the 16 bits hold is what counts: widened first, the decisions are the same.
    assert torch.equal(inside[0], decide(logits.float(), targets)[0])


@pytest.mark.parametrize("wider", [torch.float32, torch.float64])
def test_wider_logits_are_not_cast(dtype, wider):
    logits = torch.randn(64, 50, dtype=wider, generator=torch.Generator().manual_seed(2))
    targets = torch.arange(64) % 50
    want = decide(logits, targets)
    with torch.autocast("cpu", dtype=dtype):
        seen = decide(logits, targets)
    assert same_bits(seen, want)
    assert not torch.equal(seen[1], decide(logits.to(dtype), targets)[1])


def test_densities_and_M_are_not_cast(dtype):
    logits, targets = torch.zeros(64, 50), torch.arange(64) % 50
    # Beside 1 in 16 bits, and told apart in 32.
    p_hat, M = torch.linspace(0.02, 0.0201, 64), torch.tensor(1.0001)
    want = rskernels.accept(logits, p_hat, M, targets=targets, seed=0)
    with torch.autocast("cpu", dtype=dtype):
        assert same_bits(rskernels.accept(logits, p_hat, M, targets=targets, seed=0), want)
    assert want.log_ratio.unique().numel() > 60


def test_training_under_autocast(model, dtype):
    inputs, targets = batch()
    with torch.autocast("cpu", dtype=dtype):
        logits = model(inputs)
        mask = rskernels.accept_mask(logits, 0.02, 1.0, targets=targets, seed=4)
        loss = -(rskernels.target_log_prob(logits, targets) * mask).sum()
    assert loss.dtype == torch.float32
    (got,) = torch.autograd.grad(loss, model.weight)
    log_prob = model(inputs).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    (want,) = torch.autograd.grad(-(log_prob * mask).sum(), model.weight)
    assert got.dtype == torch.float32
    assert 0 < mask.sum() < len(mask)
    torch.testing.assert_close(got, want, rtol=0.05, atol=0.05)


def test_compiled_under_autocast(model, compiled):
    def step(inputs, targets):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(inputs)
            return logits, rskernels.accept(logits, 0.02, 1.5, targets=targets, seed=4)

    with torch.no_grad():
        logits, seen = compiled(step)(*batch())
        assert logits.dtype == torch.bfloat16
        assert same_bits(seen, rskernels.accept(logits, 0.02, 1.5, targets=batch()[1], seed=4))


def learn(hidden, weight, targets):
    """Return a loss from hidden states, whose verified rows alone count."""
    z = rskernels.LinearLogits(hidden, weight)
    with torch.no_grad():
        mask = rskernels.verify_mask(z, 0.02, targets=targets, seed=4)
    chosen = rskernels.LinearLogits(hidden[mask], weight)
    return mask, -rskernels.target_log_prob(chosen, targets[mask]).sum()


def test_hidden_states_made_under_autocast(model, dtype):
    inputs, targets = batch()
    below = torch.nn.Linear(8, 8)
    results = []
    for is_inside in (True, False):
        with torch.autocast("cpu", dtype=dtype):
            hidden = below(inputs)
            # Of two dtypes neither is chosen silently.
            with pytest.raises(TypeError, match=f"weight is torch.float32, hidden {dtype}"):
                rskernels.LinearLogits(hidden, model.weight)
            if is_inside:
                mask, loss = learn(hidden, model.weight.to(dtype), targets)
        if not is_inside:
            mask, loss = learn(hidden, model.weight.to(dtype), targets)
        assert loss.dtype == torch.float32
        gradients = torch.autograd.grad(loss, (model.weight, below.weight))
        assert [gradient.dtype for gradient in gradients] == [torch.float32] * 2
        results.append((mask, loss.detach(), *gradients))
    assert same_bits(*results)
    mask, _, *gradients = results[0]
    assert 0 < mask.sum() < len(mask)
    log_prob = (below(inputs) @ model.weight.T).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    want = torch.autograd.grad(-(log_prob * mask).sum(), (model.weight, below.weight))
    for one, other in zip(gradients, want, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)


def test_wider_hidden_states_are_not_cast(model, dtype):
    inputs, targets = batch()
    want = learn(inputs, model.weight, targets)
    gradients = torch.autograd.grad(want[1], model.weight)
    with torch.autocast("cpu", dtype=dtype):
        mask, loss = learn(inputs, model.weight, targets)
        assert torch.equal(mask, want[0])
        assert same_bits(loss.detach(), want[1].detach())
        assert same_bits(torch.autograd.grad(loss, model.weight), gradients)
