"""Selection from data sets larger than memory: read, decided and written piece by piece.

``run`` is the whole selection, in passes over the pieces. A ``job`` is what a pass does with one
piece, and one of the ``engines`` runs it. ``decide`` decides rows by a ``rule``; where a rule needs
all answers to a prompt, ``gather`` brings them together. ``read`` knows the file formats, ``rows``
what is read of a row. ``store`` keeps what is done, so that a run that was killed can go on.
``totals`` and ``report`` say what came of it.
"""

from rskernels.pipeline.config import SelectConfig
from rskernels.pipeline.engines.errors import EngineError
from rskernels.pipeline.engines.local import Engine, LocalEngine
from rskernels.pipeline.engines.on_ray import RayEngine
from rskernels.pipeline.rows.columns import Columns
from rskernels.pipeline.rule import Rule
from rskernels.pipeline.run import select
from rskernels.pipeline.score.log_prob import LogProb
from rskernels.pipeline.score.reward import Reward
from rskernels.pipeline.score.run import score
from rskernels.pipeline.score.scorer import ScoreConfig

__all__ = [
    "Columns",
    "Engine",
    "EngineError",
    "LocalEngine",
    "LogProb",
    "RayEngine",
    "Reward",
    "Rule",
    "ScoreConfig",
    "SelectConfig",
    "score",
    "select",
]
