"""Ids that several rows have: found by merging what each piece wrote, in little memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rskernels.pipeline.store.runs import merged

NAMED = 5


def duplicates_in(runs: Sequence[Path]) -> tuple[int, list[int]]:
    """Return how many rows have the id of an earlier one, and the first of such ids."""
    count, named = 0, list[int]()
    for records, _, _ in merged(runs):
        key = records["key"]
        repeated = key[1:][key[1:] == key[:-1]]
        count += len(repeated)
        if len(named) < NAMED:
            named += np.unique(repeated)[: NAMED - len(named)].tolist()
    return count, named
