"""prime-rl: a policy gradient on rollouts that a real draw has accepted.

In the trainer's configuration::

    [trainer.loss]
    type = "custom"
    import_path = "rskernels.integrations.prime_rl.loss"

    [trainer.loss.kwargs]
    rule = "seq_sum_bernoulli:2"
"""

from __future__ import annotations

from typing import Any

import torch

from rskernels._python.extras import framework
from rskernels.integrations.decider import SHARES, Decider, shares
from rskernels.integrations.deciders import Deciders

deciders = Deciders()
"""Those of this process; their ``state_dict`` belongs in a checkpoint."""


def loss(
    inputs: Any,
    *,
    rule: str,
    seed: int = 0,
    rank: int | None = None,
    context_parallel: int = 1,
) -> Any:
    """Return -Σ A·log p over the accepted tokens of one sequence, and what was decided.

    Accepted sequences have the law of the current policy p (``"seq_sum_bernoulli"`` with an M that
    covers the ratios). So no importance weight is needed, and the gradient is that of REINFORCE on
    policy. ``loss_weights`` multiply it as in prime-rl's own losses. prime-rl divides by the tokens
    given: where a share a is accepted, the gradient is a times the mean over the accepted.

    prime-rl hands over no ids, so sequences are counted on each rank. Its advantages are made
    before this is called: a rejected answer stays in the baseline of its prompt.

    Parameters
    ----------
    inputs : LossInputs
        prime-rl's, of one sequence: ``trainer_logprobs``, ``inference_logprobs`` and
        ``advantages``, floating ``[T]``, ``loss_mask``, bool ``[T]``, ``loss_weights``, ``[T]`` or
        None.
    rule : str
        As ``Rule.parse`` reads it. With a number as M nothing waits for the device; an M that is
        learnt is read on the host, once a sequence.
    seed : int
        Of all decisions. Give another one when a run is resumed, or load ``deciders``.
    rank : int, optional
        Which data-parallel rank this is. None: that of ``torch.distributed``, divided by
        ``context_parallel``.
    context_parallel : int
        ``trainer.model.cp``: as many neighbouring ranks hold the same sequences, and must decide
        alike.

    Returns
    -------
    LossOutputs
        prime-rl's: the sum, and metrics, scalars of one tensor, ``rskernels/`` and a name of
        ``SHARES``, which prime-rl averages over sequences.

    Raises
    ------
    TypeError, ValueError
        If the rule is none, or shapes differ.
    """
    with framework("this loss", "see prime-rl's own instructions"):
        from prime_rl.trainer.rl.loss import LossOutputs

    logprobs, mask = inputs.trainer_logprobs, inputs.loss_mask
    ratio = logprobs.detach() - inputs.inference_logprobs
    decision = _decider(rule, seed, rank, context_parallel).decide([ratio], [mask])
    kept = decision.token_mask[0]
    # Every factor, since a NaN that is masked in one comes back by another, and in the gradient.
    terms = -torch.where(kept, inputs.advantages, 0.0) * torch.where(kept, logprobs, 0.0)
    if inputs.loss_weights is not None:
        terms = terms * torch.where(kept, inputs.loss_weights, 0.0)
    names = (f"rskernels/{name}" for name in SHARES)
    metrics = dict(zip(names, shares(decision).float().unbind(), strict=True))
    return LossOutputs(loss=terms.sum(), metrics=metrics)


def _decider(rule: str, seed: int, rank: int | None, context_parallel: int) -> Decider:
    """Return the decider of these arguments in this process."""
    if context_parallel < 1:
        raise ValueError(f"context_parallel must be at least 1, got {context_parallel}")
    if rank is None:
        is_group = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() // context_parallel if is_group else 0
    return deciders.of(rule, seed=seed, rank=rank)
