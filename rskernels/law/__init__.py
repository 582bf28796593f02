"""What a decision is: the uniforms, seeds and streams that every backend obeys.

``philox`` makes uniforms of (seed, row, column, stream), ``decision`` holds what decides a row,
``streams`` names the uses of randomness, ``seeds`` checks and draws, ``numbers`` are what the
backends' arithmetic shares. Imports ``_python`` and torch alone.
"""

from rskernels.law.decision import Law
from rskernels.law.philox import philox4x32, row_uniforms, uniforms
from rskernels.law.seeds import check_row_offset, check_seed, check_stream, draw_seed
from rskernels.law.streams import Stream

__all__ = [
    "Law",
    "Stream",
    "check_row_offset",
    "check_seed",
    "check_stream",
    "draw_seed",
    "philox4x32",
    "row_uniforms",
    "uniforms",
]
