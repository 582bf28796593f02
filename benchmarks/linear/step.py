"""A training step of a small language model, with the logits stored and without.

A Llama of 10 or 25 million parameters with a vocabulary of 32,000 (transformers, its configuration
only), 4,096 tokens a step. They are drawn from a Markov chain: the loss falls, and all forms must
follow the same curve. Activations may be checkpointed: made again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

import rskernels

V, LAYERS = 32_000, 2
SEQUENCES, LENGTH = 8, 512
FOLLOWERS = 8  # tokens that may follow a token
RATE = 1e-3


class Case(NamedTuple):
    """A size of model, and whether activations are made again in the backward pass."""

    D: int
    is_checkpointed: bool


CASES = (Case(256, False), Case(512, False), Case(512, True))


class Step(NamedTuple):
    """A model that learns, and what takes its next step."""

    parameters: int
    take: Callable[[], float]
    """Take a step and return the loss before it."""


def tokens(generator: torch.Generator, followers: Tensor) -> Tensor:
    """Return sequences ``[SEQUENCES, LENGTH + 1]`` in which few tokens follow each."""
    ids = torch.randint(V, (SEQUENCES, 1), generator=generator)
    while ids.shape[1] <= LENGTH:
        chosen = torch.randint(FOLLOWERS, (SEQUENCES,), generator=generator)
        ids = torch.cat([ids, followers[ids[:, -1], chosen][:, None]], 1)
    return ids


def loss_of_stored(model: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    logits = model.lm_head(hidden)
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def loss_of_linear(model: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    logits = rskernels.LinearLogits(hidden, model.lm_head.weight)
    return -rskernels.target_log_prob(logits, targets).mean()


LOSSES = {"stored": loss_of_stored, "LinearLogits": loss_of_linear}


def make(loss: str, case: Case) -> Step:
    """Return a model that has learnt nothing yet; of every loss the same."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=V,
        hidden_size=case.D,
        intermediate_size=4 * case.D,
        num_hidden_layers=LAYERS,
        num_attention_heads=case.D // 64,
        tie_word_embeddings=True,
    )
    model, loss_of = LlamaForCausalLM(config), LOSSES[loss]
    if case.is_checkpointed:
        model.gradient_checkpointing_enable()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(1)
    followers = torch.randint(64, (V, FOLLOWERS), generator=generator)

    def take() -> float:
        ids = tokens(generator, followers)
        hidden = model.model(ids[:, :-1]).last_hidden_state
        loss = loss_of(model, hidden, ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Step(sum(part.numel() for part in model.parameters()), take)
