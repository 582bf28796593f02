"""Means, intervals and differences, against what a hand computes."""

import math

import numpy as np
import pytest

from rskernels.experiments.comparison.intervals import (
    Interval,
    Result,
    at_equal_cost,
    best_at_equal_cost,
    best_baseline,
    course,
    paired,
    t_interval,
)


def result(name, accuracies, *, spent=((10, 20),), courses=None, is_baseline=True):
    """Return a result whose courses are accuracies ``[seeds, epochs]`` over samples spent."""
    accuracies = np.array(accuracies, dtype=float)
    values = {} if courses == {} else {
        "gradient_samples": np.broadcast_to(np.array(spent, dtype=float), accuracies.shape),
        "balanced_accuracy": accuracies,
    }  # fmt: skip
    measures = {"balanced_accuracy": accuracies[:, -1]}
    return Result(name, is_baseline, not is_baseline, measures, values)


def test_the_interval_is_students():
    mean, half = t_interval(np.array([1.0, 2.0, 3.0]))
    assert mean == 2
    assert half == pytest.approx(4.302653 * 1 / math.sqrt(3), rel=1e-6)
    ten = t_interval(np.arange(10.0))
    assert ten.half == pytest.approx(2.262157 * 3.0276504 / math.sqrt(10), rel=1e-6)


def test_one_seed_tells_nothing_apart():
    alone = t_interval(np.array([0.5]))
    assert alone.mean == 0.5
    assert math.isnan(alone.half)
    assert alone.verdict == "is not told apart"


def test_nineteen_of_twenty_intervals_hold_the_mean():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 5))
    held = [abs(mean - 3) <= half for mean, half in map(t_interval, draws)]
    assert abs(np.mean(held) - 0.95) <= 5 * math.sqrt(0.95 * 0.05 / 4000)


@pytest.mark.parametrize(
    ("mean", "half", "verdict"),
    [
        (0.1, 0.09, "wins"),
        (-0.1, 0.09, "loses"),
        (0.1, 0.1, "ties"),
        (0, 0, "ties"),
        (1e-17, 0, "ties"),
    ],
)
def test_a_tie_is_an_interval_that_holds_0(mean, half, verdict):
    assert Interval(mean, half).verdict == verdict


def test_differences_are_taken_seed_by_seed():
    ours = result("ours", [[0, 0.5], [0, 0.9], [0, 0.1]])
    theirs = result("theirs", [[0, 0.4], [0, 0.8], [0, 0.0]])
    difference = paired(ours, theirs, "balanced_accuracy")
    assert difference.mean == pytest.approx(0.1)
    assert difference.half == pytest.approx(0, abs=1e-12)
    assert t_interval(ours.measures["balanced_accuracy"]).half > 0.9


def test_at_equal_cost_both_are_read_where_the_shorter_ends():
    ours = result("ours", [[0.2, 0.6], [0.3, 0.5]], spent=[[5, 15]])
    theirs = result("theirs", [[0.4, 0.8], [0.0, 0.8]], spent=[[10, 20]])
    difference = at_equal_cost(ours, theirs)  # at 15, where theirs are half way
    assert difference.mean == pytest.approx(((0.6 - 0.6) + (0.5 - 0.4)) / 2)
    back = at_equal_cost(theirs, ours)
    assert back.mean == pytest.approx(-difference.mean)
    assert back.half == pytest.approx(difference.half)
    brief = result("brief", [[0.1, 0.2], [0.1, 0.4]], spent=[[2, 4]])
    # Theirs are first scored at 10: brief is read at its end.
    assert at_equal_cost(brief, theirs).mean == pytest.approx(((0.2 - 0.4) + (0.4 - 0.0)) / 2)


def test_the_best_baselines():
    ours = result("ours", [[0.2, 0.6], [0.2, 0.6]], spent=[[5, 10]], is_baseline=False)
    slow = result("slow", [[0.1, 0.9], [0.1, 0.9]], spent=[[10, 20]])
    fast = result("fast", [[0.7, 0.8], [0.7, 0.8]], spent=[[10, 20]])
    still = result("still", [[0.95], [0.95]], courses={})
    assert best_baseline(ours, [ours, slow, fast])[0].name == "slow"
    assert best_baseline(ours, [ours, slow, fast, still])[0].name == "still"
    best, difference = best_at_equal_cost(ours, [ours, slow, fast, still])
    assert best.name == "fast"
    assert difference.mean == pytest.approx(-0.1)
    assert best_at_equal_cost(ours, [ours, still]) is None


def test_a_course_is_that_of_each_epoch_alone():
    def step(acceptance, delta):
        return {"kind": "step", "acceptance": acceptance, "delta": delta}

    def epoch(spent, M, **more):
        accuracies = {"balanced_accuracy": 0.5, "worst_accuracy": 0.1}
        return {"kind": "epoch", "gradient_samples": spent, "M": M, **accuracies, **more}

    records = [step(0.5, 0.1), step(0.7, 0.3), epoch(20, 3.0), step(0.1, 0.0), epoch(25, None)]
    values = course(records)
    assert values["acceptance"] == pytest.approx([0.6, 0.1])
    assert values["delta"] == pytest.approx([0.2, 0.0])
    assert values["gradient_samples"] == [20, 25]
    assert values["M"][0] == 3.0
    assert math.isnan(values["M"][1])
    drawn = course([step(1.0, 0.0), epoch(9, None, draw_acceptance=0.2, draw_log_M=math.log(5))])
    assert (drawn["acceptance"], drawn["M"]) == ([0.2], [pytest.approx(5.0)])
    huge = course([step(1.0, 0.0), epoch(9, None, draw_acceptance=0.2, draw_log_M=1e5)])
    assert math.isfinite(huge["M"][0])  # where exp would raise
