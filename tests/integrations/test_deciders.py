"""What hooks keep of a run: saved and loaded, a resumed run goes on as one that never stopped."""

import io

import pytest
import torch

from rskernels.integrations import prime_rl, slime
from rskernels.integrations.deciders import Deciders
from rskernels.integrations.rules import Rule

from .frameworks import LossInputs, LossOutputs, put_modules
from .test_slime import arguments, call


def rollouts(number, B=12, T=3):
    generator = torch.Generator().manual_seed(number)
    p = list(torch.randn(B, T, generator=generator) * 0.3)
    return p, [torch.zeros(T)] * B, [torch.ones(T)] * B


def by_slime(number):
    _, masks, metrics = call(arguments("seq_sum_bernoulli:budget=0.5"), *rollouts(number))
    return torch.cat([torch.stack(masks).flatten(), *metrics.values()])


def by_prime_rl(number):
    p, q, masks = rollouts(number)
    seen = []
    for log_p, log_q, mask in zip(p, q, masks, strict=True):
        given = LossInputs(log_p, log_q, None, torch.ones(3), mask.bool(), None)
        result = prime_rl.loss(given, rule="token_bernoulli:quantile=0.9")
        seen += [result.loss, *result.metrics.values()]
    return torch.stack(seen)


def restored(state):
    """Return a state as a checkpoint gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(("hook", "step"), [(slime, by_slime), (prime_rl, by_prime_rl)])
def test_a_resumed_run_goes_on(monkeypatch, hook, step):
    put_modules(monkeypatch, prime_rl__trainer__rl__loss={"LossOutputs": LossOutputs})
    hook.deciders.clear()
    step(0)
    step(1)
    state = restored(hook.deciders.state_dict())
    whole = step(2)
    hook.deciders.clear()
    assert not torch.equal(step(2), whole)  # a pilot, and other draws
    hook.deciders.load_state_dict(state)
    assert torch.equal(step(2), whole)
    hook.deciders.clear()


def test_one_is_made_for_what_it_decides():
    deciders = Deciders()
    first = deciders.of("seq_sum_bernoulli:2", rank=1)
    assert deciders.of(Rule.parse("seq_sum_bernoulli:2.0"), rank=1) is first
    others = [
        deciders.of("seq_sum_bernoulli:2", rank=1, seed=1),
        deciders.of("seq_sum_bernoulli:2", rank=1, place="advantages"),
        deciders.of("seq_sum_bernoulli:3", rank=1),
        deciders.of("seq_sum_bernoulli:2", rank=2),
    ]
    assert len({first.draw_seed, *(other.draw_seed for other in others[:3])}) == 4
    assert [other.rank for other in others] == [1, 1, 1, 2]
    assert len(deciders) == 5


def test_a_state_of_another_rank_is_refused_and_a_damaged_one_changes_nothing():
    deciders = Deciders()
    deciders.of("seq_sum_bernoulli:max", rank=3).decide(torch.zeros(4, 1), torch.ones(4, 1))
    resumed = Deciders()
    resumed.load_state_dict(deciders.state_dict())
    assert resumed.of("seq_sum_bernoulli:max", rank=3).count == 4
    with pytest.raises(ValueError, match=r"loaded is of rank 3, and this is rank 2: each rank"):
        resumed.of("seq_sum_bernoulli:max", rank=2)
    damaged = deciders.state_dict()
    damaged["deciders"] += [{"rule": "seq_sum_bernoulli"}]
    with pytest.raises(KeyError):
        resumed.load_state_dict(damaged)
    assert resumed.of("seq_sum_bernoulli:max", rank=3).count == 4
