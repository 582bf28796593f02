"""The commands for data sets: ``select`` and ``score``, and the options of ``engines``."""

from rskernels.cli.data.score import score_command
from rskernels.cli.data.select import select_command

__all__ = ["score_command", "select_command"]
