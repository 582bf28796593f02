"""What the runs of an experiment say: means with intervals, and differences seed by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rskernels._python.extras import train_extra
from rskernels.experiments.comparison.runner import Failure, read_run
from rskernels.experiments.suite import Experiment, ExperimentRun

CONFIDENCE = 0.95
# A difference that is rounding, of accuracies that are equal.
ROUNDING = 1e-9
BEFORE = "no adaptation"
LARGEST_LOG_M = math.log(np.finfo(float).max)
SCORES = ("balanced_accuracy", "worst_accuracy", "calibration_error")

Array = np.ndarray[Any, np.dtype[np.float64]]


class Interval(NamedTuple):
    """A mean and half the width of its 95 % t-interval, NaN of one seed alone; of none both are."""

    mean: float
    half: float

    @property
    def verdict(self) -> str:
        """What a difference says: "wins", "loses", or "ties" where the interval holds 0."""
        if math.isnan(self.mean):
            return "cannot be compared"
        if math.isnan(self.half):
            return "is not told apart"
        if abs(self.mean) <= self.half + ROUNDING:
            return "ties"
        return "wins" if self.mean > 0 else "loses"


class Result(NamedTuple):
    """The runs of a case, by seed.

    Attributes
    ----------
    name : str
        Of the case.
    is_baseline : bool
        Whether it is what a practitioner would use instead of rejection.
    rejects : bool
        Whether it has an acceptance to show.
    measures : dict of str to array
        float64 ``[seeds]``, of the end of the runs; NaN of a run that failed, which means leave
        out, as differences do the seeds of which either failed.
    courses : dict of str to array
        float64 ``[seeds, epochs]``: ``gradient_samples`` so far, accuracies at the end, and
        ``acceptance``, ``M`` and ``delta`` of each epoch alone. Empty where nothing was trained.
    failures : tuple of Failure
        The runs that failed.
    """

    name: str
    is_baseline: bool
    rejects: bool
    measures: dict[str, Array]
    courses: dict[str, Array]
    failures: tuple[Failure, ...] = ()

    @property
    def title(self) -> str:
        """The name, and of how many seeds it is where some failed."""
        if not self.failures:
            return self.name
        seeds = len(self.measures["balanced_accuracy"])
        return f"{self.name} ({seeds - len(self.failures)} of {seeds} seeds)"


def mean_of(values: Array) -> Array:
    """Return the mean over the seeds, ``[seeds, ...]`` to ``[...]``, without NaN; NaN of none."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    mean: Array = total / np.where(known.any(axis=0), known.sum(axis=0), math.nan)
    return mean


def t_interval(values: Array) -> Interval:
    """Return the mean of independent values, ``[n]``, and its 95 % interval by Student's t.

    NaN stands for no value.
    """
    values = values[~np.isnan(values)]
    n = len(values)
    if n < 2:
        return Interval(float(mean_of(values)), math.nan)
    with train_extra():
        from scipy.stats import t
    error = float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(float(values.mean()), float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error)


def finished(*results: Result) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Say of each seed whether all of these have finished it, ``[seeds]``."""
    lost: Any = np.isnan([r.measures["balanced_accuracy"] for r in results])
    done: np.ndarray[Any, np.dtype[np.bool_]] = ~lost.any(axis=0)
    return done


def paired(ours: Result, theirs: Result, measure: str) -> Interval:
    """Return the difference of a measure at the end, ours less theirs, seed by seed."""
    return t_interval(ours.measures[measure] - theirs.measures[measure])


def at_equal_cost(
    ours: Result, theirs: Result, measure: str = "balanced_accuracy"
) -> Interval | None:
    """Return the difference of a measure after as many gradient samples, seed by seed.

    Both courses are read, between epochs by straight lines, where the one that used fewer samples
    ends, though not before both have been scored once. None where one was not trained.
    """
    if not (ours.courses and theirs.courses):
        return None
    differences = []
    for seed in range(len(ours.measures[measure])):
        spent = [r.courses["gradient_samples"][seed] for r in (ours, theirs)]
        cost = max(min(spent[0][-1], spent[1][-1]), spent[0][0], spent[1][0])
        our_value, their_value = (
            np.interp(cost, s, r.courses[measure][seed])
            for s, r in zip(spent, (ours, theirs), strict=True)
        )
        differences.append(our_value - their_value)
    return t_interval(np.array(differences))


def best_baseline(ours: Result, results: Sequence[Result]) -> tuple[Result, Interval]:
    """Return the baseline of the highest mean balanced accuracy, and our difference from it.

    The means are over the seeds that we have finished, of which a baseline without any ranks last.
    """
    means = {
        r.name: float(mean_of(r.measures["balanced_accuracy"][finished(ours)]))
        for r in results
        if r.is_baseline
    }
    best = max(
        (r for r in results if r.is_baseline),
        key=lambda r: -math.inf if math.isnan(means[r.name]) else means[r.name],
    )
    return best, paired(ours, best, "balanced_accuracy")


def best_at_equal_cost(ours: Result, results: Sequence[Result]) -> tuple[Result, Interval] | None:
    """Return the baseline that is best against us after as many gradient samples."""
    pairs = [(r, at_equal_cost(ours, r)) for r in results if r.is_baseline]
    trained = [
        (r, difference)
        for r, difference in pairs
        if difference is not None and not math.isnan(difference.mean)
    ]
    return min(trained, key=lambda pair: pair[1].mean) if trained else None


def collect(
    experiment: Experiment,
    runs: Sequence[ExperimentRun],
    out: Path,
    failures: Sequence[Failure] = (),
) -> list[Result]:
    """Read the runs of an experiment, case by case: all are finished but those that failed."""
    results = []
    for case in experiment.cases:
        own = [r for r in runs if (r.experiment, r.case) == (experiment.name, case.name)]
        failed = tuple(failure for failure in failures if failure.run in own)
        unread = [failure.run for failure in failed]
        read = [({}, []) if r in unread else read_run(r, out) for r in own]
        summaries = [summary for summary, _ in read]
        rejects = own[0].config.rule.rejects or any("draw_acceptance" in s for s in summaries)
        measures, courses = measures_of(summaries), courses_of([records for _, records in read])
        results.append(Result(case.name, case.is_baseline, rejects, measures, courses, failed))
        if experiment.has_before and len(results) == 1:
            before = {name: values_of(summaries, f"{name}_before") for name in SCORES}
            nothing = np.zeros(len(summaries))
            cost = {"gradient_samples": nothing, "seconds": nothing}
            unknown = dict.fromkeys(results[0].measures, nothing * math.nan)
            results.append(Result(BEFORE, True, False, {**unknown, **cost, **before}, {}, failed))
    return results


def values_of(summaries: Sequence[dict[str, Any]], name: str) -> Array:
    """Return a measure, ``[seeds]``, NaN where there is no summary."""
    return np.array([s.get(name, math.nan) for s in summaries], dtype=float)


def measures_of(summaries: Sequence[dict[str, Any]]) -> dict[str, Array]:
    """Return the measures at the end of runs, ``[seeds]`` each; NaN of an empty summary."""
    ends = [
        {**s, "acceptance": s["draw_acceptance"]} if "draw_acceptance" in s else s
        for s in summaries
    ]
    names = (
        *SCORES,
        "gradient_samples",
        "seconds",
        "acceptance",
        "gradient_ess",
        "violations_share",
    )
    return {name: values_of(ends, name) for name in names}


def courses_of(runs: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Array]:
    """Return what each epoch of runs was like, ``[seeds, epochs]``; NaN of a run of no records."""
    courses = [course(records) for records in runs]
    epochs = max(len(c["M"]) for c in courses)
    if not epochs:
        return {}
    return {
        name: np.array([c[name] or [math.nan] * epochs for c in courses]) for name in courses[0]
    }


def course(records: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Return what each epoch of a run was like, from the records of its metrics."""
    values: dict[str, list[float]] = {
        name: []
        for name in (
            "gradient_samples",
            "balanced_accuracy",
            "worst_accuracy",
            "acceptance",
            "M",
            "delta",
        )
    }
    steps: list[dict[str, Any]] = []
    for record in records:
        if record["kind"] == "step":
            steps.append(record)
            continue
        for name in ("gradient_samples", "balanced_accuracy", "worst_accuracy"):
            values[name].append(record[name])
        M = record["M"]
        if "draw_log_M" in record:
            # Drawn by its logarithm, it may be too large for a float.
            M = math.exp(min(record["draw_log_M"], LARGEST_LOG_M))
        acceptance = sum(step["acceptance"] for step in steps) / len(steps)
        values["acceptance"].append(record.get("draw_acceptance", acceptance))
        values["M"].append(math.nan if M is None else M)
        values["delta"].append(sum(step["delta"] for step in steps) / len(steps))
        steps = []
    return values
