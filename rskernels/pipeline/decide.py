"""The decisions about rows: pure functions, whatever engine calls them on whatever batches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rskernels.envelope import Envelope
from rskernels.law.seeds import check_seed
from rskernels.law.streams import Stream
from rskernels.ops import bernoulli_mask
from rskernels.pipeline.rows.keys import Keys
from rskernels.pipeline.rule import WITH_PILOT, Rule
from rskernels.pipeline.store.runs import Records, starts_of
from rskernels.select import rso, soft_best_of_n, top_k, weights
from rskernels.select.forms import Options, Weighted, weigh
from rskernels.select.pilot import Pilot

BATCH = 1 << 16  # rewards that an envelope of all prompts takes at once


class Decisions(NamedTuple):
    """What became of rows."""

    mask: NDArray[np.bool_]
    """``[N]``: which are kept."""
    log_ratio: NDArray[np.float64]
    """``[N]``: log w - log M. A rule without M has in its place the largest log w of the prompt or,
    if all rows are kept with weights, the log of the mean w. NaN of rows without a weight."""
    invalid: NDArray[np.bool_]
    """``[N]``: whose reward is not one that the form takes."""


def decide(keys: Keys, rule: Rule) -> Decisions:
    """Decide rows, each by its reward, its id and the seed alone.

    Parameters
    ----------
    keys : Keys
        With final ids.
    rule : Rule
        One that ``is_alone``.
    """
    if rule.form == "threshold":
        assert rule.least is not None
        invalid = invalid_of(keys.reward, rule)
        mask = (keys.reward >= rule.least) & ~invalid
        return Decisions(mask, np.where(invalid, np.nan, 0.0), invalid)
    rewards = _tensor(keys.reward)
    options = Options(rule.bound, None, None, None)
    weighted = weigh(rule.form, rewards, None, rule.beta or 0.0, options)
    mask = _drawn(weighted, keys.id, rule)
    return Decisions(mask, weighted.log_ratio.numpy(), weighted.invalid.numpy())


def invalid_of(reward: NDArray[np.float64], rule: Rule) -> NDArray[np.bool_]:
    """Return which rewards a form does not take: NaN, +inf and, of a verifier, all but 0 and 1."""
    if rule.form == "verifier":
        valid = (reward == 0.0) | (reward == 1.0)
    else:
        # Nor one whose log weight a float64 cannot hold.
        with np.errstate(over="ignore"):
            valid = reward / (rule.beta or 1.0) < math.inf
    invalid: NDArray[np.bool_] = ~valid
    return invalid


def decide_together(
    rows: Records, pilot: Records | None, rule: Rule, shared: Envelope | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Decide all answers to some prompts, and return which are kept and their log ratios.

    Parameters
    ----------
    rows : array
        Records ``key`` (the prompt), ``id``, ``reward``, ``answer`` (a hash), in the order of the
        data within a prompt.
    pilot : array, optional
        Records ``key`` and ``reward``, of the same prompts; None: the rows are their own pilot.
    rule : Rule
        One that is not ``is_alone``.
    shared : Envelope, optional
        What ``shared_envelope`` returned, where all prompts have one M.
    """
    mask, log_ratio = np.zeros(len(rows), bool), np.full(len(rows), np.nan)
    valid = (~invalid_of(rows["reward"], rule)).nonzero()[0]
    if not len(valid):
        return mask, log_ratio
    rows = rows[valid]
    if rule.form in WITH_PILOT:
        if shared is None:
            weighted = _by_pilot(rows, rows if pilot is None else pilot, rule)
        else:
            options = Options(None, None, shared, None)
            weighted = weigh(rule.form, _tensor(rows["reward"]), None, rule.beta or 0.0, options)
        mask[valid] = _drawn(weighted, rows["id"], rule)
        log_ratio[valid] = weighted.log_ratio.numpy()
        return mask, log_ratio
    rewards, groups, ids = (_tensor(rows[name]) for name in ("reward", "key", "id"))
    given: dict[str, Any] = {"groups": groups, "ids": ids}
    beta, seed = rule.beta or 0.0, rule.seed
    if rule.form == "top_k":
        assert rule.k is not None
        kept = top_k(rewards, rule.k, **given)
    elif rule.form == "weights":
        kept = weights(rewards, beta, groups=groups)
        # Rows of weight 0 are left out; where a prompt has no others, their log weight is NaN.
        log_weights = np.nan_to_num(kept.log_weights.numpy(), nan=-math.inf, neginf=-math.inf)
        mask[valid] = log_weights > -math.inf
        log_ratio[valid] = log_weights
        return mask, log_ratio
    elif rule.form == "soft_best_of_n":
        kept = soft_best_of_n(rewards, beta, seed=seed, **given)
    else:
        assert rule.num is not None
        answers = _tensor(rows["answer"])
        kept = rso(rewards, beta, num=rule.num, answers=answers, seed=seed, **given)
    mask[valid] = kept.mask.numpy()
    starts = starts_of(rows["key"])
    top = np.maximum.reduceat(kept.log_ratio.numpy(), starts)
    sizes = np.diff(np.append(starts, len(rows)))
    largest = np.repeat(np.where(top > -math.inf, top, 0.0), sizes)
    log_ratio[valid] = kept.log_ratio.numpy() - largest
    return mask, log_ratio


def shared_envelope(pilot: Iterable[Records], rule: Rule) -> Envelope:
    """Return an envelope that has learnt one M for all prompts from the rewards of a pilot.

    It learns in batches of one size, so that M does not depend on how the pilot was cut.
    """
    assert rule.beta is not None
    envelope, held = Envelope.parse(rule.envelope), np.zeros(0)
    for records in pilot:
        rewards = records["reward"][~invalid_of(records["reward"], rule)]
        held = np.concatenate([held, rewards])
        while len(held) >= BATCH:
            envelope.update(_tensor(held[:BATCH]) / rule.beta)
            held = held[BATCH:]
    if len(held):
        envelope.update(_tensor(held) / rule.beta)
    return envelope


def _by_pilot(rows: Records, pilot: Records, rule: Rule) -> Weighted:
    """Weigh rows by a form that needs other rewards of each prompt, those of the pilot."""
    pilot = pilot[~invalid_of(pilot["reward"], rule)]
    rewards = _tensor(rows["reward"])
    if not len(pilot):
        none = torch.full_like(rewards, math.nan)
        return Weighted(none, torch.zeros_like(none, dtype=torch.bool), "")
    values, groups = _tensor(pilot["reward"]), _tensor(pilot["key"])
    if rule.form != "learnt":
        of_pilot = Pilot(values, groups, True, rewards.device)
        options = Options(None, rule.n, None, of_pilot)
        return weigh(rule.form, rewards, _tensor(rows["key"]), rule.beta or 0.0, options)
    prompts = np.unique(np.concatenate([rows["key"], pilot["key"]]))
    of_rows, of_all = (np.searchsorted(prompts, each["key"]) for each in (rows, pilot))
    assert rule.beta is not None
    # With one group the envelope would take M for that of all rows, whatever their prompt.
    envelope = Envelope.parse(rule.envelope, groups=max(2, len(prompts)))
    envelope.update(values / rule.beta, torch.from_numpy(of_all))
    options = Options(None, None, envelope, None)
    return weigh("learnt", rewards, torch.from_numpy(of_rows), rule.beta, options)


def _drawn(weighted: Weighted, ids: NDArray[np.int64], rule: Rule) -> NDArray[np.bool_]:
    names, seed = _tensor(ids), check_seed(rule.seed)
    mask = bernoulli_mask(weighted.log_ratio, seed=seed, stream=Stream.SELECT, ids=names)
    drawn: NDArray[np.bool_] = mask.numpy()
    return drawn


def _tensor(values: NDArray[Any]) -> Tensor:
    # One value of records keeps their stride, which numpy calls contiguous and torch refuses.
    return torch.from_numpy(values.copy())
