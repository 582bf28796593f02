"""Selection rules: which samples of a batch are used for the gradient, and with what weight.

A rule is a pure function of the logits, the labels, the wanted density and a `State`. The
model is the proposal: q is its probability of the label, p̂ the wanted density, w = p̂/q.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import rskernels


class State(NamedTuple):
    """What a decision may depend on besides the batch.

    Attributes
    ----------
    log_M : Tensor
        Scalar or ``[N]``, log of the envelope constant in force before this batch.
    seed : int
        Key of the uniforms.
    row_offset : int
        Rows decided before this batch: the row id of its first row.
    """

    log_M: Tensor
    seed: int
    row_offset: int


class Selection(NamedTuple):
    """What a rule decided.

    Attributes
    ----------
    mask : Tensor
        bool ``[N]``, the samples used for the gradient. All False is a batch to skip.
    weights : Tensor
        float32 ``[N]``, non-negative and constant for autograd; the loss of the batch is
        ``Σ weights·loss / Σ weights`` over the mask.
    log_ratio : Tensor
        ``[N]``, log p̂ − log q; NaN where the row is invalid, 0 for a rule that reads no ratio.
    counts : Tensor
        int64 ``[4]``: accepted, violations (w > M), invalid, ignored.
    excess : Tensor
        float64 ``[2]``: Σ(w/M − 1)₊ and Σ w/M; their quotient δ̂ estimates the excess mass, which
        bounds the total variation between the wanted law and the accepted one. 0, 0 for a rule
        without an envelope.
    """

    mask: Tensor
    weights: Tensor
    log_ratio: Tensor
    counts: Tensor
    excess: Tensor


class Rule(NamedTuple):
    """A rule and what the loop must do for it.

    Attributes
    ----------
    select : callable
        ``(logits [N, C], targets [N], log_p_hat [C], state) -> Selection``.
    rejects : bool
        Whether it drops samples. The loop then scores the batch without autograd and runs the
        gradient pass on the accepted samples alone, with M from an Envelope.
    """

    select: Callable[[Tensor, Tensor, Tensor, State], Selection]
    rejects: bool


def plain(logits: Tensor, targets: Tensor, log_p_hat: Tensor, state: State) -> Selection:
    """Use every sample with weight one: the baseline."""
    return _keep_all(torch.zeros_like(logits[:, 0]))


def reweight(logits: Tensor, targets: Tensor, log_p_hat: Tensor, state: State) -> Selection:
    """Use every sample with its class's weight p̂: class-weighted cross-entropy."""
    return _keep_all(log_p_hat[targets])


def importance(logits: Tensor, targets: Tensor, log_p_hat: Tensor, state: State) -> Selection:
    """Use every sample with weight p̂/q, normalised over the batch."""
    return _keep_all(log_ratio(logits, targets, log_p_hat))


def accept(logits: Tensor, targets: Tensor, log_p_hat: Tensor, state: State) -> Selection:
    """Use each sample with probability min(1, p̂/(M·q)), and then with weight one."""
    result = rskernels.accept(
        logits,
        log_p_hat[targets],
        state.log_M,
        targets=targets,
        log_space=True,
        seed=state.seed,
        row_offset=state.row_offset,
    )
    weights = torch.ones_like(logits[:, 0])
    return Selection(result.mask, weights, result.log_ratio, result.counts, result.excess)


RULES: dict[str, Rule] = {
    "plain": Rule(plain, rejects=False),
    "reweight": Rule(reweight, rejects=False),
    "importance": Rule(importance, rejects=False),
    "accept": Rule(accept, rejects=True),
}


def log_ratio(logits: Tensor, targets: Tensor, log_p_hat: Tensor) -> Tensor:
    """Return log p̂ − log q of each sample, ``[N]``; NaN where the logits are invalid."""
    return log_p_hat[targets] - rskernels.target_log_prob(logits, targets)


def _keep_all(log_weight: Tensor) -> Selection:
    """Keep every row of finite weight, scaled so that the largest weight is one."""
    mask = log_weight.isfinite()
    largest = torch.where(mask, log_weight, -torch.inf).amax()
    weights = torch.where(mask, (log_weight - largest).exp(), 0)
    # A weight of zero is a valid wish; only a ratio of NaN or infinity is an invalid row.
    invalid = (~(log_weight < torch.inf)).sum()
    zero = torch.zeros_like(invalid)
    counts = torch.stack([mask.sum(), zero, invalid, zero])
    return Selection(mask, weights, log_weight, counts, torch.zeros(2, dtype=torch.float64))
