"""Checks of vocabulary_ranks.py: what has no derivative over ranks, and what one costs."""

import pytest
import torch
import torch.distributed as dist

import rskernels
from rskernels import LinearLogits

NOT_SERVED = "transforms of LinearLogits with a group are not served"
TRANSFORMS = [
    (NOT_SERVED, torch.func.grad),
    (NOT_SERVED, torch.func.functionalize),
    ("have no vmap", lambda call: lambda hidden: torch.func.vmap(call)(hidden[None])),
    (
        "no forward-mode derivative",
        lambda call: lambda hidden: torch.func.jvp(call, (hidden,), (hidden,)),
    ),
]


def refuse(message, call, *given, error=NotImplementedError):
    """One rank raises before any collective, in which it would wait for the others."""
    if dist.get_rank() == 0:
        with pytest.raises(error, match=message):
            call(*given)


def check_backward(hidden, weight, targets, begin):
    """Neither a gradient's derivative nor many gradients at once are had, on any rank."""
    live = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    z = LinearLogits(*live, group=dist.group.WORLD, offset=begin)
    value = rskernels.target_log_prob(z, targets)
    for gradient in torch.autograd.grad(value.sum(), live, create_graph=True):
        refuse("no second derivative", torch.autograd.grad, gradient.sum(), live[0])
    upstream = torch.eye(len(hidden))

    def derive_batch():
        torch.autograd.grad(value, live, upstream, retain_graph=True, is_grads_batched=True)

    def derive_each():
        torch.func.vmap(lambda upstream: torch.autograd.grad(value, live, upstream))(upstream)

    refuse("have no vmap", derive_batch)
    refuse("have no vmap", derive_each)


def check_transforms(hidden, weight, targets, density, begin):
    """Transforms, tangents and meta tensors are refused as without a group."""
    law = {"targets": targets, "seed": 1}

    def logits_of(hidden, weight=weight):
        return LinearLogits(hidden, weight, group=dist.group.WORLD, offset=begin)

    def log_prob(hidden):
        return rskernels.target_log_prob(logits_of(hidden), targets).sum()

    def decide(hidden):
        return rskernels.verify(logits_of(hidden), density, 2.0, **law).log_prob.sum()

    def mask(hidden):
        return rskernels.verify_mask(logits_of(hidden), density, 2.0, **law)

    for call in (log_prob, decide, mask):
        for message, transform in TRANSFORMS:
            refuse(message, transform(call), hidden)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(hidden, hidden)
        refuse("no forward-mode derivative", log_prob, dual)
        refuse("no forward-mode derivative", decide, dual)
        # A mask has no derivative that would be lost.
        assert torch.equal(mask(dual), mask(hidden.clone().requires_grad_()))
    z, law["targets"] = logits_of(hidden.to("meta"), weight.to("meta")), targets.to("meta")
    message = "meta tensors have no values for a group to exchange"
    refuse(message, lambda: rskernels.target_log_prob(z, law["targets"]), error=ValueError)
    refuse(message, lambda: rskernels.verify(z, 0.1, 2.0, **law), error=ValueError)


def check_collectives(hidden, parts, targets, begin):
    """The gradients of hidden and A are summed over the ranks at once."""
    live = hidden.clone().requires_grad_(), parts["lora"][0].requires_grad_()
    z = LinearLogits(live[0], **parts, group=dist.group.WORLD, offset=begin)
    value = rskernels.target_log_prob(z, targets).sum()
    calls, all_reduce = [], dist.all_reduce

    def count(*given, **more):
        calls.append(given)
        return all_reduce(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", count)
        torch.autograd.grad(value, live)
    assert len(calls) == 1
