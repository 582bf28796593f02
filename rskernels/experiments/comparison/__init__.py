"""Comparisons: the runs of experiments, and what they say.

`runner` makes the runs, `workers` several at a time; `intervals` has means and differences over
the seeds, `report` puts them into tables and words, `figures` draws them.
"""

from rskernels.experiments.comparison.intervals import collect
from rskernels.experiments.comparison.report import write_report
from rskernels.experiments.comparison.runner import Failure, run_all

__all__ = ["Failure", "collect", "run_all", "write_report"]
