"""What the runs say: a number a seed of each measure, and differences seed by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rskernels.experiments.comparison.intervals import Interval, t_interval
from rskernels.experiments.lm.methods import METHODS, NAMED, family_of
from rskernels.experiments.lm.subjects import Subject
from rskernels.experiments.resumable import Piece

Array = np.ndarray[Any, np.dtype[np.float64]]
START = "start"
SHORT = {"cannot be compared": "–", "is not told apart": "?"}
TITLES = {START: "the starting model", **{method.key: method.title for method in METHODS}}


class Measure(NamedTuple):
    """A column of the tables."""

    heading: str
    read: Callable[[dict[str, Any]], float]
    """From what a run ended with; NaN where it has none."""
    form: str
    more_is_better: bool | None = None
    """None: neither."""


def _at(*path: str) -> Callable[[dict[str, Any]], float]:
    def read(end: dict[str, Any]) -> float:
        value: Any = end
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return math.nan if value is None else float(value)

    return read


def _passes(end: dict[str, Any]) -> float:
    return end["trained"] / end["kept_tokens"] if end.get("kept_tokens") else math.nan


PASS = Measure("pass@1", _at("pass_at_1"), ".3f", True)
REWARD = Measure("mean reward", _at("test_reward"), ".3f", True)
MOST = Measure("pass@16", _at("pass_at_16"), ".3f", True)
DISTINCT = Measure("distinct right of 16", _at("distinct_right"), ".2f", True)
KL = Measure("KL from the start", _at("kl"), ".2f", False)
EXCESS = Measure("KL above the least", _at("law", "excess"), ".3f", False)
COMMON = (PASS, MOST, Measure("greedy", _at("greedy"), ".3f", True), DISTINCT, KL)
COSTS = (
    Measure("kept", _at("share"), ".3f"),
    Measure("passes over what is kept", _passes, ".1f"),
    Measure("optimizer steps", _at("steps"), ",.0f"),
    Measure("tokens scored", _at("scored"), ",.0f"),
    Measure("seconds", _at("used"), ".1f"),
)
LONG = Measure("long answers", _at("long"), ".3f")


def measures_of(subject: Subject) -> tuple[Measure, ...]:
    """Return the columns of a task."""
    if subject.name == "parity":
        return (*COMMON, LONG)
    return (REWARD, *COMMON, EXCESS) if subject.enumerated else COMMON


def compared_of(subject: Subject) -> tuple[Measure, ...]:
    """Return the measures in which methods are compared, seed by seed."""
    if subject.enumerated:
        return (REWARD, PASS, MOST, DISTINCT, KL, EXCESS)
    return (PASS, MOST, DISTINCT, KL)


class Runs:
    """The runs of a task, of the seeds that every method has finished; of all if there is no such.

    Parameters
    ----------
    pieces : iterable of dict
        Of all tasks.
    subject : Subject
        Whose are taken.
    """

    def __init__(self, pieces: Iterable[Piece], subject: Subject) -> None:
        self.subject = subject
        own = [piece for piece in pieces if piece["task"] == subject.name]
        self.by_method: dict[str, dict[int, Piece]] = {}
        for piece in own:
            self.by_method.setdefault(piece["method"], {})[piece["seed"]] = piece
        every = [set(runs) for runs in self.by_method.values()]
        finished = set.intersection(*every) if every else set()
        self.seeds = sorted(finished or set().union(*every))

    @property
    def methods(self) -> list[str]:
        """The methods of which there are runs, in the order of the report."""
        return [key for key in TITLES if key in self.by_method]

    def values(self, method: str, measure: Measure) -> Array:
        """Return a measure of each seed, ``[seeds]``; NaN where there is no run."""
        runs = self.by_method.get(method, {})
        ends = [runs[seed]["end"] if seed in runs else {} for seed in self.seeds]
        return np.array([measure.read(end) for end in ends], dtype=float)

    def mean(self, method: str, measure: Measure) -> Interval:
        """Return the mean over seeds and its interval."""
        return t_interval(self.values(method, measure))

    def difference(self, ours: str, theirs: str, measure: Measure) -> Interval:
        """Return the difference of two methods, seed by seed."""
        return t_interval(self.values(ours, measure) - self.values(theirs, measure))

    def known(self, *methods: str, measure: Measure) -> int:
        """Return of how many seeds all of these methods have a measure."""
        return int((~np.isnan(sum(self.values(method, measure) for method in methods))).sum())

    def course(self, method: str, name: str) -> Array:
        """Return a measure after each round, ``[seeds, rounds + 1]``, the first of the start.

        Of the starting model and the last round are more answers than of those between.
        """
        started = self.by_method.get(START, {})
        return np.array(
            [
                [started[seed]["end"][name], *(of[name] for of in piece["course"])]
                for seed, piece in self.by_method[method].items()
                if seed in started and seed in self.seeds
            ]
        )


def verdict(runs: Runs, ours: str, other: str, measure: Measure) -> str:
    """Say whether a method wins against, ties with or loses to another in a measure.

    Nothing is said of a measure that one of them lacks on some seeds: those that have it are not
    as any others.
    """
    if runs.known(ours, other, measure=measure) < len(runs.seeds):
        return SHORT["cannot be compared"]
    difference = runs.difference(ours, other, measure)
    if measure.more_is_better is False:
        difference = difference._replace(mean=-difference.mean)
    return SHORT.get(difference.verdict, difference.verdict)


def exact_of(runs: Runs, methods: Sequence[str]) -> list[str]:
    """Return those of some methods that are exact tilts on a task, and have runs."""
    form = runs.subject.form
    return [key for key in methods if key in runs.methods and family_of(key, form) == "exact"]


def to_own_tilt(runs: Runs, method: str) -> Interval:
    """Return KL from a method's own tilted law after all rounds; NaN where it has none."""
    beta = None if method == START else NAMED[method].beta
    if beta is None:
        return Interval(math.nan, math.nan)
    return runs.mean(method, Measure("", _at("law", "to_tilt", f"{beta:g}"), ".3f"))


def long_by_tilt(runs: Runs, method: str) -> Interval:
    """Return the share of long answers after all rounds of a method's own tilt; NaN of no tilt.

    A round that keeps a = exp(-1/beta) of the wrong answers multiplies the odds of a long one by
    2/(1 + a), as in `rskernels.language.tasks.parity`, where a is 0.
    """
    beta = 0.0 if method == "rft" else None if method == START else NAMED[method].beta
    if beta is None:
        return Interval(math.nan, math.nan)
    kept = math.exp(-1.0 / beta) if beta else 0.0
    share = runs.values(START, LONG)
    odds = share / (1.0 - share) * (2.0 / (1.0 + kept)) ** runs.subject.rounds
    return t_interval(odds / (1.0 + odds))
