"""The steps that are measured, and what else takes them: eager torch, and transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import rskernels

R, K, V = 64, 5, 32_000
SPREAD = 3.0
# How far the draft's logits are off the target's.
CASES: dict[str, dict[str, Any]] = {
    "near draft": {"off": 0.5},
    "far draft": {"off": 2.0},
    "no draft's logits": {"off": 0.5, "is_certain": True},
    "top-k 50": {"off": 0.5, "top_k": 50},
    "top-p 0.9": {"off": 0.5, "top_p": 0.9},
}


class Step(NamedTuple):
    """Inputs of a step, and its settings."""

    target: Tensor  # [R, K + 1, V]
    tokens: Tensor  # [R, K], drawn from the draft
    draft: Tensor  # [R, K, V]
    settings: dict[str, Any]
    is_certain: bool = False


def draw(off: float, is_certain: bool = False, **settings: Any) -> Step:
    """Return the inputs of a case."""
    generator = torch.Generator().manual_seed(0)
    shape = R, K + 1, V
    target = SPREAD * torch.randn(shape, generator=generator)
    draft = target[:, :K] + off * torch.randn(R, K, V, generator=generator)
    q = filtered(draft, **settings).softmax(-1)
    tokens = q.flatten(0, 1).multinomial(1, generator=generator).view(R, K)
    return Step(target, tokens, draft, settings, is_certain)


def filtered(logits: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Return logits as transformers' warpers leave them."""
    if top_k is not None:
        least = logits.topk(top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None:
        ranked, order = logits.sort(-1)
        removed = ranked.softmax(-1).cumsum(-1) <= 1 - top_p
        removed[..., -1] = False
        logits = logits.masked_fill(removed.scatter(-1, order, removed), -torch.inf)
    return logits


def eager(step: Step) -> tuple[Tensor, Tensor]:
    """Return (tokens [R, K + 1], accepted [R]) by torch's own operators, as few as do it."""
    row, places = torch.arange(R), torch.arange(K + 1)
    p = filtered(step.target, **step.settings).softmax(-1)
    p_of = p[:, :K].gather(-1, step.tokens[..., None])[..., 0]
    q, q_of = None, torch.ones_like(p_of)
    if not step.is_certain:
        q = filtered(step.draft, **step.settings).softmax(-1)
        q_of = q.gather(-1, step.tokens[..., None])[..., 0]
    accepted = (torch.rand(R, K) * q_of <= p_of).long().cumprod(-1).sum(-1)
    weights, last = p[row, accepted], accepted.clamp(max=K - 1)
    is_rejected = (accepted < K)[:, None]
    if q is None:
        hole = torch.zeros_like(weights).scatter_(-1, step.tokens[row, last, None], torch.inf)
        weights = (weights - torch.where(is_rejected, hole, 0.0)).clamp(min=0)
    else:
        weights = (weights - torch.where(is_rejected, q[row, last], 0.0)).clamp(min=0)
    drawn = weights.multinomial(1)
    tokens = torch.nn.functional.pad(step.tokens, (0, 1))
    tokens = torch.where(places < accepted[:, None], tokens, -1)
    return torch.where(places == accepted[:, None], drawn, tokens), accepted


def of_transformers(step: Step) -> list[tuple[Tensor, Tensor]]:
    """Return (tokens, accepted) of each request by ``transformers``, which takes one at a time."""
    from transformers.generation.utils import _speculative_sampling

    target, draft = (filtered(part, **step.settings) for part in (step.target, step.draft))
    return [
        _speculative_sampling(
            step.tokens[one : one + 1], draft[one : one + 1], K, target[one : one + 1]
        )
        for one in range(R)
    ]


def calls(step: Step) -> dict[str, Callable[[], Any]]:
    """Return what is measured, by name."""
    draft = None if step.is_certain else step.draft
    given = (step.target, step.tokens, draft)

    def ours(method: str) -> Callable[[], Any]:
        return lambda: rskernels.speculative_sample(*given, method=method, seed=1, **step.settings)

    found = {"token": ours("token"), "block": ours("block"), "eager": lambda: eager(step)}
    if not step.is_certain:
        found["transformers"] = lambda: of_transformers(step)
    return found
