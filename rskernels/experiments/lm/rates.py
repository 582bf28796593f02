"""Learning rates: each method has its own on each task, the best of a few by other seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rskernels.experiments.lm.methods import GRADIENT, NAMED, RENEWED, ROWS
from rskernels.experiments.lm.subjects import Subject
from rskernels.experiments.resumable import Piece
from rskernels.rsft.errors import CheckpointError

_GRADIENTS = (2.5e-5, 1e-4, 4e-4, 1.6e-3)
GRID = {ROWS: (3e-4, 1e-3, 3e-3, 1e-2), GRADIENT: _GRADIENTS, RENEWED: _GRADIENTS}
"""What is tried, by the kind of a method."""
TUNED_ON = range(100, 102)
"""Seeds of the trials; those of the runs are below."""


def score_of(subject: Subject, end: Mapping[str, Any]) -> float:
    """Return what the rates of a task are chosen by: pass@1, or the mean reward if it is graded."""
    return float(end["test_reward" if subject.form == "bounded" else "pass_at_1"])


def scores_of(trials: Iterable[Piece], task: str, method: str) -> dict[float, list[float]]:
    """Return the scores of a method's trials on a task, by rate."""
    scores: dict[float, list[float]] = {}
    for trial in trials:
        if (trial["task"], trial["method"]) == (task, method):
            scores.setdefault(trial["lr"], []).append(trial["score"])
    return scores


def rate_of(
    trials: Iterable[Piece],
    task: str,
    method: str,
    grid: Mapping[str, tuple[float, ...]],
    seeds: range,
) -> float | None:
    """Return the learning rate of a method on a task; None until all of its trials are made.

    It is the rate of the highest mean score over the seeds, of equal ones the smallest. Of a single
    rate no trial is needed.
    """
    tried = grid[NAMED[method].kind]
    if len(tried) == 1:
        return tried[0]
    scores = scores_of(trials, task, method)
    if any(len(scores.get(rate, [])) < len(seeds) for rate in tried):
        return None
    return max(sorted(tried), key=lambda rate: sum(scores[rate]) / len(scores[rate]))


def check_rates(
    runs: Iterable[Piece],
    trials: Sequence[Piece],
    grid: Mapping[str, tuple[float, ...]],
    seeds: range,
) -> None:
    """Raise CheckpointError if a run has another learning rate than the trials choose.

    So are those that were made before a trial was, in a folder that has changed since.
    """
    chosen: dict[tuple[str, str], float | None] = {}
    for run in runs:
        if "lr" not in run:
            continue
        of = task, method = run["task"], run["method"]
        if of not in chosen:
            chosen[of] = rate_of(trials, task, method, grid, seeds)
        if chosen[of] not in (None, run["lr"]):
            raise CheckpointError(
                f"the run of {method} on {task}, seed {run['seed']}, has the learning rate "
                f"{run['lr']:g}, where the trials choose {chosen[of]:g}: remove it, or give "
                "another folder"
            )
