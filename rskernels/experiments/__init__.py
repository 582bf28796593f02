"""What the command runs, and its laboratory: data sets, networks, and comparisons of them.

`families` makes one run of a `config`: `train`, `tune` or `sample`. `suite` says what ``compare``
and ``demo`` compare, `runner` makes those runs, `intervals` and `report` say what came of them.
`off_policy` is a study of its own, of rollouts that are stale.
`datasets`, `bundled` and `multimodal` are the data, `networks` the models, `shift` a shift of the
inputs.
"""

from rskernels.experiments.config import GradientConfig, SampleConfig, TuneConfig
from rskernels.experiments.families import run
from rskernels.experiments.suite import DEMO, EXPERIMENTS

__all__ = ["DEMO", "EXPERIMENTS", "GradientConfig", "SampleConfig", "TuneConfig", "run"]
