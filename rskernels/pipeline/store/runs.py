"""Sorted runs on disk, merged by ranges of their key: what is said of all rows, in little memory.

A run is an array of records ``{"key": int64, ...}`` of one piece, in the order of their keys.
Records of one key lie in one range of keys, so that ranges are merged one after the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rskernels.pipeline.store.write import atomic

ROOM = 1 << 20
"""Records that are merged together, about."""

Records = NDArray[Any]


def write_run(path: Path, records: Records) -> None:
    """Write a run that is whole or absent, sorted by key; records of one key keep their order."""
    key = records["key"]
    if len(key) > 1 and not (key[1:] >= key[:-1]).all():
        records = records[key.argsort(kind="stable")]
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, records, allow_pickle=False)


def merged(
    paths: Sequence[Path], *others: Sequence[Path], room: int | None = None
) -> Iterator[tuple[Records, NDArray[np.int64], list[Records]]]:
    """Yield the records of runs by rising ranges of keys, each key within one of them.

    Parameters
    ----------
    paths : sequence of Path
        Runs of records.
    *others : sequence of Path
        Runs that are cut by the same ranges.
    room : int, optional
        Records of all of them that are held at once, about: ``ROOM``. Those of one key are never
        parted.

    Yields
    ------
    records, run, others
        Records by key, and within a key in the order of runs and of records in them; of which run
        each is, int64; and the records of each of the others, by key.
    """
    files = [[_opened(path) for path in of] for of in (paths, *others)]
    total, room = sum(len(run) for of in files for run in of), room or ROOM
    cuts = _cuts([run["key"] for of in files for run in of], max(1, -(-total // room)))
    at = [[0] * len(of) for of in files]
    for cut in [*cuts, None]:
        parts: list[tuple[Records, NDArray[np.int64]]] = []
        for of, starts in zip(files, at, strict=True):
            taken = []
            for number, run in enumerate(of):
                start = starts[number]
                end = len(run)
                if cut is not None:
                    end = start + int(np.searchsorted(run["key"][start:], cut, side="left"))
                taken.append(np.array(run[start:end]))
                starts[number] = end
            parts.append(_by_key(taken))
        yield parts[0][0], parts[0][1], [records for records, _ in parts[1:]]


def new_records(path: Path, kind: Any, count: int) -> Any:
    """Return records of a new file, at least one, that are written where they lie."""
    records = np.lib.format.open_memmap(path, "w+", kind, (count,))
    with path.open("r+b") as file:
        # A disk that is full would else be found by a signal that kills.
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return records


def starts_of(ordered: NDArray[Any]) -> NDArray[np.int64]:
    """Return where runs of equal numbers begin."""
    if not len(ordered):
        return np.zeros(0, np.int64)
    return np.concatenate([[0], (ordered[1:] != ordered[:-1]).nonzero()[0] + 1])


def _opened(path: Path) -> Records:
    records: Records = np.load(path, mmap_mode="r", allow_pickle=False)
    return records


def _cuts(keys: list[NDArray[np.int64]], ranges: int) -> list[int]:
    """Return keys between ranges of about as many records, by a sample of them."""
    if ranges == 1:
        return []
    sample = np.concatenate(
        [key[:: max(1, len(key) * len(keys) // (64 * ranges) or 1)] for key in keys]
    )
    sample.sort()
    places = np.arange(1, ranges) * len(sample) // ranges
    cuts: list[int] = np.unique(sample[places]).tolist()
    return cuts


def _by_key(parts: list[Records]) -> tuple[Records, NDArray[np.int64]]:
    sizes = [len(part) for part in parts]
    records = np.concatenate(parts) if parts else np.zeros(0, [("key", np.int64)])
    run = np.repeat(np.arange(len(parts)), sizes)
    order = records["key"].argsort(kind="stable")
    return records[order], run[order]
