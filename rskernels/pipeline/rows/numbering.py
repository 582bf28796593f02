"""Rows that are equal, counted: the ids of rows without an id or sample column.

The id of such a row is the hash of two numbers: the hash of its prompt, completion and reward, and
how many equal rows come before it. So order and shards change which of equal rows are kept, not how
many. How many come in earlier pieces is counted by a first pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rskernels.pipeline.rows.hashing import pairs_of
from rskernels.pipeline.store.runs import Records, merged, write_run

COUNTED = np.dtype([("key", np.int64), ("count", np.int64)])


def counts_of(hashes: NDArray[np.int64]) -> Records:
    """Return how often each hash comes, by rising hash."""
    keys, counts = np.unique(hashes, return_counts=True)
    records = np.zeros(len(keys), COUNTED)
    records["key"], records["count"] = keys, counts
    return records


def numbered(hashes: NDArray[np.int64], before: Records | None = None) -> NDArray[np.int64]:
    """Return the ids of rows: each hash paired with how many rows of it come before.

    Parameters
    ----------
    hashes : array
        int64 ``[N]``, of the rows of a piece in order.
    before : array, optional
        Records of hashes and how many rows of each come in earlier pieces, if any do.
    """
    order = hashes.argsort(kind="stable")
    ordered = hashes[order]
    is_first = np.ones(len(ordered), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    places = np.arange(len(ordered))
    numbers = np.empty(len(hashes), np.int64)
    numbers[order] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    if before is not None and len(before):
        at = np.searchsorted(before["key"], hashes).clip(max=len(before) - 1)
        numbers += np.where(before["key"][at] == hashes, before["count"][at], 0)
    return pairs_of(hashes, numbers)


def write_counts_before(runs: Sequence[Path], out: Sequence[Path]) -> None:
    """Write for each piece, of those of its hashes that come before, how many rows come before.

    Parameters
    ----------
    runs : sequence of Path
        What ``counts_of`` returned of each piece, as ``write_run`` wrote it.
    out : sequence of Path
        The files to write, one a piece.
    """
    found: list[list[Records]] = [[] for _ in runs]
    for records, run, _ in merged(runs):
        if not len(records):
            continue
        counts = records["count"]
        is_first = np.ones(len(records), bool)
        is_first[1:] = records["key"][1:] != records["key"][:-1]
        total = counts.cumsum() - counts
        before = total - np.maximum.accumulate(np.where(is_first, total, 0))
        for number in np.unique(run[before > 0]).tolist():
            which = (run == number) & (before > 0)
            part = np.zeros(int(which.sum()), COUNTED)
            part["key"], part["count"] = records["key"][which], before[which]
            found[number].append(part)
    none = np.zeros(0, COUNTED)
    for parts, path in zip(found, out, strict=True):
        write_run(path, np.concatenate([none, *parts]))
