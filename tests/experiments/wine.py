"""A comparison small enough for tests."""

from rskernels.experiments.comparison.intervals import collect
from rskernels.experiments.comparison.report import COLUMNS, table
from rskernels.experiments.comparison.runner import run_all
from rskernels.experiments.suite import Case, Experiment, make_runs

WINE = Experiment(
    "wine",
    "Wine",
    {"data": "wine", "imbalance": 4.0, "epochs": 4, "batch_size": 16},
    (
        Case("plain", {"method": "plain"}),
        Case("class weights", {"method": "reweight"}),
        Case("accept, M max", {"method": "accept", "envelope": "max"}, False),
    ),
    {"epochs": 1},
)


def make(out, experiment=WINE, *, seeds=2, **arguments):
    runs = make_runs([experiment], seeds=seeds)
    run_all(runs, out, progress=False, **arguments)
    return collect(experiment, runs, out)


def timeless(results):
    """Return the table without the seconds, which come last."""
    assert COLUMNS[-1][1] == "seconds"
    headings, rows = table(results)
    return headings[:-1], [row[:-1] for row in rows]
