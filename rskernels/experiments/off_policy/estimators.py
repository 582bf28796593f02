"""What is done about rollouts of a stale policy: each way as weights of tokens.

A gradient is Σ weight · advantage · ∇ log π(token) / total. The bounds are those that frameworks
come with; none of them draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rskernels.envelope import Envelope
from rskernels.ops import SequenceAcceptance, accept_prefix, accept_sequences

INDEPENDENT, FILTER, RATIO, DRAWN = "independent", "filter", "ratio", "drawn"
"""How an estimator's moments follow: a mean over all sequences of known weights; one over those
kept by a fixed rule; a quotient of sums; or what is decided by an envelope."""


class Rollouts(NamedTuple):
    """R batches of n sequences of T tokens, of the stale policy."""

    log_ratio: Tensor
    """log π_new - log π_old of each token, ``[R, n, T]``."""
    advantage: Tensor
    """``[R, n]``."""
    seed: int
    """Of the draws."""
    envelope: Envelope | None = None
    """With a group for each batch, where an estimator needs one."""


class Weights(NamedTuple):
    """What a batch's tokens count."""

    token: Tensor
    """``[R, n, T]``; 0 for a token that needs no gradient."""
    total: Tensor
    """``[R]``: what their sum is divided by, as a number of sequences."""

    @property
    def kept(self) -> Tensor:
        """The tokens that need a gradient, ``[R]``."""
        return (self.token != 0).sum((1, 2))


class Estimator(NamedTuple):
    """One way to use stale rollouts."""

    name: str
    family: str
    weigh: Callable[[Rollouts], Weights]
    moments: str
    """One of the four above."""
    policy: str | None = None
    """Of its envelope, as ``Envelope.parse`` reads it; "true" is the largest ratio there is."""
    on_violation: str = "cap"


def per_sequence(token: Tensor) -> Weights:
    """Divide by the sequences given."""
    return Weights(token, torch.full(token.shape[:1], token.shape[1], dtype=token.dtype))


def per_kept(mask: Tensor, dtype: torch.dtype) -> Weights:
    """Take the mean over the tokens kept; ``mask`` bool ``[R, n, T]``."""
    return Weights(mask.to(dtype), mask.sum((1, 2)).to(dtype) / mask.shape[-1])


def over_tokens(sequence: Tensor, like: Tensor) -> Tensor:
    """Give each token what its sequence has: ``[R, n]`` to ``[R, n, T]``."""
    return sequence[..., None].expand_as(like)


def nothing(rollouts: Rollouts) -> Weights:
    """Use all as if they were the current policy's."""
    return per_sequence(torch.ones_like(rollouts.log_ratio))


def truncate_tokens(rollouts: Rollouts) -> Weights:
    """Weigh a token by min(r, 2)."""
    return per_sequence(rollouts.log_ratio.exp().clamp(max=2.0))


def truncate_sequences(rollouts: Rollouts) -> Weights:
    """Weigh a sequence by min(Π r, 3)."""
    return per_sequence(over_tokens(product(rollouts).clamp(max=3.0), rollouts.log_ratio))


def mask_tokens(rollouts: Rollouts) -> Weights:
    """Keep the tokens of 0.5 ≤ r ≤ 2, unweighted."""
    return per_kept(within(rollouts.log_ratio.exp(), 0.5, 2.0), rollouts.log_ratio.dtype)


def mask_weighted_tokens(rollouts: Rollouts) -> Weights:
    """Weigh the tokens of 0.5 ≤ r ≤ 5 by r, the others by 0."""
    ratio = rollouts.log_ratio.exp()
    return per_sequence(torch.where(within(ratio, 0.5, 5.0), ratio, 0.0))


def mask_weighted_sequences(rollouts: Rollouts) -> Weights:
    """Weigh the sequences of Π r ≤ 3 by Π r, the others by 0."""
    ratio = product(rollouts)
    kept = torch.where(ratio <= 3.0, ratio, 0.0)
    return per_sequence(over_tokens(kept, rollouts.log_ratio))


def mask_sequences(rollouts: Rollouts) -> Weights:
    """Keep the sequences of 0.5 ≤ Π r ≤ 2, unweighted."""
    mask = within(product(rollouts), 0.5, 2.0)
    return per_kept(over_tokens(mask, rollouts.log_ratio), rollouts.log_ratio.dtype)


def mask_geometric(rollouts: Rollouts) -> Weights:
    """Keep the sequences whose geometric mean of r is in 0.5 to 2, unweighted."""
    mask = within(rollouts.log_ratio.mean(-1).exp(), 0.5, 2.0)
    return per_kept(over_tokens(mask, rollouts.log_ratio), rollouts.log_ratio.dtype)


def mask_geometric_narrowly(rollouts: Rollouts) -> Weights:
    """Keep the sequences whose geometric mean of r is in 0.9 to 1.1, unweighted."""
    mask = within(rollouts.log_ratio.mean(-1).exp(), 0.9, 1.1)
    return per_kept(over_tokens(mask, rollouts.log_ratio), rollouts.log_ratio.dtype)


def weigh(rollouts: Rollouts) -> Weights:
    """Weigh a sequence by Π r."""
    return per_sequence(over_tokens(product(rollouts), rollouts.log_ratio))


def weigh_by_share(rollouts: Rollouts) -> Weights:
    """Weigh a sequence by Π r, and divide by the sum of these weights."""
    ratio = product(rollouts)
    return Weights(over_tokens(ratio, rollouts.log_ratio), ratio.sum(1))


def clip(rollouts: Rollouts) -> Weights:
    """Weigh a token by r; by 0 where PPO's clipped objective, at 0.2, is flat."""
    ratio = rollouts.log_ratio.exp()
    rises = over_tokens(rollouts.advantage, ratio) > 0
    flat = torch.where(rises, ratio > 1.2, ratio < 0.8)
    return per_sequence(torch.where(flat, 0.0, ratio))


def accept_prefixes(rollouts: Rollouts) -> Weights:
    """Keep each sequence's tokens until the first that is rejected, M = 1."""
    lengths = accept_prefix(rollouts.log_ratio.flatten(0, 1), seed=rollouts.seed)
    places = torch.arange(rollouts.log_ratio.shape[-1])
    mask = (places < lengths[:, None]).reshape(rollouts.log_ratio.shape)
    return per_kept(mask, rollouts.log_ratio.dtype)


def accept_whole(rollouts: Rollouts) -> Weights:
    """Accept a sequence with probability min(1, Π r / M), by the M of earlier batches."""
    mask = decide(rollouts).token_mask
    assert isinstance(mask, Tensor)  # it is a list for a list alone
    return per_kept(mask.reshape(rollouts.log_ratio.shape), rollouts.log_ratio.dtype)


def control(rollouts: Rollouts) -> Weights:
    """Accept by min(1, Π r / M), and weigh what is accepted by max(Π r, M).

    The weights that make rejection right for any M (Liu, Chen & Wong 1998).
    """
    log_ratio, envelope = rollouts.log_ratio, rollouts.envelope
    assert envelope is not None
    groups = groups_of(log_ratio)
    log_M = envelope.known_log_M(groups).nan_to_num(nan=math.inf)
    seen = accept_sequences(log_ratio.flatten(0, 1), log_M, log_space=True, seed=rollouts.seed)
    # NaN without an M, where nothing is accepted either.
    over_M = envelope.update(seen.log_ratio, groups, accepted=seen.mask)
    assert over_M is not None
    kept = torch.where(seen.mask, over_M * log_M.exp(), 0.0).reshape(log_ratio.shape[:2])
    return per_sequence(over_tokens(kept.to(log_ratio.dtype), log_ratio))


def decide(rollouts: Rollouts) -> SequenceAcceptance:
    """Decide the sequences of all batches, each by the M of its group, and learn from them.

    A group of which no finite M is known accepts nothing, whatever is known of others.
    """
    log_ratio, envelope = rollouts.log_ratio.flatten(0, 1), rollouts.envelope
    assert envelope is not None
    groups = groups_of(rollouts.log_ratio)
    return envelope.accept_sequences(log_ratio, groups=groups, seed=rollouts.seed)


def groups_of(log_ratio: Tensor) -> Tensor:
    """Return the batch of each sequence, ``[R * n]``."""
    return torch.arange(log_ratio.shape[0]).repeat_interleave(log_ratio.shape[1])


def product(rollouts: Rollouts) -> Tensor:
    """Return Π r of each sequence, ``[R, n]``."""
    return rollouts.log_ratio.sum(-1).exp()


def within(ratio: Tensor, low: float, high: float) -> Tensor:
    """Say which ratios are in an interval."""
    return (ratio >= low) & (ratio <= high)


def rejection(name: str, policy: str) -> Estimator:
    """Return rejection of whole sequences with a policy of M."""
    return Estimator(f"rejection, M {name}", "rejection", accept_whole, DRAWN, policy)


ESTIMATORS = (
    Estimator("no correction", "nothing", nothing, INDEPENDENT),
    Estimator("TIS, token, cap 2", "truncation", truncate_tokens, INDEPENDENT),
    Estimator("TIS, sequence, cap 3", "truncation", truncate_sequences, INDEPENDENT),
    Estimator("mask, token, 0.5 to 2", "mask", mask_tokens, RATIO),
    Estimator("mask, token, 0.5 to 5, weighted", "mask", mask_weighted_tokens, INDEPENDENT),
    Estimator("mask, sequence, to 3, weighted", "mask", mask_weighted_sequences, INDEPENDENT),
    Estimator("mask, sequence, 0.5 to 2", "mask", mask_sequences, FILTER),
    Estimator("mask, geometric, 0.5 to 2", "mask", mask_geometric, FILTER),
    Estimator("mask, geometric, 0.9 to 1.1", "mask", mask_geometric_narrowly, FILTER),
    Estimator("PPO clip, 0.2", "clip", clip, INDEPENDENT),
    Estimator("importance weights", "weights", weigh, INDEPENDENT),
    Estimator("importance weights, self-normalised", "weights", weigh_by_share, RATIO),
    Estimator("prefix rejection, M 1", "rejection", accept_prefixes, RATIO),
    rejection("true", "true"),
    rejection("max", "max"),
    rejection("tail", "tail"),
    rejection("budget:0.5", "budget:0.5"),
    Estimator(
        "control, M budget:0.5", "rejection", control, DRAWN, "budget:0.5", on_violation="control"
    ),
)
