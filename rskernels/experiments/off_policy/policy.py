"""A policy whose every sequence can be listed, so that laws and gradients are known exactly."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

VOCABULARY = 8
LENGTH = 6
STEP = 3
"""What a rewarded token is above the one before it, modulo the vocabulary."""
UPDATES = 24
LEARNING_RATE = 0.05
"""Of Adam, by which the current policy was trained."""


class Sequences(NamedTuple):
    """All ``VOCABULARY ** LENGTH`` sequences."""

    cells: Tensor
    """int64 ``[S, T]``: of each token its cell in a table ``[T, V, V]`` of (place, token before,
    token), flat."""
    steps: Tensor
    """float64 ``[S, T - 1]``: each token less the one before it, modulo V."""


def all_sequences() -> Sequences:
    """List every sequence."""
    powers = VOCABULARY ** torch.arange(LENGTH)
    tokens = torch.arange(VOCABULARY**LENGTH)[:, None] // powers % VOCABULARY
    before = torch.nn.functional.pad(tokens[:, :-1], (1, 0))
    cells = (torch.arange(LENGTH) * VOCABULARY + before) * VOCABULARY + tokens
    return Sequences(cells, ((tokens - before)[:, 1:] % VOCABULARY).double())


def verifier_reward(sequences: Sequences) -> Tensor:
    """Return 1 where at least three of five tokens are ``STEP`` above the one before, else 0.

    A uniform policy has it in 1.6 % of its sequences. float64 ``[S]``.
    """
    return ((sequences.steps == STEP).sum(1) >= 3).double()


def smooth_reward(sequences: Sequences) -> Tensor:
    """Return the mean of (1 + cos(2π(d - STEP)/V))/2 over the steps d; float64 ``[S]``."""
    angle = 2.0 * torch.pi * (sequences.steps - STEP) / VOCABULARY
    return ((1.0 + angle.cos()) / 2.0).mean(1)


REWARDS = {"verifier": verifier_reward, "smooth": smooth_reward}


def token_log_prob(logits: Tensor, cells: Tensor) -> Tensor:
    """Return log π of tokens: ``logits`` ``[T, V, V]``, of cells ``[..., T]``."""
    return logits.log_softmax(-1).flatten()[cells]


def gradient(logits: Tensor, cells: Tensor, weights: Tensor) -> Tensor:
    """Return Σ weight · ∇ log π(token) for each of R sets, with respect to the logits.

    Parameters
    ----------
    logits : Tensor
        float64 ``[T, V, V]``.
    cells, weights : Tensor
        int64 and float64 ``[R, n, T]``.

    Returns
    -------
    Tensor
        float64 ``[R, T·V·V]``.
    """
    sets, size = len(cells), logits.numel()
    places = cells.reshape(sets, -1) + size * torch.arange(sets)[:, None]
    total = torch.zeros(sets * size, dtype=weights.dtype)
    total.index_add_(0, places.flatten(), weights.flatten())
    total = total.reshape(sets, *logits.shape)
    return (total - total.sum(-1, keepdim=True) * logits.softmax(-1)).flatten(1)


def squared_norms(logits: Tensor, cells: Tensor) -> Tensor:
    """Return the squared norm of ∇ log π of each token ``[..., T]``.

    Tokens at different places have gradients in different cells, so that a sequence's squared norm
    is the sum of its tokens'.
    """
    pi = logits.softmax(-1)
    norms = 1.0 - 2.0 * pi + pi.square().sum(-1, keepdim=True)
    return norms.flatten()[cells]


class Pair(NamedTuple):
    """A current policy and the stale one that the rollouts come from."""

    name: str
    new: Tensor
    """Logits, float64 ``[T, V, V]``."""
    old: Tensor
    reward: Tensor
    """float64 ``[S]``."""


def make_pairs(
    sequences: Sequences, reward: str, ages: tuple[int, ...], noise: float
) -> list[Pair]:
    """Train a policy by exact gradients, and pair it with what it was some updates before.

    The last pair is of the trained policy and a copy with Gaussian noise of standard deviation
    ``noise`` on its logits, as of an engine that computes otherwise than the trainer.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (LENGTH, VOCABULARY, VOCABULARY)
    logits = (0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE)
    value = REWARDS[reward](sequences)
    history = []
    for _ in range(UPDATES):
        history.append(logits.detach().clone())
        optimizer.zero_grad()
        law = token_log_prob(logits, sequences.cells).sum(1).exp()
        (-(law @ value)).backward()
        optimizer.step()
    new = logits.detach()
    pairs = [Pair(f"{age} updates old", new, history[-age], value) for age in ages]
    noisy = new + noise * torch.randn(shape, generator=generator, dtype=torch.float64)
    return [*pairs, Pair(f"noise of {noise:g} on logits", new, noisy, value)]
