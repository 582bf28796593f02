"""The pieces of the study, each kept in a file so that an interrupted one goes on."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from rskernels.experiments.off_policy.estimators import (
    DRAWN,
    ESTIMATORS,
    RATIO,
    Estimator,
)
from rskernels.experiments.off_policy.exact import (
    Laws,
    Moments,
    laws_of,
    mixed,
    moments_of,
    of_control,
    of_rejection,
    of_weights,
)
from rskernels.experiments.off_policy.policy import all_sequences, make_pairs
from rskernels.experiments.off_policy.simulate import Simulation, simulate
from rskernels.experiments.off_policy.train import TRAINED, train
from rskernels.experiments.resumable import Piece, make_pieces


class Size(NamedTuple):
    """How much is computed."""

    rewards: tuple[str, ...]
    ages: tuple[int, ...]
    noise: float
    n: int
    """Rollouts a batch."""
    batches: int
    """Drawn, of each estimator; four times as many where nothing is known exactly."""
    pilot: int
    """Rollouts that an envelope has seen before a batch."""
    envelopes: int
    """Whose M the exact moments are averaged over."""
    train_ages: tuple[int, ...]
    steps: int
    seeds: int


FULL = Size(
    rewards=("verifier", "smooth"),
    ages=(1, 4, 8, 16),
    noise=0.3,
    n=256,
    batches=1024,
    pilot=1024,
    envelopes=32,
    train_ages=(4, 8, 16),
    steps=160,
    seeds=10,
)
QUICK = Size(
    rewards=("smooth",),
    ages=(8,),
    noise=0.3,
    n=64,
    batches=32,
    pilot=256,
    envelopes=2,
    train_ages=(2,),
    steps=3,
    seeds=2,
)


def run_study(size: Size, folder: Path, say: Callable[[str], None]) -> list[Piece]:
    """Make the pieces that ``folder`` lacks, and return all."""
    return make_pieces([*_enumerated(size), *_trained(size)], folder, say)


def _enumerated(size: Size) -> list[tuple[str, Callable[[], Piece]]]:
    return [
        (f"enumerated-{reward}-{number}", partial(enumerate_pair, size, reward, number))
        for reward in size.rewards
        for number in range(len(size.ages) + 1)
    ]


def _trained(size: Size) -> list[tuple[str, Callable[[], Piece]]]:
    fresh = next(e for e in TRAINED if e.family == "nothing")
    runs = [(0, fresh), *((age, e) for age in size.train_ages for e in TRAINED)]
    return [
        (f"trained-{age}-{re.sub('[^a-z0-9]+', '-', e.name.lower())}", partial(_run, size, age, e))
        for age, e in runs
    ]


def _run(size: Size, age: int, estimator: Estimator) -> Piece:
    course = train(estimator, age=age, steps=size.steps, seeds=size.seeds)
    names = {"name": estimator.name, "family": estimator.family}
    return {"kind": "trained", "age": age, **names, **course}


def enumerate_pair(size: Size, reward: str, number: int) -> Piece:
    """Return bias and variance of every estimator for one pair of policies."""
    sequences = all_sequences()
    pair = make_pairs(sequences, reward, size.ages, size.noise)[number]
    laws = laws_of(pair, sequences)
    # Of no two pairs the same, so that the draws of one say nothing of those of another.
    seed = 1 + size.rewards.index(reward) * (len(size.ages) + 1) + number
    rows = []
    for estimator in ESTIMATORS:
        batches = size.batches * (4 if estimator.moments == RATIO else 1)
        seen = simulate(estimator, laws, n=size.n, batches=batches, pilot=size.pilot, seed=seed)
        rows.append(_row(estimator, laws, seen, size, batches))
    ones = torch.ones_like(laws.log_ratio)
    fresh = of_weights(laws._replace(q=laws.q * laws.w), ones, ones, ones[:, 0], size.n)
    return {
        "kind": "enumerated",
        "reward": reward,
        "pair": pair.name,
        "n": size.n,
        "divergence": laws.divergence,
        "largest": float(laws.w.max()),
        "largest_token": float(laws.log_ratio.max().exp()),
        "ess": laws.ess,
        "value": laws.value,
        "stale_value": float(laws.q @ pair.reward),
        "fresh": _measures(fresh, laws),
        "rows": rows,
    }


def _row(estimator: Estimator, laws: Laws, seen: Simulation, size: Size, batches: int) -> Piece:
    """Return an estimator's figures: exact where they can be, else of the draws."""
    row: Piece = {"name": estimator.name, "family": estimator.family}
    exact = None
    if estimator.moments == DRAWN:
        known = seen.log_M[~seen.log_M.isnan()]
        row["without_M"] = 1.0 - len(known) / len(seen.log_M)
        if len(known):
            row["log_M"] = float(known.median())
            given_M = _over_envelopes(estimator, laws, known, size)
            exact = mixed(given_M)
            if estimator.policy != "true" and len(given_M) > 1:
                row["errors"] = errors_over(given_M, laws)
    elif estimator.moments != RATIO:
        exact = moments_of(estimator, laws, size.n)
    if exact is None and estimator.moments == DRAWN:
        return row  # no envelope had an M
    if exact is None:
        norm = float(laws.gradient.norm())
        # The draws add their variance to the square of a difference of means.
        excess = seen.moments.variance / batches
        row.update(_measures(seen.moments, laws, excess))
        row["bias_error"] = math.sqrt(excess) / norm
        return row
    row.update(_measures(exact, laws))
    # Where M is drawn, the draws have other M than the exact figures.
    if estimator.moments != DRAWN or estimator.policy == "true":
        along = float(exact.gradient @ laws.gradient / laws.gradient.square().sum())
        # By the exact spread: that of few draws of a rare event may be 0.
        error = math.sqrt(exact.reward_variance / batches)
        row["z_gradient"] = (seen.along - along) / max(seen.along_error, 1e-12)
        row["z_reward"] = (seen.moments.reward - exact.reward) / max(error, 1e-12)
    return row


def _over_envelopes(
    estimator: Estimator, laws: Laws, known: torch.Tensor, size: Size
) -> list[Moments]:
    """Return the moments given each M of some that envelopes had."""
    of = of_control if estimator.on_violation == "control" else of_rejection
    count = 1 if estimator.policy == "true" else size.envelopes
    return [of(laws, log_M, size.n) for log_M in known[:count].tolist()]


def errors_over(given_M: list[Moments], laws: Laws) -> dict[str, float]:
    """Return the standard error of each figure of a mixture, from which M were drawn.

    The jackknife's (Efron & Stein 1981), √((k-1)/k Σ (θ₋ᵢ - θ̄)²) over the k figures θ₋ᵢ that leave
    one M out: the bias and the standard deviations are no means over M.
    """
    count = len(given_M)
    without = [_measures(mixed(given_M[:i] + given_M[i + 1 :]), laws) for i in range(count)]
    errors = {}
    for name in without[0]:
        figures = torch.tensor([figure[name] for figure in without], dtype=torch.float64)
        errors[name] = math.sqrt((count - 1) * float(figures.var(correction=0)))
    return errors


def _measures(moments: Moments, laws: Laws, excess: float = 0.0) -> Piece:
    """Return moments as parts of the true gradient's norm and of the reward."""
    norm = float(laws.gradient.norm())
    off = float((moments.gradient - laws.gradient).square().sum())
    bias = math.sqrt(max(off - excess, 0.0)) / norm
    spread = math.sqrt(max(moments.variance, 0.0)) / norm
    length = float(moments.gradient.norm())
    return {
        "kept": moments.kept,
        "bias": bias,
        "cosine": float(moments.gradient @ laws.gradient) / (norm * length) if length else 0.0,
        "sd": spread,
        "rmse": math.hypot(bias, spread),
        "sd_equal_tokens": spread * math.sqrt(moments.kept),
        "reward_bias": moments.reward - laws.value,
        "reward_sd": math.sqrt(max(moments.reward_variance, 0.0)),
    }
