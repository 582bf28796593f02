"""A language model's loss and its gradients: float32 or bfloat16 [1024, 512] x [32000, 512]."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

import rskernels

N, D, V = 1024, 512, 32000
ACCEPTED = 0.3


class Inputs(NamedTuple):
    """Hidden states and a weight that require gradients, and the tokens that come next."""

    hidden: Tensor
    weight: Tensor
    targets: Tensor
    log_density: Tensor
    """By which verifying accepts three rows of ten."""


def draw(dtype: torch.dtype) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator)
    weight = torch.randn(V, D, generator=generator) / math.sqrt(D)
    targets = torch.randint(V, (N,), generator=generator)
    hidden, weight = (part.to(dtype).requires_grad_() for part in (hidden, weight))
    log_q = rskernels.target_log_prob(
        rskernels.LinearLogits(hidden.detach(), weight.detach()), targets
    )
    return Inputs(hidden, weight, targets, log_q - math.log(ACCEPTED))


def gradients(inputs: Inputs, loss: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, (inputs.hidden, inputs.weight))


def ours(inputs: Inputs) -> tuple[Tensor, ...]:
    logits = rskernels.LinearLogits(inputs.hidden, inputs.weight)
    return gradients(inputs, -rskernels.target_log_prob(logits, inputs.targets).mean())


def accepted(inputs: Inputs) -> tuple[Tensor, ...]:
    """Decide about every row, and learn from those that are accepted."""
    logits = rskernels.LinearLogits(inputs.hidden.detach(), inputs.weight.detach())
    mask = rskernels.verify_mask(logits, inputs.log_density, targets=inputs.targets, log_space=True)
    chosen = rskernels.LinearLogits(inputs.hidden[mask], inputs.weight)
    return gradients(inputs, -rskernels.target_log_prob(chosen, inputs.targets[mask]).mean())


def eager(inputs: Inputs) -> tuple[Tensor, ...]:
    logits = functional.linear(inputs.hidden, inputs.weight)
    return gradients(inputs, functional.cross_entropy(logits.float(), inputs.targets))


def chunked(inputs: Inputs) -> tuple[Tensor, ...]:
    options = torch.nn.LinearCrossEntropyOptions()
    loss = functional.linear_cross_entropy(
        inputs.hidden, inputs.weight, inputs.targets, options=options
    )
    return gradients(inputs, loss)


def products(inputs: Inputs) -> Callable[[], Any]:
    """Return what multiplies three times: for the logits, for either gradient."""
    hidden, weight = inputs.hidden.detach(), inputs.weight.detach()
    logits = torch.empty(N, V, dtype=hidden.dtype)
    by_row, by_column = torch.empty_like(hidden), torch.empty_like(weight)

    def multiply() -> None:
        torch.mm(hidden, weight.t(), out=logits)
        torch.mm(logits, weight, out=by_row)
        torch.mm(logits.t(), hidden, out=by_column)

    return multiply


def calls(inputs: Inputs) -> dict[str, Callable[[], Any]]:
    """Return the forms by name."""
    forms: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours(inputs),
        "ours, 30 % accepted": lambda: accepted(inputs),
        "eager": lambda: eager(inputs),
        "products": products(inputs),
    }
    if hasattr(torch.nn, "LinearCrossEntropyOptions"):
        forms["linear_cross_entropy"] = lambda: chunked(inputs)
    return forms
