"""verl: decisions by real draws in ``rollout_rs``, a policy loss, and advantages among accepted.

``VERL_USE_EXTERNAL_MODULES=rskernels.integrations.verl_plugin`` installs all three in every process
of verl. Then options may stand in ``algorithm.rollout_correction``::

    rollout_rs: seq_sum_bernoulli
    rollout_rs_threshold: "2.0"            # or "budget=0.5"
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rskernels._python.extras import framework
from rskernels.integrations.decider import Decider
from rskernels.integrations.deciders import Deciders
from rskernels.integrations.extras import megatron
from rskernels.integrations.groups import accepted_advantages
from rskernels.integrations.rules import RULES, Rule

IN_OPTION = "in_option"
"""The ``rollout_rs_threshold`` for options that each say their own M: verl requires some value."""

PLACE = "policy_loss"
"""The place of ``policy_loss``: its draws differ from those of the driver's ``rollout_rs``."""

RejectionMask = Callable[..., tuple[Tensor, dict[str, float]]]


class Rejection:
    """verl's ``compute_rollout_rejection_mask``, with rules of ours beside its thresholds.

    It is an object, one a process, since it counts sequences and learns M. In verl's decoupled mode
    the driver decides a whole batch before advantages are computed; in its bypass mode each worker
    decides its micro-batches.

    Parameters
    ----------
    thresholds : callable
        verl's function, which is asked for its own options.
    seed : int
        Of all decisions. Give another one when a run is resumed.
    rank : int, optional
        Which data-parallel rank this is. None: asked of verl when a decision is made.
    """

    def __init__(
        self, thresholds: RejectionMask, *, seed: int = 0, rank: int | None = None
    ) -> None:
        self.thresholds, self.seed, self.rank = thresholds, seed, rank
        self.deciders = Deciders()

    def __call__(
        self,
        log_ratio: Tensor,
        response_mask: Tensor,
        rollout_rs: str = "token_k1",
        rollout_rs_threshold: str | float | None = None,
        place: str = "",
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the mask of what every option keeps, and metrics.

        Parameters
        ----------
        log_ratio : Tensor
            floating ``[B, T]``, log p - log q of each token.
        response_mask : Tensor
            ``[B, T]``, not 0 where there is a token.
        rollout_rs : str
            Options, separated by commas: verl's own and those of ``Rule.parse``, with or without
            their M.
        rollout_rs_threshold : str or float
            For the options that do not say their own M: one for all of them, or one each, separated
            by commas. ``"in_option"`` where there are none.
        place : str
            As of ``Decider``.

        Returns
        -------
        tuple
            The mask ``[B, T]`` in the dtype of ``response_mask``, and floats by name. A rule's are
            ``rollout_rs_LABEL_METRIC``, with its ``Rule.label`` and the names of
            ``decider.METRICS``, such as ``rollout_rs_seq_sum_bernoulli_2.0_acceptance``; they are
            of valid rows alone and read in one wait for the device. What is not finite is left
            out, since verl takes means.

        Raises
        ------
        TypeError, ValueError
            If an option is neither verl's nor a rule, or its threshold is missing or not accepted.
        """
        ours, theirs, thresholds = _split(rollout_rs, rollout_rs_threshold)
        mask = response_mask
        metrics: dict[str, float] = {}
        if theirs:
            mask, metrics = self.thresholds(
                log_ratio, response_mask, ",".join(theirs), ",".join(thresholds)
            )
        for rule in ours:
            # Each option sees all tokens: what another one rejects does not change its statistic.
            decision = self.decider(rule, place).decide(log_ratio.detach(), response_mask)
            mask = mask * decision.token_mask.to(mask.dtype)
            found = decision.metrics.to_dict(f"rollout_rs_{rule.label}_")
            metrics |= {name: value for name, value in found.items() if math.isfinite(value)}
        return mask, metrics

    def decider(self, rule: Rule, place: str = "") -> Decider:
        """Return what decides by this rule, at this place of a run, in this process."""
        rank = _data_parallel_rank() if self.rank is None else self.rank
        return self.deciders.of(rule, seed=self.seed, rank=rank, place=place)


def install(*, seed: int = 0, rank: int | None = None) -> Rejection:
    """Put rules, the loss ``"rskernels"`` and the advantages ``"rskernels_grpo"`` into verl.

    Returns what has replaced ``compute_rollout_rejection_mask``; to call it again replaces it by
    one that has counted and learnt nothing.

    - ``algorithm.rollout_correction.rollout_rs`` then takes rules, see ``Rejection``.
    - ``actor_rollout_ref.actor.policy_loss.loss_mode: rskernels`` is ``policy_loss``.
    - ``algorithm.adv_estimator: rskernels_grpo`` is ``grpo_advantages``.
    """
    with framework("this adapter", "pip install verl"):
        from verl.trainer.ppo import core_algos, rollout_corr_helper

    present = rollout_corr_helper.compute_rollout_rejection_mask
    thresholds = present.thresholds if isinstance(present, Rejection) else present
    rejection = Rejection(thresholds, seed=seed, rank=rank)
    rollout_corr_helper.compute_rollout_rejection_mask = rejection

    def loss(**kwargs: Any) -> tuple[Tensor, dict[str, Any]]:
        return policy_loss(rejection=rejection, **kwargs)

    core_algos.POLICY_LOSS_REGISTRY.pop("rskernels", None)
    core_algos.register_policy_loss("rskernels")(loss)
    core_algos.ADV_ESTIMATOR_REGISTRY.pop("rskernels_grpo", None)
    core_algos.register_adv_est("rskernels_grpo")(grpo_advantages)
    return rejection


def policy_loss(
    *,
    rejection: RejectionMask,
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    config: Any,
    loss_agg_mode: str = "token-mean",
    rollout_is_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Return REINFORCE on the rollouts that a draw accepts as draws of the current policy.

    ``config.policy_loss.rollout_correction.rollout_rs`` and its threshold decide, with
    r = exp(log_prob - old_log_prob): ``old_log_prob`` has to be that of the policy that drew the
    rollouts. (verl's ``bypass_mode`` sets a ``loss_mode`` of its own, which asks ``rejection``
    too.) verl's ``agg_loss`` averages -A·log p of the kept tokens, without importance weights, over
    the tokens *given*: a micro-batch of which nothing is kept has loss 0 with gradient 0, and how a
    batch is cut changes no weight.

    Parameters
    ----------
    rejection : Rejection
        What decides, as ``install`` returns it.
    old_log_prob, log_prob, advantages, response_mask : Tensor
        floating ``[B, T]``, and the mask.
    loss_agg_mode : str
        As verl's.
    config : ActorConfig
        verl's.
    rollout_is_weights : Tensor, optional
        Refused: what is accepted has weight 1.

    Raises
    ------
    ValueError
        If no rule is configured, or with weights.
    """
    from verl.trainer.ppo.core_algos import agg_loss

    correction = config.policy_loss.get("rollout_correction", None)
    rule = None if correction is None else correction.get("rollout_rs", None)
    if rule is None:
        raise ValueError(
            "loss_mode 'rskernels' decides by policy_loss.rollout_correction.rollout_rs, such as "
            "'seq_sum_bernoulli', which is not set"
        )
    if rollout_is_weights is not None:
        raise ValueError("accepted rollouts have weight 1; set rollout_is to null")
    mask, metrics = rejection(
        log_prob.detach() - old_log_prob,
        response_mask,
        rule,
        correction.get("rollout_rs_threshold", None),
        place=PLACE,
    )
    kept = mask.bool()
    # Both, since a NaN that is masked in one factor comes back by the other, and in the gradient.
    terms = torch.where(kept, log_prob, 0.0) * -torch.where(kept, advantages, 0.0)
    loss = agg_loss(
        loss_mat=terms,
        loss_mask=response_mask,
        loss_agg_mode=loss_agg_mode,
        **config.global_batch_info,
    )
    return loss, {f"rollout_corr/{name}": value for name, value in metrics.items()}


def grpo_advantages(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Any,
    epsilon: float = 1e-6,
    norm_adv_by_std_in_grpo: bool | None = None,
    config: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Return GRPO's advantages with rejected siblings out of the baseline.

    An answer without a token in ``response_mask`` was rejected. All else is as in
    ``accepted_advantages``, of the sum of an answer's rewards.

    Parameters
    ----------
    token_level_rewards, response_mask : Tensor
        ``[B, T]``.
    index : array
        ``[B]``: the ``uid`` of each answer's prompt.
    epsilon : float
        Added to the standard deviation.
    norm_adv_by_std_in_grpo : bool, optional
        Whether to divide by it. None: as ``config`` says, else True.
    config : AlgoConfig, optional
        verl's.

    Returns
    -------
    tuple
        Advantages and returns ``[B, T]``, which are the same.
    """
    if norm_adv_by_std_in_grpo is None:
        has_std = config.get("norm_adv_by_std_in_grpo", True) if config is not None else True
    else:
        has_std = norm_adv_by_std_in_grpo
    numbers = np.unique(np.asarray(index, dtype=str), return_inverse=True)[1].reshape(-1)
    accepted = response_mask.bool().any(-1)
    groups = torch.from_numpy(numbers).to(accepted.device)
    scores = token_level_rewards.detach().sum(-1)
    values = accepted_advantages(scores, accepted, groups, has_std=has_std, epsilon=epsilon)
    advantages = values[:, None] * response_mask
    return advantages, advantages


def _split(options: str, threshold: str | float | None) -> tuple[list[Rule], list[str], list[str]]:
    """Return rules, verl's own options, and the thresholds of these."""
    if not isinstance(options, str) or not options.strip():
        raise ValueError(f"rollout_rs must name options, separated by commas, got {options!r}")
    names = list(dict.fromkeys(name.strip() for name in options.split(",") if name.strip()))
    open_names = [name for name in names if ":" not in name]
    given = [] if threshold is None else [part.strip() for part in str(threshold).split(",")]
    given = [] if given == [IN_OPTION] else given
    if len(given) == 1:
        given *= max(len(open_names), 1)
    if len(given) != len(open_names):
        raise ValueError(
            f"rollout_rs_threshold must be one for all or each of {open_names}, or {IN_OPTION!r} "
            f"where every option says its own; got {threshold!r}"
        )
    limits = dict(zip(open_names, given, strict=True))
    ours, theirs = [], []
    for name in names:
        if name.partition(":")[0].strip() in RULES:
            ours.append(Rule.parse(name, limits.get(name)))
        elif ":" in name or "bernoulli" in name:
            raise ValueError(f"a rule is one of {', '.join(RULES)}, got {name!r}")
        else:
            theirs.append(name)
    return ours, theirs, [limits[name] for name in theirs]


def _data_parallel_rank() -> int:
    """Return this process' data-parallel rank: peers that hold the same sequences share it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0
    if (mpu := megatron()) is not None:
        return int(mpu.get_data_parallel_rank())
    from verl.utils.ulysses import get_ulysses_sequence_parallel_world_size

    return torch.distributed.get_rank() // int(get_ulysses_sequence_parallel_world_size())
