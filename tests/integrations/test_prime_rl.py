"""prime-rl's loss, called a sequence at a time with its dataclasses."""

import sys

import pytest
import torch

from rskernels.integrations import prime_rl
from rskernels.integrations.decider import SHARES, Decider

from .frameworks import Law, LossInputs, LossOutputs, put_modules


@pytest.fixture(autouse=True)
def recorded(monkeypatch):
    put_modules(monkeypatch, prime_rl__trainer__rl__loss={"LossOutputs": LossOutputs})
    prime_rl.deciders.clear()
    yield
    prime_rl.deciders.clear()


def inputs(p, q, mask=None, advantages=None, weights=None):
    return LossInputs(
        trainer_logprobs=p,
        inference_logprobs=q,
        ref_logprobs=None,
        advantages=torch.ones_like(q) if advantages is None else advantages,
        loss_mask=torch.ones_like(q, dtype=torch.bool) if mask is None else mask,
        loss_weights=weights,
    )


def test_accepted_sequences_have_the_law_of_the_trainer():
    law = Law(800)
    rule = f"seq_sum_bernoulli:{law.M}"
    kept = torch.stack(
        [
            prime_rl.loss(inputs(p, q), rule=rule).metrics["rskernels/accepted"]
            for p, q in zip(law.log_p, law.log_q, strict=True)
        ]
    )
    assert law.chi_squared(kept.bool()) > 5e-8
    whole = Decider(rule).decide(law.log_p - law.log_q, torch.ones(800, 2))
    assert torch.equal(kept.bool(), whole.mask)


def test_the_loss_is_a_policy_gradient_on_what_is_accepted():
    p = torch.tensor([-0.5, -0.2, -9.0, -1.0], requires_grad=True)
    advantages, weights = torch.tensor([2.0, 2.0, 2.0, 2.0]), torch.tensor([1.0, 0.5, 1.0, 0.0])
    mask = torch.tensor([True, True, False, True])
    q = torch.tensor([-2.0, -2.0, torch.nan, -2.0])
    result = prime_rl.loss(inputs(p, q, mask, advantages, weights), rule="seq_sum_bernoulli:0.5")
    assert result.loss.item() == pytest.approx(1.0 + 0.2)
    result.loss.backward()
    assert p.grad.tolist() == [-2.0, -1.0, 0.0, 0.0]
    assert set(result.metrics) == {f"rskernels/{name}" for name in SHARES}
    assert {value.dim() for value in result.metrics.values()} == {0}
    assert result.metrics["rskernels/violations"] == 1.0


def test_what_is_rejected_has_no_gradient_and_spoils_no_mean():
    p = torch.tensor([-0.5, -0.2], requires_grad=True)
    for q in (torch.tensor([torch.nan, -0.1]), torch.tensor([40.0, 0.0])):
        result = prime_rl.loss(inputs(p, q), rule="seq_sum_bernoulli:2")
        result.loss.backward()
        assert result.loss == 0
        assert p.grad.tolist() == [0.0, 0.0]
        assert all(value.isfinite() for value in result.metrics.values())


@pytest.mark.parametrize("rule", ["token_bernoulli:2", "prefix_bernoulli", "seq_mean_k3_bernoulli"])
def test_tokens_and_prefixes_are_kept_by_their_own_draws(rule):
    p, q = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-0.5, -0.7, -0.6])
    decider = Decider(rule, seed=3)
    for _ in range(20):
        result = prime_rl.loss(inputs(p, q), rule=rule, seed=3)
        kept = decider.decide([p - q], [torch.ones(3)]).token_mask[0]
        assert result.loss.item() == pytest.approx(-(p * kept).sum().item())


def test_ranks_are_told_apart_and_context_parallel_peers_are_not(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    ranks = []
    for rank in range(4):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        ranks.append(prime_rl._decider("prefix_bernoulli", 0, None, 2).rank)
    assert ranks == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="context_parallel must be at least 1, got 0"):
        prime_rl.loss(inputs(torch.zeros(1), torch.zeros(1)), rule="r", context_parallel=0)


def test_the_framework_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "prime_rl", None)
    monkeypatch.delitem(sys.modules, "prime_rl.trainer.rl.loss")
    with pytest.raises(ModuleNotFoundError, match="this loss needs prime_rl, which is not install"):
        prime_rl.loss(inputs(torch.zeros(1), torch.zeros(1)), rule="prefix_bernoulli")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("which", ["advantages", "weights", "p"])
def test_what_is_masked_reaches_neither_loss_nor_gradient(which, bad):
    mask = torch.tensor([True, True, False])
    given = {"p": torch.zeros(3), "advantages": torch.ones(3), "weights": torch.ones(3)}
    given[which][2] = bad
    p = given.pop("p").requires_grad_()
    result = prime_rl.loss(inputs(p, torch.zeros(3), mask, **given), rule="seq_sum_bernoulli:1")
    result.loss.backward()
    assert result.loss == 0
    assert p.grad.tolist() == [-1.0, -1.0, 0.0]


def test_means_over_sequences_keep_their_quotients():
    rule, every = "seq_sum_bernoulli:budget=0.5", torch.ones(3, dtype=torch.bool)
    found = [
        prime_rl.loss(inputs(torch.zeros(3), torch.zeros(3), every if i % 2 else ~every), rule=rule)
        for i in range(8)
    ]
    mean = {
        name: torch.stack([one.metrics[f"rskernels/{name}"] for one in found]).mean().item()
        for name in SHARES
    }
    assert all(abs(value) < 10 for value in mean.values())
    assert mean["valid"] == 0.5  # an answer without a token is not one that was rejected
    assert mean["tokens"] == 0.5
    assert mean["pilot"] == 1 / 8
