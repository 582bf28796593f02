"""Tables of a user's file as float32, with what their columns tell."""

from collections.abc import Sequence

import numpy as np
import torch

from rskernels.rsft.data.samples import Named
from rskernels.rsft.say import say

FINEST = 2.0**-24  # relative rounding of float32
SMALLEST = 2.0**-126  # below which float32 rounds coarser
LOST = 1e-3  # of what values differ by, what rounding to float32 may take
MOST_LISTED = 10
BLOCK = 1 << 20  # elements


def convert_tables(parts: Sequence[Named]) -> list[torch.Tensor]:
    """Return tables ``[N, D]`` as float32.

    Columns of which float32 would lose the spread are brought to 0 … 1 of the first table, and
    that is said.
    """
    x, name = parts[0]
    low, high = x.min(axis=0), x.max(axis=0)
    far = _lost(x, low, high)
    if not far.any():
        return [torch.from_numpy(np.ascontiguousarray(values, np.float32)) for values, _ in parts]
    columns = np.flatnonzero(far)
    more = f" and {len(columns) - MOST_LISTED} more" if len(columns) > MOST_LISTED else ""
    say(
        f"{name}: column(s) {', '.join(map(str, columns[:MOST_LISTED]))}{more} are brought to "
        "0 … 1, since float32 would round away how they differ"
    )
    low, span = low[far], above(high[far], low[far])
    return [_brought(values, columns, low, span) for values, _ in parts]


def above(x: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return x − low as float64, or longer; rounded once, even of integers beyond 2⁵³."""
    if "f" in (x.dtype.kind, low.dtype.kind):
        wide = np.result_type(x, low, np.float64)
        real: np.ndarray = x.astype(wide) - low.astype(wide)
        return real
    # Modulo 2⁶⁴, where a difference of integers is exact.
    up = x.astype(np.uint64) - low.astype(np.uint64)
    return np.where(x >= low, up.astype(np.float64), -(-up).astype(np.float64))


def _lost(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Say of each column, bool ``[D]``, whether float32 would lose its spread."""
    varies = low < high
    span = np.where(varies, above(high, low), 1.0)
    total, squares = np.zeros((2, x.shape[1]))
    for rows in _blocks(x):
        units = (above(x[rows], low) / span).astype(np.float64)
        total += units.sum(axis=0)
        squares += np.square(units).sum(axis=0)
    # In units of the span the variance is at least 1/(2N): no difference of squares cancels it.
    mean = total / len(x)
    spread = span * np.sqrt(np.maximum(squares / len(x) - mean**2, 0.0))
    rounding = np.maximum(np.abs(low.astype(np.float64) + span * mean) * FINEST, SMALLEST)
    lost: np.ndarray = varies & (rounding > LOST * spread)
    return lost


def _brought(x: np.ndarray, columns: np.ndarray, low: np.ndarray, span: np.ndarray) -> torch.Tensor:
    """Return a table as float32, and some columns as multiples of a span above their lowest."""
    out = np.array(x, np.float32, order="C")
    for rows in _blocks(x):
        # What a test set holds far outside is infinite then, and refused once it is standardised.
        with np.errstate(over="ignore"):
            out[rows, columns] = above(x[rows, columns], low) / span
    return torch.from_numpy(out)


def _blocks(x: np.ndarray) -> list[slice]:
    """Return the rows of each block: in float64 a large table may not fit into memory."""
    rows = max(BLOCK // x.shape[1], 1)
    return [slice(start, start + rows) for start in range(0, len(x), rows)]
