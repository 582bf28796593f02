"""When rejection pays in seconds: a network of five million parameters, and a model of its costs.

`data` and `network` are what is trained, `methods` which rows are, `kept` a form of the loop that
computes no product twice. `costs` times the parts, `model` says what they come to at any size,
`study` is all of it in pieces, and `analysis`, `report` and `figures` what came of it. The command
is ``python -m rskernels.experiments.seconds``.
"""

from rskernels.experiments.seconds.report import write_report
from rskernels.experiments.seconds.study import FULL, QUICK, run_study

__all__ = ["FULL", "QUICK", "run_study", "write_report"]
