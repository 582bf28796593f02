"""The Numba dense form: every entry of a row is a decision of its own, sixteen at a time.

``values`` lays out densities and Ms, ``rows`` takes a row's total and then its entries, a chunk
after the other. ``rough`` decides those of a mask that are not close, ``entries`` the others.
"""

from rskernels.kernels.cpu.dense.rows import dense_rows, log_entries
from rskernels.kernels.cpu.dense.values import KINDS, entry_values, plain_values

__all__ = ["KINDS", "dense_rows", "entry_values", "log_entries", "plain_values"]
