"""Runs that fail, or are killed or interrupted: what becomes of the others, and of the report."""

import json
import math
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from rskernels.experiments.comparison import runner
from rskernels.experiments.comparison.intervals import at_equal_cost, collect, paired
from rskernels.experiments.comparison.report import (
    frozen,
    overview,
    sentences,
    table,
    write_report,
)
from rskernels.experiments.comparison.runner import ERROR, Failure, folder_of, is_done, run_all
from rskernels.experiments.suite import FROZEN, make_runs
from rskernels.rsft.errors import TrainingError
from rskernels.rsft.rules import RULES, Rule

from .wine import WINE, make, timeless


@pytest.mark.process
def test_an_interrupt_is_for_the_parent_alone_and_a_process_that_dies_fails_its_run(tmp_path):
    plain = WINE._replace(cases=WINE.cases[:1], options={**WINE.options, "epochs": 1})
    runs = make_runs([plain], seeds=3)
    outcomes = runner._outcomes(runs, tmp_path, 2, overwrite=False)
    killed = threading.Thread(target=kill_a_child)
    killed.start()
    failures = [outcome for outcome in outcomes if outcome is not None]
    killed.join()
    [(run, reason)] = failures
    assert "ended by SIGKILL, for want of memory perhaps" in reason
    done = [is_done(r.config, folder_of(r, tmp_path)) for r in runs]
    assert done == [r != run for r in runs]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert run_all(runs, tmp_path, progress=False) == []


def kill_a_child():
    """Kill the first process that there is, once it is seen that interrupts do not reach it."""
    while not (children := multiprocessing.active_children()):
        time.sleep(0.01)
    status = Path(f"/proc/{children[0].pid}/status").read_text(encoding="utf-8")
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    assert blocked >> (signal.SIGINT - 1) & 1
    os.kill(children[0].pid, signal.SIGKILL)


@pytest.mark.process
def test_an_interrupt_ends_the_processes_at_once(tmp_path):
    long = WINE._replace(options={**WINE.options, "epochs": 100_000})
    outcomes = runner._outcomes(make_runs([long], seeds=1), tmp_path, 2, overwrite=False)
    main = threading.main_thread().ident
    timer = threading.Timer(2.0, signal.pthread_kill, [main, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)
    assert multiprocessing.active_children() == []


def test_a_comparison_of_which_no_run_can_be_finished_names_the_first(tmp_path):
    wild = WINE._replace(options={**WINE.options, "lr": 1e20})
    with pytest.raises(TrainingError, match=r"none of 6 runs .*wine/plain-seed0: .*a smaller lr"):
        make(tmp_path, wild)


@pytest.fixture
def broken(monkeypatch):
    """Let `accept` fail, in whatever way, on runs of a seed."""

    def fail(error, seed):
        rule = RULES["accept"]

        def select(logits, targets, log_density, state):
            if state.seed == seed:
                raise error
            return rule.select(logits, targets, log_density, state)

        monkeypatch.setitem(RULES, "accept", Rule(select, rejects=True))

    return fail


def test_a_failed_run_is_reported_and_the_others_go_on(straight, tmp_path, broken):
    broken(TrainingError("step 3: no\nwonder"), seed=1)
    runs = make_runs([WINE], seeds=3)
    [failure] = run_all(runs, tmp_path, progress=False)
    assert failure == Failure(runs[5], "step 3: no wonder")
    assert "Traceback" in (folder_of(runs[5], tmp_path) / ERROR).read_text(encoding="utf-8")
    results = collect(WINE, runs, tmp_path, [failure])
    *others, ours = results
    assert np.isnan(ours.measures["seconds"]).tolist() == [False, True, False]
    assert ours.title == "accept, M max (2 of 3 seeds)"
    assert [r.title for r in others] == ["plain", "class weights"]
    # Means are of the two seeds, and differences are taken between the same ones.
    known = ours.measures["balanced_accuracy"][[0, 2]]
    assert table(results)[1][2][1].startswith(f"{known.mean():.3f} ± ")
    less = known - others[0].measures["balanced_accuracy"][[0, 2]]
    assert paired(ours, others[0], "balanced_accuracy").mean == pytest.approx(less.mean())
    assert not math.isnan(at_equal_cost(ours, others[0]).mean)
    path = write_report([(WINE, results)], tmp_path)
    text = path.read_text(encoding="utf-8")
    assert "**1 of 9 runs failed.**" in text
    assert "- *accept, M max* of wine, seed 1: step 3: no wonder" in text
    assert "`accept, M max (2 of 3 seeds)` **" in text
    numbers = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["wine"]
    assert numbers["accept, M max"]["balanced_accuracy"] == [known[0], None, known[1]]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("of 8 GiB"), "MemoryError: of 8 GiB"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (RuntimeError("can't allocate memory"), "RuntimeError: can't allocate memory"),
    ],
)
def test_whatever_a_run_fails_of_the_comparison_goes_on(tmp_path, broken, error, reason):
    broken(error, seed=0)
    runs = make_runs([WINE], seeds=1)
    assert [f.reason for f in run_all(runs, tmp_path, progress=False)] == [reason]


def test_a_case_of_which_every_run_failed_is_in_the_report(tmp_path, broken, recwarn):
    broken(TrainingError("never"), seed=0)
    runs = make_runs([WINE], seeds=1)
    failures = run_all(runs, tmp_path, progress=False)
    results = collect(WINE, runs, tmp_path, failures)
    text = write_report([(WINE, results)], tmp_path).read_text(encoding="utf-8")
    assert "| accept, M max (0 of 1 seeds) | – | – |" in text
    assert "`accept, M max (0 of 1 seeds)` **cannot be compared** with *" in text
    assert "cannot be compared 1." in text
    # Against a baseline that failed nothing can be said either.
    turned = [results[2]._replace(is_baseline=True), results[0]._replace(is_baseline=False)]
    assert "**cannot be compared** with" in write_report([(WINE, turned)], tmp_path).read_text(
        encoding="utf-8"
    )
    assert not [w for w in recwarn if w.category is RuntimeWarning]


def test_a_run_that_failed_is_tried_again(straight, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(RULES, "accept", Rule(lambda *a: 1 / 0, rejects=True))
        failures = run_all(make_runs([WINE], seeds=2), tmp_path, progress=False)
    assert [f.reason for f in failures] == ["ZeroDivisionError: division by zero"] * 2
    assert timeless(make(tmp_path)) == timeless(straight[1])
    assert not list(tmp_path.rglob(ERROR))


def of_seeds(result, seeds, **changes):
    """Return a result over three seeds, all as its first run was, of which only these are done."""
    done = np.isin(np.arange(3), seeds)
    measures = {name: np.where(done, v[0], np.nan) for name, v in result.measures.items()}
    courses = {name: np.where(done[:, None], v[0], np.nan) for name, v in result.courses.items()}
    lost = (Failure(None, "lost"),) * (3 - len(seeds))
    return result._replace(measures=measures, courses=courses, failures=lost, **changes)


def test_an_M_that_the_pilot_fixed_is_compared_on_the_seeds_that_both_finished(straight):
    learns = of_seeds(straight[1][-1], [0, 1])
    fixed = of_seeds(straight[1][-1], [2], name=learns.name + FROZEN)
    [sentence] = frozen([learns, fixed])
    assert sentence == f"`{fixed.title}` **cannot be compared** with the M that goes on learning."
    fixed = of_seeds(straight[1][-1], [1, 2], name=fixed.name)
    for course in ("M", "acceptance", "delta"):
        fixed.courses[course][2] = 1e6  # of a seed that the other lacks
        learns.courses[course][0] = 1e6
    [sentence] = frozen([learns, fixed])
    M = learns.courses["M"][1, 2:].mean()
    assert "+0.000, of one seed. Over the second half M is " in sentence
    assert f"M is {M:.3g} for {M:.3g}, " in sentence
    assert "1e+06" not in sentence
    assert "1000000" not in sentence


def test_costs_are_of_the_seeds_that_both_finished_and_so_is_the_best_baseline(straight):
    plain, weights, ours = (
        of_seeds(r, s) for r, s in zip(straight[1], ([0, 1], [0, 2], [0, 1]), strict=True)
    )
    for result, accuracies in ((plain, (0.5, 0.5, np.nan)), (weights, (0.4, np.nan, 0.9))):
        result.measures["balanced_accuracy"][:] = accuracies
    plain.measures["gradient_samples"][:] = 100, 300, np.nan
    ours.measures["gradient_samples"][:] = 50, 150, np.nan
    weights.measures["gradient_samples"][:] = 70, np.nan, 9e6
    [sentence] = sentences([plain, weights, ours])
    # The other is better only on a seed that rejection lacks.
    assert "*plain (2 of 3 seeds)*" in sentence
    assert "with 100 gradient samples for 200 and" in sentence
    [sentence] = sentences([weights, ours])
    assert "of one seed, with 50 gradient samples for 70 and" in sentence


def test_nothing_is_said_of_equal_cost_where_nothing_can_be(straight):
    plain, _, ours = straight[1]
    text = overview([(WINE, [of_seeds(plain, [0, 1]), of_seeds(ours, [2])])])
    assert text.startswith(
        "Of 1 cases of rejection against the best baseline: cannot be compared 1.\n"
    )
