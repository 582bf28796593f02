"""Bias and variance of estimators by enumeration of all sequences."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rskernels.experiments.off_policy.estimators import (
    FILTER,
    INDEPENDENT,
    Estimator,
    Rollouts,
)
from rskernels.experiments.off_policy.policy import (
    Pair,
    Sequences,
    gradient,
    squared_norms,
    token_log_prob,
)


class Laws(NamedTuple):
    """What a pair of policies makes of all sequences."""

    pair: Pair
    cells: Tensor
    """``[S, T]``."""
    log_ratio: Tensor
    """``[S, T]``."""
    q: Tensor
    """The stale policy's probability of each sequence, ``[S]``."""
    w: Tensor
    """Π r, ``[S]``."""
    advantage: Tensor
    """The reward less its mean under the stale policy, ``[S]``."""
    norms: Tensor
    """Squared norms of ∇ log π of tokens, ``[S, T]``."""
    gradient: Tensor
    """The true gradient, of the current policy, ``[D]``."""
    value: float
    """The true mean of the reward under the current policy."""

    @property
    def divergence(self) -> float:
        """KL(new‖old) in nats."""
        return float((self.q * self.w * self.w.log()).sum())

    @property
    def ess(self) -> float:
        """The effective share of rollouts, 1/E[w²]."""
        return 1.0 / float((self.q * self.w.square()).sum())


class Moments(NamedTuple):
    """Mean and variance of an estimator from a batch."""

    gradient: Tensor
    """``[D]``."""
    variance: float
    """The trace of the gradient's covariance."""
    reward: float
    reward_variance: float
    kept: float
    """The share of tokens that need a gradient."""


def laws_of(pair: Pair, sequences: Sequences) -> Laws:
    """Compute what all estimators of a pair need."""
    new, old = (token_log_prob(logits, sequences.cells) for logits in (pair.new, pair.old))
    q, w = old.sum(1).exp(), (new - old).sum(1).exp()
    advantage = pair.reward - q @ pair.reward
    true = _sum(pair, sequences.cells, (q * w * advantage)[:, None].expand_as(new))
    return Laws(
        pair,
        sequences.cells,
        new - old,
        q,
        w,
        advantage=advantage,
        norms=squared_norms(pair.new, sequences.cells),
        gradient=true,
        value=float((q * w) @ pair.reward),
    )


def moments_of(estimator: Estimator, laws: Laws, n: int) -> Moments:
    """Return the moments of an estimator without draws; ``n`` sequences a batch."""
    every = Rollouts(laws.log_ratio[None], laws.advantage[None], seed=0)
    token = estimator.weigh(every).token[0]
    if estimator.moments == INDEPENDENT:
        return of_weights(laws, token, token.square(), token.mean(1).square(), n)
    assert estimator.moments == FILTER
    return of_filter(laws, token[:, 0], n)


def of_rejection(laws: Laws, log_M: float, n: int) -> Moments:
    """Return the moments of rejection of whole sequences with a given M."""
    return of_filter(laws, (laws.w / math.exp(log_M)).clamp(max=1.0), n)


def of_control(laws: Laws, log_M: float, n: int) -> Moments:
    """Return the moments of rejection with the weights max(w, M) on what is accepted."""
    M = math.exp(log_M)
    second = laws.w * laws.w.clamp(min=M)
    shape = laws.log_ratio
    weights = laws.w[:, None].expand_as(shape)
    moments = of_weights(laws, weights, second[:, None].expand_as(shape), second, n)
    return moments._replace(kept=float(laws.q @ (laws.w / M).clamp(max=1.0)))


def of_weights(laws: Laws, mean: Tensor, second: Tensor, square: Tensor, n: int) -> Moments:
    """Return the moments of a mean over n sequences.

    ``mean`` and ``second`` ``[S, T]`` are those of a token's weight, ``square`` ``[S]`` the second
    moment of their mean over the sequence.
    """
    total = _sum(laws.pair, laws.cells, (laws.q * laws.advantage)[:, None] * mean)
    squares = (laws.q * laws.advantage.square()) @ (second * laws.norms).sum(1)
    reward = float((laws.q * laws.pair.reward) @ mean.mean(1))
    rewards = float((laws.q * laws.pair.reward.square()) @ square)
    kept = float(laws.q @ (mean != 0).double().mean(1))
    variance = float(squares - total.square().sum()) / n
    return Moments(total, variance, reward, (rewards - reward**2) / n, kept)


def of_filter(laws: Laws, accept: Tensor, n: int) -> Moments:
    """Return the moments of the mean over accepted sequences, 0 where there is none.

    Given that m are accepted they are m independent draws of the law ∝ q·accept, and m is binomial.
    """
    rate = float(laws.q @ accept)
    if rate == 0.0:
        return Moments(torch.zeros_like(laws.gradient), 0.0, 0.0, 0.0, 0.0)
    one = of_weights(laws._replace(q=laws.q * accept / rate), *_ones(laws), 1)
    m = torch.arange(1, n + 1, dtype=torch.float64)
    some = torch.distributions.Binomial(n, torch.tensor(rate, dtype=torch.float64).clamp(max=1.0))
    chance = some.log_prob(m).exp()
    any_, each = float(chance.sum()), float((chance / m).sum())
    between = any_ * (1.0 - any_)
    return Moments(
        any_ * one.gradient,
        each * one.variance + between * float(one.gradient.square().sum()),
        any_ * one.reward,
        each * one.reward_variance + between * one.reward**2,
        rate,
    )


def mixed(moments: list[Moments]) -> Moments:
    """Return the moments where M, and with it the estimator, is drawn from a list."""
    means = torch.stack([m.gradient for m in moments])
    rewards = torch.tensor([m.reward for m in moments], dtype=torch.float64)
    count = len(moments)
    return Moments(
        means.mean(0),
        sum(m.variance for m in moments) / count + float(means.var(0, correction=0).sum()),
        float(rewards.mean()),
        sum(m.reward_variance for m in moments) / count + float(rewards.var(correction=0)),
        sum(m.kept for m in moments) / count,
    )


def _ones(laws: Laws) -> tuple[Tensor, Tensor, Tensor]:
    ones = torch.ones_like(laws.log_ratio)
    return ones, ones, ones[:, 0]


def _sum(pair: Pair, cells: Tensor, weights: Tensor) -> Tensor:
    return gradient(pair.new, cells[None], weights[None])[0]
