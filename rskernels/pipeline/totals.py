"""Counts and sums of rows by prompt, that can be merged: what the report is made of.

A prompt has a record of 92 bytes, however many rows it has. The records of a piece lie on disk,
sorted (``store.runs``), so that neither many rows nor many prompts need memory.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rskernels.pipeline.decide import Decisions
from rskernels.pipeline.rows.keys import Keys
from rskernels.pipeline.store.runs import Records, starts_of

COUNTS = ("seen", "accepted", "violations", "invalid", "unknown", "decided")
SUMS = ("reward", "reward_kept", "expected")
RELATIVE = ("w", "w_squared", "w_log", "excess")
GROUP = np.dtype(
    [("key", np.int64), *((name, np.uint32) for name in COUNTS)]
    + [(name, np.float64) for name in (*SUMS, "top", *RELATIVE)]
)
"""The record of a group, all rows with one prompt.

``reward`` is the sum of the rewards, ``reward_kept`` that of the rows kept, ``expected`` the sum of
min(1, w/M) and ``top`` the largest log w/M. The sums ``w`` of w/M, ``w_squared`` of its square,
``w_log`` of w/M log w/M and ``excess`` of (w/M - 1)+ are in units of exp(``top``), the second in
its square, so that none overflows."""


def totals_of(keys: Keys, decisions: Decisions) -> Records:
    """Return the totals of the rows that are not malformed, a record a group, by rising key."""
    order = keys.group.argsort(kind="stable")
    if keys.bad:
        is_good = np.ones(len(order), bool)
        is_good[list(keys.bad)] = False
        order = order[is_good[order]]
    group = keys.group[order]
    starts = starts_of(group)
    records = np.zeros(len(starts), GROUP)
    if not len(starts):
        return records
    records["key"] = group[starts]
    ratio = decisions.log_ratio[order]
    kept, invalid = decisions.mask[order], decisions.invalid[order]
    reward = keys.reward[order]
    has = ~np.isnan(ratio)
    reward = np.where(np.isfinite(reward) & ~invalid, reward, 0.0)
    counts = {
        "seen": np.ones(len(group), np.uint32), "accepted": kept, "violations": ratio > 0.0,
        "invalid": invalid, "unknown": ~has & ~invalid, "decided": has | kept,
    }  # fmt: skip
    for name, which in counts.items():
        records[name] = np.add.reduceat(which.astype(np.uint32), starts)
    ratio = np.where(has, ratio, -math.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        records["reward"] = np.add.reduceat(reward, starts)
        records["reward_kept"] = np.add.reduceat(np.where(kept, reward, 0.0), starts)
    records["expected"] = np.add.reduceat(np.exp(np.minimum(ratio, 0.0)), starts)
    top = np.maximum.reduceat(ratio, starts)
    records["top"] = top
    shift = np.where(top > -math.inf, top, 0.0)
    relative = ratio - np.repeat(shift, np.diff(np.append(starts, len(group))))
    w = np.exp(relative)
    records["w"] = np.add.reduceat(w, starts)
    records["w_squared"] = np.add.reduceat(w * w, starts)
    # In units of its own, not of the largest: w log w/M = w (relative + shift).
    w_log = np.multiply(w, relative, where=w > 0.0, out=np.zeros_like(w))
    records["w_log"] = np.add.reduceat(w_log, starts) + shift * records["w"]
    over = np.where(ratio > 0.0, w * -np.expm1(-np.maximum(ratio, 0.0)), 0.0)
    records["excess"] = np.add.reduceat(over, starts)
    return records


def merged_totals(records: Records) -> Records:
    """Return one record a group, by rising key, of several records each."""
    key = records["key"]
    if len(key) > 1 and not (key[1:] >= key[:-1]).all():
        records = records[key.argsort(kind="stable")]
    starts = starts_of(records["key"])
    total = np.zeros(len(starts), GROUP)
    if not len(starts):
        return total
    total["key"] = records["key"][starts]
    with np.errstate(over="ignore", invalid="ignore"):
        for name in (*COUNTS, *SUMS):
            total[name] = np.add.reduceat(records[name], starts)
    total["top"] = np.maximum.reduceat(records["top"], starts)
    shift = np.where(total["top"] > -math.inf, total["top"], 0.0)
    sizes = np.diff(np.append(starts, len(records)))
    factor = np.exp(records["top"] - np.repeat(shift, sizes))  # of no weight 0
    for name in RELATIVE:
        unit = factor * factor if name == "w_squared" else factor
        total[name] = np.add.reduceat(records[name] * unit, starts)
    return total


def overall_of(records: Records) -> dict[str, float]:
    """Return the counts and sums over all groups, as numbers: a record of one group."""
    # Counts of all rows need more than 32 bits.
    counts = {name: int(records[name].sum(dtype=np.int64)) for name in COUNTS}
    one = records.copy()
    one["key"] = 0
    for name in COUNTS:
        one[name] = 0
    whole = merged_totals(one)
    sums = {name: float(whole[name][0]) if len(whole) else 0.0 for name in (*SUMS, *RELATIVE)}
    top = float(whole["top"][0]) if len(whole) else -math.inf
    return {**counts, **sums, "top": top}


def figures(records: Records) -> dict[str, NDArray[np.float64]]:
    """Return what follows from the totals of each group, NaN where it does not exist.

    ``acceptance``, ``expected_acceptance``, ``delta``, ``kl``, ``ess`` are those of
    ``select.TiltedSelection``, its divergence by self-normalised weights of the rows; ``known``
    counts the rows with a weight; ``reward`` and ``reward_kept`` are means.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        valid = records["seen"] - records["invalid"].astype(np.float64)
        # Rows without a ratio but with a reward, of a rule that has no M, count too.
        known = valid - records["unknown"]
        shift = np.where(records["top"] > -math.inf, records["top"], 0.0)
        mean = records["w_log"] / records["w"] - shift
        return {
            "known": known,
            "acceptance": records["accepted"] / records["decided"].astype(np.float64),
            "expected_acceptance": records["expected"] / known,
            "delta": records["excess"] / records["w"],
            "kl": np.maximum(mean - np.log(records["w"] / known), 0.0),
            "ess": records["w"] ** 2 / records["w_squared"],
            "reward": records["reward"] / valid,
            "reward_kept": records["reward_kept"] / records["accepted"].astype(np.float64),
        }
