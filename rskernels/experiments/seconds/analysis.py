"""What the pieces say: steps and seconds to an accuracy, and the ratios of plain training's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rskernels.experiments.comparison.intervals import Interval, t_interval
from rskernels.experiments.seconds.costs import Costs, seconds_of
from rskernels.experiments.seconds.methods import METHODS

Piece = dict[str, Any]
Array = np.ndarray[Any, np.dtype[np.float64]]
SMOOTHED = 3
"""Judgements whose mean is the accuracy at the last of them."""
LEVELS = (0.95, 0.98, 1.0)
"""Of the accuracy of plain training at its end, seed by seed."""
COUNTED = ("trained", "scored", "scorings", "decided")


class Course(NamedTuple):
    """A run, at each of its judgements."""

    accuracy: Array
    """Smoothed."""
    counts: dict[str, Array]
    """``steps`` and what else was counted."""
    pool: int
    """Rows of the pool."""

    def at(self, level: float) -> tuple[dict[str, float], bool]:
        """Return the counts where the accuracy first reaches a level, and whether it ever does.

        Between judgements by straight lines; those of the end where it does not.
        """
        [above] = (self.accuracy >= level).nonzero()
        if not len(above):
            return {name: float(values[-1]) for name, values in self.counts.items()}, False
        last = max(int(above[0]), 1)
        low, high = self.accuracy[last - 1 : last + 1]
        place = last - 1 + (max(level - low, 0.0) / (high - low) if high > low else 1.0)
        judged = np.arange(len(self.accuracy))
        return {
            name: float(np.interp(place, judged, values)) for name, values in self.counts.items()
        }, True

    def seconds(self, form: str, costs: Costs) -> Array:
        """Return the seconds at each judgement."""
        return np.array(
            [
                seconds_of(form, {name: v[i] for name, v in self.counts.items()}, costs, self.pool)
                for i in range(len(self.accuracy))
            ]
        )


def course_of(piece: Piece, every: int) -> Course:
    """Read a run."""
    accuracy = np.array(piece["accuracy"])
    smooth = [accuracy[max(i + 1 - SMOOTHED, 0) : i + 1].mean() for i in range(len(accuracy))]
    counts = {name: np.array(piece[name], dtype=float) for name in COUNTED}
    steps = every * np.arange(len(accuracy), dtype=float)
    return Course(np.array(smooth), {"steps": steps, **counts}, piece["rows"])


class Ratio(NamedTuple):
    """A geometric mean over seeds, and the ends of its 95 % interval by the logarithms."""

    mean: float
    low: float
    high: float


def ratio_of(values: Sequence[float]) -> Ratio:
    """Return the geometric mean of positive values."""
    mean, half = t_interval(np.log(values))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


class Outcome(NamedTuple):
    """A method in one form, against plain training on the same seeds."""

    name: str
    method: str
    form: str
    reached: dict[float, int]
    """Seeds that reach a level; the others count with all that they have done, so that ratios are
    then at most what is said."""
    steps: dict[float, Ratio]
    """R: plain training's steps to a level over the method's."""
    speed_up: dict[float, Ratio]
    """Plain training's seconds to a level over the method's."""
    seconds: tuple[float, ...]
    """Of each seed, to the last level."""
    scored: float
    """Rows scored for each row that was used, to the last level."""
    accepted: float
    """Share of the rows decided on that were used; NaN where none were decided on."""
    end: Interval
    """Accuracy at the end."""
    gain: Interval
    """That less plain training's."""


def outcomes(pieces: Sequence[Piece], every: int, costs: Costs) -> list[Outcome]:
    """Return every method in every form."""
    courses: dict[str, dict[int, Course]] = {}
    for piece in pieces:
        courses.setdefault(piece["method"], {})[piece["seed"]] = course_of(piece, every)
    return [
        _outcome(name, method, form, courses, costs)
        for method in courses
        for form, name in METHODS[method].forms.items()
    ]


def _outcome(
    name: str,
    method: str,
    form: str,
    courses: Mapping[str, Mapping[int, Course]],
    costs: Costs,
) -> Outcome:
    plain, ours = courses["plain"], courses[method]
    reached, steps, speed_up = {}, {}, {}
    for level in LEVELS:
        pairs, reached[level] = [], 0
        for seed, course in ours.items():
            wanted = level * float(plain[seed].accuracy[-1])
            (theirs, _), (counts, is_reached) = plain[seed].at(wanted), course.at(wanted)
            reached[level] += is_reached
            pairs.append((theirs, counts))
        spent = [
            seconds_of(form, c, costs, ours[s].pool) for s, (_, c) in zip(ours, pairs, strict=True)
        ]
        base = [seconds_of("step", c, costs, 0) for c, _ in pairs]
        steps[level] = ratio_of([a["steps"] / b["steps"] for a, b in pairs])
        speed_up[level] = ratio_of(list(np.divide(base, spent)))
    decided = sum(c["decided"] for _, c in pairs)
    selected = sum(c["trained"] - ours[s].pool for s, (_, c) in zip(ours, pairs, strict=True))
    ends = np.array([course.accuracy[-1] for course in ours.values()])
    return Outcome(
        name, method, form, reached, steps, speed_up,
        seconds=tuple(spent),
        scored=sum(c["scored"] for _, c in pairs) / sum(c["trained"] for _, c in pairs),
        accepted=selected / decided if decided else math.nan,
        end=t_interval(ends),
        gain=t_interval(ends - [plain[seed].accuracy[-1] for seed in ours]),
    )  # fmt: skip
