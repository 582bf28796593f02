"""Selection of data sets larger than memory: read, decided and written piece by piece.

``run`` is the whole; ``job`` what an engine runs on a piece, ``local`` the engine of one machine;
``keys`` what is read of a row and ``decide`` the decision; ``write`` and ``manifest`` let a run that
was killed go on; ``totals`` and ``runs`` are what is known of all rows in little memory.
"""

from rskernels.pipeline.columns import Columns
from rskernels.pipeline.config import SelectConfig
from rskernels.pipeline.local import Engine, LocalEngine
from rskernels.pipeline.run import select

__all__ = ["Columns", "Engine", "LocalEngine", "SelectConfig", "select"]
