"""Selection of data sets larger than memory: read, decided and written piece by piece.

``run`` is the whole, ``job`` what one of the ``engines`` does with a piece, ``decide`` the decision
by a ``rule``; ``gather`` brings the answers to a prompt together. ``read`` knows formats and
``rows`` what is read of a row; ``store`` keeps what is done, so that a run that was killed goes on;
``totals`` and ``report`` say what came of it.
"""

from rskernels.pipeline.config import SelectConfig
from rskernels.pipeline.engines.local import Engine, LocalEngine
from rskernels.pipeline.rows.columns import Columns
from rskernels.pipeline.rule import Rule
from rskernels.pipeline.run import select

__all__ = ["Columns", "Engine", "LocalEngine", "Rule", "SelectConfig", "select"]
