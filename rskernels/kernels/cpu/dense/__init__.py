"""The Numba dense form: every entry of a row is a decision of its own, sixteen at a time.

``values`` lays out densities and Ms. ``rows`` sums a row's total and then decides its entries,
chunk after chunk. Of a mask, ``rough`` decides the entries that rounding cannot turn, without a
logarithm; ``entries`` decides the others exactly, and all entries where more than a mask is wanted.
"""

from rskernels.kernels.cpu.dense.rows import dense_rows, log_entries
from rskernels.kernels.cpu.dense.values import KINDS, entry_values, plain_values

__all__ = ["KINDS", "dense_rows", "entry_values", "log_entries", "plain_values"]
