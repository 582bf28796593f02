"""What a run leaves behind: `checkpoint`, `metrics` and `figures`."""

from rskernels.rsft.artifacts.checkpoint import read
from rskernels.rsft.artifacts.figures import draw_curves, draw_trace
from rskernels.rsft.artifacts.metrics import MetricsWriter, Scores, evaluate

__all__ = ["MetricsWriter", "Scores", "draw_curves", "draw_trace", "evaluate", "read"]
