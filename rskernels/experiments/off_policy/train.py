"""Training on rollouts that are a number of updates old."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rskernels.envelope import Envelope
from rskernels.experiments.off_policy.estimators import (
    ESTIMATORS,
    RATIO,
    Estimator,
    Rollouts,
    Weights,
    nothing,
    rejection,
    truncate_tokens,
)
from rskernels.experiments.off_policy.network import (
    LENGTH,
    Network,
    log_prob,
    make_network,
    reward,
    sample,
)
from rskernels.ops import bernoulli_mask, masked_mean

BATCH = 64
LEARNING_RATE = 0.01
HALF_LIFE = 512.0
"""Of what an envelope that forgets has seen, in rollouts: policies move, and so do the ratios."""


def at_random(share: float, rollouts: Rollouts, then: Callable[[Rollouts], Weights]) -> Weights:
    """Keep a share of the sequences whatever their ratios, and weigh these by another way.

    What rejection is to be measured against: it too takes more and smaller steps for its tokens.
    """
    sequences = torch.zeros(rollouts.log_ratio.shape[:2], dtype=torch.float64)
    mask = bernoulli_mask(sequences, 1.0 / share, seed=rollouts.seed)
    return Weights(then(rollouts).token * mask[..., None], mask.sum(1).double())


TRAINED = (
    *(e for e in ESTIMATORS if e.policy != "true"),
    rejection("decayed", "decayed"),
    Estimator("half at random", "random", lambda r: at_random(0.5, r, nothing), RATIO),
    Estimator(
        "half at random, TIS, token, cap 2",
        "random",
        lambda r: at_random(0.5, r, truncate_tokens),
        RATIO,
    ),
    Estimator(
        "tenth at random, TIS, token, cap 2",
        "random",
        lambda r: at_random(0.1, r, truncate_tokens),
        RATIO,
    ),
)
"""The ways to train; no one knows the largest ratio of a network."""


def train(estimator: Estimator, *, age: int, steps: int, seeds: int) -> dict[str, Any]:
    """Train ``seeds`` policies by REINFORCE on rollouts of the policy ``age`` updates before.

    Adam; the advantage is the reward less its mean over the batch's rollouts, accepted or not. The
    first ``age`` batches are of the initial policy. Every estimator starts from the same networks
    and draws by the same generator.

    Returns
    -------
    dict
        ``returns``, ``tokens`` and ``kept``, each ``[seeds][steps]``: the mean reward of the batch
        drawn before a step, the tokens that had a gradient until then, the share of this step.
    """
    generator = torch.Generator().manual_seed(1234)
    network = make_network(seeds)
    optimizer = torch.optim.Adam(list(network), lr=LEARNING_RATE)
    envelope = _envelope(estimator, seeds)
    waiting = deque(sample(network, BATCH, generator) for _ in range(age))
    returns, kept = [], []
    for step in range(steps):
        waiting.append(sample(network, BATCH, generator))
        returns.append(reward(waiting[-1][0]).mean(1))
        tokens, old = waiting.popleft()
        optimizer.zero_grad()
        loss, used = _loss(estimator, network, tokens, old, step, envelope)
        loss.backward()
        optimizer.step()
        kept.append(used)
    shares = torch.stack(kept, 1).double()
    before = shares.cumsum(1) - shares
    return {
        "returns": torch.stack(returns, 1).tolist(),
        "tokens": before.long().tolist(),
        "kept": (shares / (BATCH * LENGTH)).tolist(),
    }


def _loss(
    estimator: Estimator,
    network: Network,
    tokens: Tensor,
    old: Tensor,
    step: int,
    envelope: Envelope | None,
) -> tuple[Tensor, Tensor]:
    """Return the sum of the seeds' losses, and how many tokens of each have a gradient."""
    value = reward(tokens)
    advantage = value - value.mean(1, keepdim=True)
    new = log_prob(network, tokens)
    log_ratio = new.detach().double() - old.double()
    weights = estimator.weigh(Rollouts(log_ratio, advantage, step, envelope))
    return mean_loss(weights, advantage, new).sum(), weights.kept


def mean_loss(weights: Weights, advantage: Tensor, log_pi: Tensor) -> Tensor:
    """Return -Σ weight · advantage · log π / (T · total) of each seed, 0 where nothing is kept."""
    terms = -(weights.token * advantage[..., None]).float() * log_pi
    total = torch.where(weights.total > 0, weights.total, 1.0)
    share = weights.kept / (log_pi.shape[-1] * total)
    return masked_mean(terms, weights.token != 0, dim=(1, 2)) * share


def _envelope(estimator: Estimator, seeds: int) -> Envelope | None:
    """Return an envelope with a group for each seed, which has seen nothing."""
    if estimator.policy is None:
        return None
    forgets = estimator.policy.partition(":")[0] in ("budget", "decayed")
    return Envelope.parse(
        estimator.policy,
        groups=seeds,
        half_life=HALF_LIFE if forgets else None,
        on_violation=estimator.on_violation,
    )
