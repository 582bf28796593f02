"""Whether the largest ratios that an envelope has seen speak against any finite M."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rskernels.envelope import Envelope
from rskernels.envelope.report import MOST_SHAPE
from rskernels.envelope.state import columns_of

# Of the whole tail, 3√S of S ratios: 4 standard deviations above 0 where S is 4,000 and M finite;
# where the true shape is 0.7 to 1, 1 run in 20 stays below (docs/theory/violations.md).
UNBOUNDED = 0.3
# Its halves say so too, down to this many ratios: a target that few proposals hit has a tail of
# almost nothing, below a top that is bounded.
FEWEST = 10


def is_unbounded(envelope: Envelope, pareto_k: float) -> bool:
    """Say whether the ratios look as if no finite M bounds them; False where they are too few.

    Parameters
    ----------
    envelope : Envelope
        Of one group.
    pareto_k : float
        k̂ of its report.
    """
    if not pareto_k >= UNBOUNDED:
        return False
    state = columns_of(envelope)
    largest = state["tail"].sort(descending=True).values
    valid = int((state["seen"] - state["invalid"]).item())
    length = min(math.ceil(3 * math.sqrt(valid)), len(largest) - 1)
    shape = pareto_k
    while True:
        # Of few values that are repeated no law can be told.
        if int((largest[:length] > largest[length]).sum()) < FEWEST:
            return False
        if length < 2 * FEWEST:
            return shape <= MOST_SHAPE
        length //= 2
        shape = _pareto_k(largest, length)
        if not shape > 0.0:
            return False


def _pareto_k(largest: Tensor, length: int) -> float:
    """Return k̂ of so many of the largest ratios, above the next."""
    # A fifth of no more than 225 ratios is the tail, 3√S of more; the others need only be smaller.
    valid = 5 * length if length <= 45 else (length // 3) ** 2
    rows = torch.full((valid,), -math.inf, dtype=torch.float64)
    rows[: length + 1] = largest[: length + 1]
    envelope = Envelope()
    envelope.update(rows)
    return envelope.report().overall["pareto_k"]
