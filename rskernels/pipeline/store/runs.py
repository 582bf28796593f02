"""Records of all rows, sorted on disk and merged in little memory.

A run is a file of one piece: an array of records ``{"key": int64, ...}``, sorted by key. Runs are
merged range of keys after range of keys, so that all records of one key come together.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rskernels.pipeline.store.write import atomic

ROOM = 1 << 18
"""Records that are merged together, about."""

SAMPLED = 64
"""Records a range, of the sample by which the ranges are cut."""

Records = NDArray[Any]


def write_run(path: Path, records: Records) -> None:
    """Write a run that is whole or absent, sorted by key; records of one key keep their order."""
    key = records["key"]
    if len(key) > 1 and not (key[1:] >= key[:-1]).all():
        records = records[key.argsort(kind="stable")]
    with atomic(path) as temporary, temporary.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(records)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(records.tobytes())  # np.save does not say that a disk is full


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
        About how many records are held at once; ``ROOM`` by default. Those of one key come
        together even if they are more.

    Yields
    ------
    records, run, others
        Records by key, and within a key in the order of runs and of records in them; the number of
        the run that each is of, int64; and the records of each of the others, by key.
    """
    room = room or ROOM
    files = [[_Run(path) for path in of] for of in (paths, *others)]
    total = sum(run.count for of in files for run in of)
    cuts = _cuts([run for of in files for run in of], max(1, -(-total // room)), total)
    for cut in [*cuts, None]:
        parts = [_by_key([run.until(cut) for run in of]) for of in files]
        yield parts[0][0], parts[0][1], [records for records, _ in parts[1:]]


class _Run:
    """A run that is read from its beginning; its file is open only meanwhile."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"{path} is no run: its format is {version}")
            (self.count,), _, self.kind = np.lib.format.read_array_header_1_0(file)
            self._offset = file.tell()
        self._path, self._at = path, 0

    def until(self, cut: int | None) -> Records:
        """Return the records that are left with keys below one; None: all."""
        with self._path.open("rb") as file:
            start, low, high = self._at, self._at, self.count
            if cut is None:
                low, cut = high, 0
            while low < high:
                middle = (low + high) // 2
                if self._key(file, middle) < cut:
                    low = middle + 1
                else:
                    high = middle
            self._at = low
            file.seek(self._offset + start * self.kind.itemsize)
            records: Records = np.fromfile(file, self.kind, low - start)
        return records

    def sample(self, stride: int) -> list[int]:
        """Return every so many keys."""
        with self._path.open("rb") as file:
            return [self._key(file, at) for at in range(0, self.count, stride)]

    def _key(self, file: Any, at: int) -> int:
        data = os.pread(file.fileno(), self.kind.itemsize, self._offset + at * self.kind.itemsize)
        return int(np.frombuffer(data, self.kind)["key"][0])


def new_records(path: Path, kind: Any, count: int) -> Any:
    """Return an array of at least one record that is a new file's content, mapped into memory."""
    records = np.lib.format.open_memmap(path, "w+", kind, (count,))
    with path.open("r+b") as file:
        # Without room set aside, a full disk would end the process by a signal.
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return records


def starts_of(ordered: NDArray[Any]) -> NDArray[np.int64]:
    """Return where runs of equal numbers begin."""
    if not len(ordered):
        return np.zeros(0, np.int64)
    return np.concatenate([[0], (ordered[1:] != ordered[:-1]).nonzero()[0] + 1])


def _cuts(runs: Sequence[_Run], ranges: int, total: int) -> list[int]:
    """Return keys between ranges of about as many records, by a sample of them."""
    if ranges == 1:
        return []
    stride = max(1, total // (SAMPLED * ranges))
    sample = np.sort(np.array([key for run in runs for key in run.sample(stride)]))
    places = np.arange(1, ranges) * len(sample) // ranges
    cuts: list[int] = np.unique(sample[places]).tolist()
    return cuts


def _by_key(parts: list[Records]) -> tuple[Records, NDArray[np.int64]]:
    sizes = [len(part) for part in parts]
    records = np.concatenate(parts) if parts else np.zeros(0, [("key", np.int64)])
    run = np.repeat(np.arange(len(parts)), sizes)
    order = records["key"].argsort(kind="stable")
    return records[order], run[order]
