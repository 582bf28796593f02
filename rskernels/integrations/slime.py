"""slime: decisions in its off-policy hook, or before its advantages.

Both read what the arguments hold, which ``--custom-config-path`` fills from a YAML file:
``rskernels_rule`` (as ``Rule.parse`` reads it) and ``rskernels_seed`` (0 where it is missing).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rskernels.integrations.decider import SHARES, Decider, Decision, shares
from rskernels.integrations.deciders import Deciders
from rskernels.integrations.extras import megatron
from rskernels.integrations.groups import accepted_advantages

deciders = Deciders()
"""Those of both hooks in this process; their ``state_dict`` belongs in a checkpoint."""


def tis(
    args: Any,
    *,
    pg_loss: Tensor,
    train_log_probs: Sequence[Tensor],
    rollout_log_probs: Sequence[Tensor],
    loss_masks: Sequence[Tensor],
    total_lengths: Sequence[int],
    response_lengths: Sequence[int],
    **kwargs: Any,
) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """Decide a micro-batch, as slime's ``--use-tis --custom-tis-function-path``.

    The loss of what is rejected becomes 0 and its mask 0; what is accepted keeps weight 1, since
    its law is that of the training policy. slime hands no ids to this hook, so sequences are
    counted on each data-parallel rank; decisions come too late for advantages (see ``advantages``).

    Parameters
    ----------
    args : Namespace
        slime's, with ``rskernels_rule``.
    pg_loss : Tensor
        floating ``[N]``: the loss of the response tokens of this micro-batch, one after the other;
        with context parallelism those of this rank.
    train_log_probs, rollout_log_probs : sequence of Tensor
        log p and log q of each sequence, floating ``[T_b]``; with context parallelism this rank's.
    loss_masks : sequence of Tensor
        ``[R_b]`` of whole responses, not 0 where a token counts.
    total_lengths, response_lengths : sequence of int
        Of each sequence, by which slime cuts it over context-parallel ranks.

    Returns
    -------
    tuple
        The loss ``[N]``; masks of whole responses ``[R_b]``, in the dtype given; and
        metrics, float32 ``[N]`` each, rows of one tensor, which slime averages over the tokens of
        ``loss_masks`` with what else it logs: ``rskernels/`` and a name of ``SHARES``.

    Raises
    ------
    TypeError, ValueError
        If the rule is missing or none, or the lists differ in length.
    """
    given = {"rollout_log_probs": rollout_log_probs, "loss_masks": loss_masks}
    for name, values in given.items():
        if len(values) != len(train_log_probs):
            raise ValueError(f"{name} has {len(values)} tensors, train_log_probs has "
                             f"{len(train_log_probs)}")  # fmt: skip
    gather, cut = _context_parallel(total_lengths, response_lengths)
    ratios = [
        p.detach() - q
        for p, q in zip(gather(train_log_probs), gather(rollout_log_probs), strict=True)
    ]
    decision = _decider(args, "tis").decide(ratios, loss_masks)
    masks = [
        torch.where(kept, mask, torch.zeros_like(mask))
        for kept, mask in zip(decision.token_mask, loss_masks, strict=True)
    ]
    kept = cut(decision.token_mask)
    for log_prob, flags in zip(train_log_probs, kept, strict=True):
        _stop_nan(log_prob, flags)
    is_kept = torch.cat(kept) if kept else pg_loss.new_zeros(0, dtype=torch.bool)
    return torch.where(is_kept, pg_loss, 0.0), masks, _metrics(decision, pg_loss)


def advantages(args: Any, rollout_data: dict[str, Any]) -> None:
    """Decide a rollout before its advantages: ``--custom-advantage-function-path``.

    ``rskernels.integrations.slime.advantages`` in place of GRPO's: rejected answers leave the
    baseline of their prompt, and ``loss_masks`` are 0 for them from here on, so that ``tis`` is not
    needed. Decisions are keyed by slime's own ``sample_indices``: with an M that is given they do
    not depend on how samples are dealt over ranks. One that is learnt each rank learns from what it
    has seen.

    Parameters
    ----------
    args : Namespace
        slime's, with ``rskernels_rule``, ``n_samples_per_prompt`` and, as for GRPO,
        ``grpo_std_normalization``.
    rollout_data : dict
        Of this rank: ``log_probs``, ``rollout_log_probs``, ``loss_masks``, ``sample_indices`` and
        ``rewards``, which may be normalised by prompt. ``advantages``, ``returns`` and
        ``loss_masks`` are set, and lists that slime averages for its log, ``rskernels/`` and a name
        of ``SHARES``.

    Raises
    ------
    KeyError, TypeError, ValueError
        If something is missing, or the rule is none.
    """
    for name in ("log_probs", "rollout_log_probs", "loss_masks", "sample_indices", "rewards"):
        if rollout_data.get(name) is None:
            raise KeyError(f"rollout_data has no {name}, which decisions about advantages need")
    gather, cut = _context_parallel(rollout_data["total_lengths"], rollout_data["response_lengths"])
    p, q = gather(rollout_data["log_probs"]), gather(rollout_data["rollout_log_probs"])
    ratios = [one.detach() - other for one, other in zip(p, q, strict=True)]
    indices = [int(index) for index in rollout_data["sample_indices"]]
    masks = rollout_data["loss_masks"]
    decision = _decider(args, "advantages").decide(ratios, masks, ids=indices)
    rewards = torch.as_tensor(
        rollout_data["rewards"], dtype=torch.float32, device=decision.mask.device
    )
    numbers = torch.tensor(indices, dtype=torch.int64, device=rewards.device)
    groups = numbers // args.n_samples_per_prompt
    values = accepted_advantages(
        *_of_all_ranks(rewards, decision.mask, groups),
        has_std=getattr(args, "grpo_std_normalization", True),
    )[: len(rewards)]
    each = [value * torch.ones_like(one) for value, one in zip(values, p, strict=True)]
    rollout_data["loss_masks"] = [
        torch.where(kept, mask, torch.zeros_like(mask))
        for kept, mask in zip(decision.token_mask, masks, strict=True)
    ]
    rollout_data["advantages"] = rollout_data["returns"] = cut(each)
    for name, value in zip(SHARES, shares(decision).tolist(), strict=True):
        rollout_data[f"rskernels/{name}"] = [value] * len(indices)


def _decider(args: Any, place: str) -> Decider:
    """Return the decider of these arguments in this process, of one of the two hooks."""
    rule = getattr(args, "rskernels_rule", None)
    if rule is None:
        raise ValueError(
            "args.rskernels_rule is missing; set it by --custom-config-path, such as "
            "'rskernels_rule: seq_sum_bernoulli:2'"
        )
    seed, rank = getattr(args, "rskernels_seed", 0), _data_parallel()[0]
    return deciders.of(rule, seed=seed, rank=rank, place=place)


def _stop_nan(log_prob: Tensor, kept: Tensor) -> None:
    """Let no NaN into the gradient of what is rejected: an exp that overflowed makes one of a 0."""
    if log_prob.requires_grad:
        log_prob.register_hook(lambda gradient: gradient.where(kept | gradient.isfinite(), 0.0))


def _metrics(decision: Decision, pg_loss: Tensor) -> dict[str, Tensor]:
    """Return one row a metric of a tensor as long as the loss, as slime takes them."""
    rows = shares(decision).float()[:, None].expand(-1, len(pg_loss))
    return dict(zip((f"rskernels/{name}" for name in SHARES), rows.unbind(), strict=True))


def _data_parallel() -> tuple[int, Any]:
    """Return the data-parallel rank, which peers with the same sequences share, and its group."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, None
    mpu = megatron()
    if mpu is None:
        return torch.distributed.get_rank(), torch.distributed.group.WORLD
    return mpu.get_data_parallel_rank(), mpu.get_data_parallel_group()


def _context_parallel(
    total_lengths: Sequence[int], response_lengths: Sequence[int]
) -> tuple[Callable[..., list[Tensor]], Callable[..., list[Tensor]]]:
    """Return what gathers whole responses from context-parallel ranks, and what cuts them again."""
    mpu = megatron()
    if mpu is None or mpu.get_context_parallel_world_size() == 1:
        return list, list
    from slime.backends.megatron_utils.cp_utils import all_gather_with_cp, slice_log_prob_with_cp

    def each(function: Callable[..., Tensor]) -> Callable[..., list[Tensor]]:
        def over(values: Sequence[Tensor]) -> list[Tensor]:
            lengths = zip(values, total_lengths, response_lengths, strict=True)
            return [function(*arguments) for arguments in lengths]

        return over

    return each(all_gather_with_cp), each(slice_log_prob_with_cp)


def _of_all_ranks(*rows: Tensor) -> tuple[Tensor, ...]:
    """Return rows of every data-parallel rank, this one's first: slime deals answers over them."""
    rank, group = _data_parallel()
    if group is None or torch.distributed.get_world_size(group) == 1:
        return rows
    shared: list[Any] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(shared, tuple(row.cpu() for row in rows), group=group)
    ordered = [shared.pop(rank), *shared]
    device = rows[0].device
    return tuple(torch.cat(column).to(device) for column in zip(*ordered, strict=True))
