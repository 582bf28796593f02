"""Ways to fine-tune a language model on its own answers, at equal tokens, over tasks and seeds.

`subjects` are the tasks and how much is spent on each, `methods` what is trained on, `pool` the
answers, `train` a run, `measure` and `laws` what it came to; `study` is all runs in pieces,
`analysis`, `report`, `figures` and `guide` what they say. The command is ``rskernels compare lm``.
"""

from rskernels.experiments.lm.report import write_report
from rskernels.experiments.lm.study import FULL, QUICK, run_study

__all__ = ["FULL", "QUICK", "run_study", "write_report"]
