"""Selection rules: which samples of a batch are used for the gradient, and with what weight.

A rule is a pure function of the logits, the targets, the rows' other log density and a `State`.
The model is the proposal: q is its probability of the row's label, p̂ the density that the samples
are to follow, and w = p̂/q; but for `transfer`, whose model is the target. A rule is added to
``RULES``, and nowhere else: `rskernels train` then takes its name.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels.ops import Acceptance, target_log_prob
from rskernels.ops import accept as accept_rows
from rskernels.ops import verify as verify_rows


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
        float32 ``[N]``, constant for autograd, and relative: the largest of the mask is 1, so that
        no ratio is too large for them. The loss of the batch is ``Σ weights·loss / Σ weights`` over
        the mask.
    log_ratio : Tensor
        ``[N]``, log w; NaN where the row is invalid, 0 for a rule that reads no ratio.
    counts : Tensor
        int64 ``[4]``: accepted, violations (w > M), invalid, ignored.
    excess : Tensor
        float64 ``[2]``: Σ(w/M − 1)₊ and Σ w/M; their quotient δ̂ estimates the excess mass, which
        for an M fixed in advance bounds the total variation between the law of p̂ and the accepted
        one. 0, 0 for a rule without an envelope.
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
        ``(logits [N, C], targets [N], log_density [N], state) -> Selection``.
    rejects : bool
        Whether it drops samples. The loop then scores the batch without autograd and runs the
        gradient pass on the accepted samples alone, with M from an Envelope.
    envelope : str, optional
        The envelope that belongs to the rule; None leaves the choice to the run.
    balances : bool
        Whether each modality has an M of its own, by which it gets its share of what is used. The
        other rules have one M, if any, and leave the modalities' balance to p̂.
    """

    select: Callable[[Tensor, Tensor, Tensor, State], Selection]
    rejects: bool
    envelope: str | None = None
    balances: bool = False


def plain(logits: Tensor, targets: Tensor, log_density: Tensor, state: State) -> Selection:
    """Use every sample with weight one: the baseline."""
    return _keep_all(torch.zeros_like(log_density))


def reweight(logits: Tensor, targets: Tensor, log_density: Tensor, state: State) -> Selection:
    """Use every sample with weight p̂: class-weighted cross-entropy where p̂ is the class's."""
    return _keep_all(log_density)


def importance(logits: Tensor, targets: Tensor, log_density: Tensor, state: State) -> Selection:
    """Use every sample with weight p̂/q, normalised over the batch."""
    return _keep_all(log_ratio(logits, targets, log_density))


def accept(logits: Tensor, targets: Tensor, log_density: Tensor, state: State) -> Selection:
    """Use each sample with probability min(1, p̂/(M·q)), and then with weight one."""
    result = accept_rows(logits, log_density, state.log_M, targets=targets, **_draws(state))
    return _selection(result, torch.ones_like(log_density))


def control(logits: Tensor, targets: Tensor, log_density: Tensor, state: State) -> Selection:
    """Use each sample with probability min(1, w/M), and then with a weight ∝ max(w, M).

    Rejection control: the weighted law is exact for any M, also one of each row, since the two
    multiply to w (Liu, Chen & Wong, "Rejection control and sequential importance sampling", JASA
    93, 1998).
    """
    result = accept_rows(logits, log_density, state.log_M, targets=targets, **_draws(state))
    log_weight = result.log_ratio.double().maximum(state.log_M)
    return _selection(result, _relative(log_weight, result.mask))


def transfer(logits: Tensor, targets: Tensor, log_density: Tensor, state: State) -> Selection:
    """Reject each sample with probability max(0, 1 − p/(M·q)), p from the logits, q the density.

    p is the target domain's probability of the sample and q the source domain's; M is 1, so that
    draws of q that are used follow min(p, q), which is p where p is below q.
    """
    result = verify_rows(logits, log_density, state.log_M, targets=targets, **_draws(state))
    return _selection(result, torch.ones_like(log_density))


RULES: dict[str, Rule] = {
    "plain": Rule(plain, rejects=False),
    "reweight": Rule(reweight, rejects=False),
    "importance": Rule(importance, rejects=False),
    "accept": Rule(accept, rejects=True, balances=True),
    "control": Rule(control, rejects=True),
    "transfer": Rule(transfer, rejects=True, envelope="fixed:1"),
}


def log_ratio(logits: Tensor, targets: Tensor, log_density: Tensor) -> Tensor:
    """Return log w = log p̂ − log q of each sample, ``[N]``; NaN where the logits are invalid."""
    return log_density - target_log_prob(logits, targets)


def _draws(state: State) -> dict[str, Any]:
    """Return what a decision draws by; densities and M are logarithms."""
    return {"log_space": True, "seed": state.seed, "row_offset": state.row_offset}


def _selection(result: Acceptance, weights: Tensor) -> Selection:
    return Selection(result.mask, weights, result.log_ratio, result.counts, result.excess)


def _keep_all(log_weight: Tensor) -> Selection:
    """Keep every row of finite weight."""
    mask = log_weight.isfinite()
    # A weight of zero is a valid wish; only a ratio of NaN or infinity is an invalid row.
    invalid = (~(log_weight < torch.inf)).sum()
    zero = torch.zeros_like(invalid)
    counts = torch.stack([mask.sum(), zero, invalid, zero])
    weights = _relative(log_weight, mask)
    return Selection(mask, weights, log_weight, counts, torch.zeros(2, dtype=torch.float64))


def _relative(log_weight: Tensor, mask: Tensor) -> Tensor:
    """Return weights, float32 ``[N]``, the largest of the mask 1, and 0 outside of it."""
    log_weight = log_weight.double().where(mask, -torch.inf)
    return (log_weight - log_weight.amax()).exp().where(mask, 0).float()
