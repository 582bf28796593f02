"""Recurrent policies of several seeds, trained side by side."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

VOCABULARY = 16
LENGTH = 12
HIDDEN = 32
STEP = 3


class Network(NamedTuple):
    """A gated recurrent unit and its output layer, S seeds of each."""

    inputs: Tensor
    """``[S, V + 1, 3H]``, of the token before; the last is of none."""
    recurrent: Tensor
    """``[S, H, 3H]``."""
    output: Tensor
    """``[S, H + 1, V]``, the last row the bias."""


def make_network(seeds: int) -> Network:
    """Return networks, each from its own seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]

    def normal(rows: int, columns: int, scale: float) -> Tensor:
        each = [torch.randn(rows, columns, generator=g) for g in generators]
        return (scale * torch.stack(each)).requires_grad_()

    scale = 1.0 / math.sqrt(HIDDEN)
    return Network(
        normal(VOCABULARY + 1, 3 * HIDDEN, 0.5),
        normal(HIDDEN, 3 * HIDDEN, scale),
        normal(HIDDEN + 1, VOCABULARY, 0.5 * scale),
    )


def log_prob(network: Network, tokens: Tensor) -> Tensor:
    """Return log π of tokens ``[S, B, T]``."""
    seeds, batch, length = tokens.shape
    before = torch.nn.functional.pad(tokens[..., :-1], (1, 0), value=VOCABULARY)
    given = torch.nn.functional.one_hot(before.flatten(1), VOCABULARY + 1).float()
    inputs = (given @ network.inputs).reshape(seeds, batch, length, -1)
    state = torch.zeros(seeds, batch, HIDDEN)
    states = []
    for place in range(length):
        state = _advance(network, inputs[:, :, place], state)
        states.append(state)
    logits = _logits(network, torch.stack(states, 2).flatten(1, 2))
    log_pi = logits.log_softmax(-1).reshape(seeds, batch, length, VOCABULARY)
    return log_pi.gather(-1, tokens[..., None])[..., 0]


@torch.no_grad()
def sample(network: Network, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw sequences of every seed: tokens and their log π, ``[S, B, T]``."""
    seeds = len(network.inputs)
    state = torch.zeros(seeds, batch, HIDDEN)
    token = torch.full((seeds, batch), VOCABULARY)
    rows = torch.arange(seeds)[:, None]
    tokens, logs = [], []
    for _ in range(LENGTH):
        state = _advance(network, network.inputs[rows, token], state)
        log_pi = _logits(network, state).log_softmax(-1)
        waiting = torch.empty_like(log_pi).exponential_(generator=generator)
        token = (log_pi.exp() / waiting).argmax(-1)
        tokens.append(token)
        logs.append(log_pi.gather(-1, token[..., None])[..., 0])
    return torch.stack(tokens, -1), torch.stack(logs, -1)


def reward(tokens: Tensor) -> Tensor:
    """Return the share of tokens that are ``STEP`` above the one before, modulo V; ``[S, B]``."""
    return (tokens.diff(dim=-1) % VOCABULARY == STEP).double().mean(-1)


def _advance(network: Network, given: Tensor, state: Tensor) -> Tensor:
    """Return the next state: ``given`` ``[S, B, 3H]``, ``state`` ``[S, B, H]``."""
    turned = state @ network.recurrent
    update, reset, _ = (given + turned).chunk(3, -1)
    update, reset = update.sigmoid(), reset.sigmoid()
    candidate = (given[..., 2 * HIDDEN :] + reset * turned[..., 2 * HIDDEN :]).tanh()
    return update * state + (1.0 - update) * candidate


def _logits(network: Network, state: Tensor) -> Tensor:
    return state @ network.output[:, :-1] + network.output[:, -1:]
