"""What rejection buys off-policy: stale rollouts, each correction, and their bias and variance.

`estimators` are the corrections. `policy` can list all of its sequences, so that `exact` knows
their moments and `simulate` draws the rest; `network` is trained by them, in `train`. `study` is
all of it in pieces, `report` and `figures` say what came of it. The command is
``python -m rskernels.experiments.off_policy``.
"""

from rskernels.experiments.off_policy.report import write_report
from rskernels.experiments.off_policy.study import FULL, QUICK, run_study

__all__ = ["FULL", "QUICK", "run_study", "write_report"]
