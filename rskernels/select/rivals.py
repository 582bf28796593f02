"""The rules in use elsewhere, called as ``tilt`` is, to be compared with it.

None of them keeps answers with the tilted law pi(y|x) exp(r/beta) / Z(x); each says in its ``note``
what law it has. Ties go to the smaller id.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rskernels._python.integers import as_integer
from rskernels.law.philox import row_uniforms_64
from rskernels.law.seeds import check_seed
from rskernels.law.streams import Stream
from rskernels.ops.arguments import number_argument
from rskernels.select.forms import NONE, Weighted
from rskernels.select.rows import Integers, Numbers, Rows, ids_of, integers_of, rows_of
from rskernels.select.selection import TiltedSelection, selection_of
from rskernels.select.sums import added, largest

SOFT_COLUMN = 1  # of Stream.SELECT; column 0 is the tilt's, and the passes of RSO have those from 2
FIRST_PASS = 2


def top_k(
    rewards: Numbers, k: int, *, groups: Integers | None = None, ids: Integers | None = None
) -> TiltedSelection:
    """Keep the k answers of each group that have the largest rewards; k = 1 is RAFT.

    Parameters
    ----------
    rewards, groups, ids
        As in :func:`tilt`.
    k : int
        At least 1.

    Returns
    -------
    TiltedSelection
        ``kl``, ``ess`` and ``delta`` are NaN, since there are no weights.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    References
    ----------
    Dong et al., "RAFT: reward ranked finetuning for generative foundation model alignment", 2023.
    """
    rows, invalid, names = _laid_out(rewards, groups, ids)
    k = _at_least_1("k", k)
    mask = (_rank_in_group(rows, -rows.rewards, names, ~invalid) < k) & ~invalid
    note = f"the best {k} of each group: no law of the policy, and narrower with every round"
    return _without_law("top_k", rows, mask, invalid, note)


def threshold(rewards: Numbers, least: float, *, groups: Integers | None = None) -> TiltedSelection:
    """Keep every answer whose reward is at least ``least``.

    It is the policy given r >= least, and where rewards are 0 or 1 the tilt of beta = 0.

    Parameters
    ----------
    rewards, groups
        As in :func:`tilt`.
    least : float
        In units of the reward.

    Returns
    -------
    TiltedSelection
        As of :func:`top_k`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    rows, invalid, _ = _laid_out(rewards, groups, None)
    level = number_argument("least", least, "a number")
    if math.isnan(level):
        raise ValueError("least must be a number, got nan")
    mask = (rows.rewards >= level) & ~invalid
    return _without_law("threshold", rows, mask, invalid, "the policy where the reward is enough")


def weights(rewards: Numbers, beta: float, *, groups: Integers | None = None) -> TiltedSelection:
    """Keep every answer, with the weight exp(r/beta) over its mean in the group.

    Parameters
    ----------
    rewards, groups
        As in :func:`tilt`.
    beta : float
        Finite and above 0.

    Returns
    -------
    TiltedSelection
        ``log_weights`` are self-normalised in each group, to a mean of 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    rows, invalid, _ = _laid_out(rewards, groups, None)
    weighted = _weighted(rows, _beta(beta), invalid)
    invalid, count = weighted.invalid, len(rows.group_ids)
    log_w = torch.where(invalid, -math.inf, weighted.log_ratio)
    top = largest(log_w, rows.group, count)
    total = added((log_w - top[rows.group]).exp(), rows.group, count)
    mean = top + (total / added((~invalid).double(), rows.group, count)).log()
    note = "every answer, weighted; biased by the mean weight of the group, as 1/its ESS"
    return selection_of("weights", rows, ~invalid, weighted, log_w - mean[rows.group], note=note)


def soft_best_of_n(
    rewards: Numbers,
    beta: float,
    *,
    groups: Integers | None = None,
    ids: Integers | None = None,
    seed: int | Tensor,
) -> TiltedSelection:
    """Keep one answer of each group, drawn with a probability proportional to exp(r/beta).

    The law of what is kept tends to the tilted one as groups grow: with n answers it is off by
    order 1/n.

    Parameters
    ----------
    rewards, groups, ids, seed
        As in :func:`tilt`.
    beta : float
        Finite and above 0.

    Returns
    -------
    TiltedSelection

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    References
    ----------
    Verdun et al., "Soft best-of-n sampling for model alignment", 2025.
    """
    rows, invalid, names = _laid_out(rewards, groups, ids)
    weighted = _weighted(rows, _beta(beta), invalid)
    invalid = weighted.invalid | (weighted.log_ratio == -math.inf)
    # The first of exponential waiting times of rates w is that of row i with probability w_i/sum w.
    u = row_uniforms_64(names, SOFT_COLUMN, check_seed(seed), Stream.SELECT)
    waiting = (-u.log()).log() - weighted.log_ratio
    mask = (_rank_in_group(rows, waiting, names, ~invalid) == 0) & ~invalid
    note = "one answer of each group; of groups of n it is the tilt's law but for order 1/n"
    return selection_of(
        "soft_best_of_n", rows, mask, weighted, torch.zeros_like(rows.rewards), note=note
    )


def rso(
    rewards: Numbers,
    beta: float,
    *,
    num: int,
    groups: Integers | None = None,
    ids: Integers | None = None,
    answers: Integers | None = None,
    seed: int | Tensor,
) -> TiltedSelection:
    """Keep ``num`` answers of each group as Algorithm 1 of statistical rejection sampling does.

    It passes over the group's answers, in the order of the rows, until ``num`` are kept. A pass
    accepts each answer with probability exp((r - largest)/beta), where ``largest`` is the largest
    reward of those not kept before the pass. As published, this is not exact: M is taken from the
    pool that it decides, and falls from pass to pass; no answer is kept twice, however likely; and
    it stops at ``num`` in the order of the rows, and a sorted file has the best, or worst, first.

    Parameters
    ----------
    rewards, groups, ids, seed
        As in :func:`tilt`. Each pass has draws of its own, by the id.
    beta : float
        Finite and above 0.
    num : int
        At least 1. A group of fewer answers is kept whole, where the published code fails.
    answers : Tensor, array or sequence, optional
        int64 or int32 ``[N]``: equal where two rows of a group are the same text. As in the
        published code they count once, at the place of the first and with the reward of the last.

    Returns
    -------
    TiltedSelection

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    References
    ----------
    Liu et al., "Statistical rejection sampling improves preference optimization", ICLR 2024.
    """
    rows, invalid, names = _laid_out(rewards, groups, ids)
    weighted = _weighted(rows, _beta(beta), invalid)
    num, key = _at_least_1("num", num), check_seed(seed)
    left = ~weighted.invalid
    log_w = torch.where(left, weighted.log_ratio, -math.inf)
    if answers is not None:
        same = integers_of("answers", answers, rows.rewards)
        left, log_w = _once(rows, same, left, log_w)
    mask, turn = torch.zeros_like(left), FIRST_PASS
    held = torch.zeros_like(rows.group_ids)
    # The answers that are left, those of a group together and in the order of the rows.
    at = rows.group.argsort(stable=True)
    at = at[left[at]]
    while len(at):
        group, value = rows.group[at], log_w[at]
        top = largest(value, group, len(held))
        # An answer of weight 0 would be the largest in the end; it is never kept.
        top = torch.where(top > -math.inf, top, math.inf)
        u = row_uniforms_64(names[at], turn, key, Stream.SELECT)
        accepted = value - top[group] >= u.log()
        taken = accepted & (_before_in_run(accepted, group) < (num - held)[group])
        mask[at[taken]] = True
        held += group[taken].bincount(minlength=len(held))
        at = at[~taken & (held < num)[group] & (value > -math.inf)]
        turn += 1
    note = (
        "Algorithm 1 of RSO as published: M from the pool that it decides, equal answers once, "
        "dependent on the order of the rows; not the tilted law"
    )
    return selection_of("rso", rows, mask, weighted, torch.zeros_like(rows.rewards), note=note)


def _laid_out(
    rewards: Numbers, groups: Integers | None, ids: Integers | None
) -> tuple[Rows, Tensor, Tensor]:
    """Return the rows, which of them have no reward, and their ids."""
    rows = rows_of(rewards, groups)
    return rows, ~(rows.rewards < math.inf), ids_of(ids, rows.rewards)


def _weighted(rows: Rows, beta: float, invalid: Tensor) -> Weighted:
    """Return rows with log w = r/beta, and no M."""
    log_w = rows.rewards / beta
    invalid = invalid | ~(log_w < math.inf)
    return Weighted(torch.where(invalid, math.nan, log_w), invalid, NONE)


def _without_law(
    form: str, rows: Rows, mask: Tensor, invalid: Tensor, note: str
) -> TiltedSelection:
    known = torch.where(invalid, math.nan, torch.zeros_like(rows.rewards))
    weighted = Weighted(known, invalid, NONE, has_weights=False)
    return selection_of(form, rows, mask, weighted, torch.zeros_like(known), note=note)


def _rank_in_group(rows: Rows, key: Tensor, names: Tensor, has: Tensor) -> Tensor:
    """Return the rank of each row in its group by key, then id; rows without a key come last."""
    order = names.argsort()
    order = order[torch.where(has, key, math.inf)[order].argsort(stable=True)]
    order = order[(~has)[order].long().argsort(stable=True)]
    order = order[rows.group[order].argsort(stable=True)]
    ranks = torch.empty_like(order)
    ranks[order] = _before_in_run(torch.ones_like(has), rows.group[order])
    return ranks


def _before_in_run(which: Tensor, runs: Tensor) -> Tensor:
    """Return how many rows of ``which`` come before each row in its run of equal numbers."""
    before = which.long().cumsum(0) - which.long()
    is_first = torch.ones_like(which)
    is_first[1:] = runs[1:] != runs[:-1]
    return before - before[is_first][is_first.cumsum(0) - 1]


def _once(rows: Rows, same: Tensor, left: Tensor, log_w: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows are the first of equal answers, and log w with that of the last there."""
    at = left.nonzero()[:, 0]
    at = at[same[at].argsort(stable=True)]
    at = at[rows.group[at].argsort(stable=True)]
    group, answer = rows.group[at], same[at]
    is_first = torch.ones_like(at, dtype=torch.bool)
    is_first[1:] = (group[1:] != group[:-1]) | (answer[1:] != answer[:-1])
    is_last = is_first.roll(-1)
    stays, of_last = torch.zeros_like(left), log_w.clone()
    stays[at[is_first]], of_last[at[is_first]] = True, log_w[at[is_last]]
    return stays, of_last


def _beta(beta: float) -> float:
    number = number_argument("beta", beta, "a number")
    if not 0.0 < number < math.inf:
        raise ValueError(f"beta must be finite and above 0, got {number}")
    return number


def _at_least_1(name: str, value: int) -> int:
    number = as_integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number
