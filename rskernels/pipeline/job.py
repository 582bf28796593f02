"""What an engine runs on each piece: read it, decide its rows, write those that are kept.

A job is a function of a piece and of files that earlier passes wrote. It writes files of its own,
each whole or absent, the record of the piece last: so a piece whose record is there is done, and
one that a crash left half done is done again, with the same result. An engine calls jobs on pieces,
in any order and on any machine that shares the folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rskernels._python.extras import data_extra
from rskernels.pipeline.decide import Decisions, decide, invalid_of
from rskernels.pipeline.gather import gathered, rows_from
from rskernels.pipeline.pairs import pairable, write_sides
from rskernels.pipeline.read import Piece, batches, kept_rows, place_of
from rskernels.pipeline.rows.columns import Columns, Found
from rskernels.pipeline.rows.keys import Keys, joined, keys_of
from rskernels.pipeline.rows.numbering import counts_of, numbered
from rskernels.pipeline.rule import Rule
from rskernels.pipeline.store.runs import write_run
from rskernels.pipeline.store.write import atomic, write_part, write_whole
from rskernels.pipeline.totals import totals_of
from rskernels.pipeline.weighted import schema_with, weighted_rows

FOLDERS = (
    "counts", "before", "gathered", "pilot", "accepted", "groups", "ids", "pairable", "sides",
    "done",
)  # fmt: skip
SCHEMA = "schema.arrow"
NAMED = 10
"""Malformed rows that an error or a report names."""
IDS = np.dtype([("key", np.int64)])


@dataclass(frozen=True)
class Work:
    """The folder of a run's unfinished files, by pass and piece."""

    folder: Path

    def path(self, of: str, number: int, suffix: str) -> Path:
        """Return where a file of a piece lies."""
        return self.folder / of / f"{number:06d}{suffix}"

    def paths(self, of: str, count: int, suffix: str = ".npy") -> list[Path]:
        """Return where the files of all pieces lie."""
        return [self.path(of, number, suffix) for number in range(count)]

    @property
    def resolved(self) -> Path:
        """Where what became of each row lies, if it was decided before the writing."""
        return self.folder / "resolved.npy"

    @property
    def paired(self) -> Path:
        """Where the pair of each row lies."""
        return self.folder / "paired.npy"

    def make(self, folders: Iterable[str] = FOLDERS, schema: Any = None) -> None:
        """Make the folders, and note the schema of what is written, if it is tables."""
        for name in folders:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if schema is not None:
            with atomic(self.folder / SCHEMA) as temporary:
                temporary.write_bytes(schema.serialize().to_pybytes())

    def schema(self) -> Any:
        """Return the schema of what is written; None of JSON lines."""
        path = self.folder / SCHEMA
        if not path.exists():
            return None
        with data_extra():
            import pyarrow as pa
        return pa.ipc.read_schema(pa.py_buffer(path.read_bytes()))


@dataclass(frozen=True)
class Record:
    """What a job says of a piece.

    Attributes
    ----------
    number : int
        Of the piece.
    rows, accepted : int
        Rows that were read, and kept.
    bad : int
        Rows that are malformed, or whose reward the form does not take.
    named : list of str
        Where the first of them are, by file and line, and what is wrong.
    seconds, deciding : float
        What the piece took, and what of that is not the writing.
    deciding_cpu : float
        Processor seconds of the process without the writing.
    rewards : list
        A histogram, ``[reward, rows, accepted]`` each; rewards within 3 % are counted as one.
    """

    number: int
    rows: int
    accepted: int = 0
    bad: int = 0
    named: list[str] = field(default_factory=list)
    seconds: float = 0.0
    deciding: float = 0.0
    deciding_cpu: float = 0.0
    rewards: list[list[float]] = field(default_factory=list)


def read_record(path: Path) -> Record | None:
    """Return the record of a piece that is done, or None."""
    if not path.exists():
        return None
    return Record(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Count:
    """The first pass over rows without ids: how often equal rows come in a piece."""

    found: Found
    work: Work
    title: ClassVar[str] = "counting equal rows"

    def __call__(self, piece: Piece) -> Record:
        """Do it for a piece."""
        begin = time.perf_counter()
        keys = piece_keys(piece, self.found)
        write_run(self.work.path("counts", piece.number, ".npy"), counts_of(keys.id))
        return Record(piece.number, len(keys.id), seconds=time.perf_counter() - begin)

    def done(self, piece: Piece) -> Record | None:
        """Return the record of a piece that is done."""
        path = self.work.path("counts", piece.number, ".npy")
        if not path.exists():
            return None
        counts = np.load(path, mmap_mode="r")
        return Record(piece.number, int(counts["count"].sum()))


@dataclass(frozen=True)
class Gather:
    """The pass before a decision about all answers to a prompt: it brings their rewards together.

    Attributes
    ----------
    found, rule, work
        As of ``Decide``.
    of : {"gathered", "pilot"}
        Whose rewards: those of the rows that are decided, or those of a pilot.
    """

    found: Found
    rule: Rule
    work: Work
    of: str = "gathered"
    title: ClassVar[str] = "gathering rewards"

    def __call__(self, piece: Piece) -> Record:
        """Do it for a piece."""
        begin = time.perf_counter()
        keys = named_keys(piece, self.found, self.work)
        write_run(self.work.path(self.of, piece.number, ".npy"), gathered(keys))
        bad, named = faults(piece, keys, invalid_of(keys.reward, self.rule), self.rule.form)
        record = Record(
            piece.number, len(keys.id), bad=bad, named=named, seconds=time.perf_counter() - begin
        )
        write_whole(self.work.path(self.of, piece.number, ".json"), json.dumps(vars(record)))
        return record

    def done(self, piece: Piece) -> Record | None:
        """Return the record of a piece that is done."""
        return read_record(self.work.path(self.of, piece.number, ".json"))


@dataclass(frozen=True)
class Decide:
    """The pass that decides and writes.

    Attributes
    ----------
    found : Found
        The columns.
    rule : Rule
        How rows are decided.
    work : Work
        Where what is done lies.
    starts : tuple of int
        The number of each piece's first row, where an earlier pass has decided them.
    has_pairs : bool
        Whether pairs of answers are wanted.
    """

    found: Found
    rule: Rule
    work: Work
    starts: tuple[int, ...] = ()
    has_pairs: bool = False
    title: ClassVar[str] = "deciding"

    def __call__(self, piece: Piece) -> Record:
        """Do it for a piece."""
        begin, begin_cpu = time.perf_counter(), time.process_time()
        keys = named_keys(piece, self.found, self.work)
        decisions = self._decisions(piece, keys)
        totals = totals_of(keys, decisions)
        bad, named = faults(piece, keys, decisions.invalid, self.rule.form)
        ids = np.sort(keys.id[~decisions.invalid]).view(IDS)
        deciding, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
        write_run(self.work.path("groups", piece.number, ".npy"), totals)
        write_run(self.work.path("ids", piece.number, ".npy"), ids)
        if self.has_pairs:
            path = self.work.path("pairable", piece.number, ".npy")
            write_run(path, pairable(keys, decisions.mask, decisions.invalid))
        path = self.work.path("accepted", piece.number, f".{piece.format}")
        weights = decisions.log_ratio if self.rule.form == "weights" else None
        write_kept(piece, decisions.mask, path, self.work.schema(), weights)
        record = Record(
            piece.number, len(keys.id), int(decisions.mask.sum()), bad, named,
            seconds=time.perf_counter() - begin, deciding=deciding, deciding_cpu=cpu,
            rewards=histogram(keys.reward, decisions.mask),
        )  # fmt: skip
        write_whole(self.work.path("done", piece.number, ".json"), json.dumps(vars(record)))
        return record

    def done(self, piece: Piece) -> Record | None:
        """Return the record of a piece that is done."""
        return read_record(self.work.path("done", piece.number, ".json"))

    def _decisions(self, piece: Piece, keys: Keys) -> Decisions:
        if self.rule.is_alone:
            return decide(keys, self.rule)
        there = rows_from(self.work.resolved, self.starts[piece.number], len(keys.id))
        invalid = invalid_of(keys.reward, self.rule)
        return Decisions(there["kept"], there["log_ratio"], invalid)


@dataclass(frozen=True)
class Sides:
    """The pass that writes the rows that are in pairs.

    Attributes
    ----------
    columns : Columns
        Their names.
    work : Work
        As of ``Decide``.
    starts : tuple of int
        The number of each piece's first row.
    """

    columns: Columns
    work: Work
    starts: tuple[int, ...]
    title: ClassVar[str] = "writing pairs"

    def __call__(self, piece: Piece) -> Record:
        """Do it for a piece."""
        start, end = self.starts[piece.number : piece.number + 2]
        paired = rows_from(self.work.paired, start, end - start)
        path = self.work.path("sides", piece.number, ".arrow")
        write_sides(piece, self.columns, paired, path, self.work.schema())
        return Record(piece.number, end - start)

    def done(self, piece: Piece) -> Record | None:
        """Return the record of a piece that is done."""
        if not self.work.path("sides", piece.number, ".arrow").exists():
            return None
        return Record(piece.number, self.starts[piece.number + 1] - self.starts[piece.number])


def named_keys(piece: Piece, found: Found, work: Work) -> Keys:
    """Return the keys of all rows of a piece, with the ids by which they are decided."""
    keys = piece_keys(piece, found)
    if not found.is_numbered:
        return keys
    path = work.path("before", piece.number, ".npy")
    before = np.load(path) if path.exists() else None
    return keys._replace(id=numbered(keys.id, before))


def piece_keys(piece: Piece, found: Found) -> Keys:
    """Return the keys of all rows of a piece, in order."""
    return joined([keys_of(batch.table, found, batch.bad) for batch in batches(piece, found)])


def write_kept(
    piece: Piece,
    mask: NDArray[np.bool_],
    path: Path,
    schema: Any,
    weights: NDArray[np.float64] | None = None,
) -> None:
    """Write the rows of a piece that are kept, with their log weights if there are any."""
    parts: Iterator[Any] = kept_rows(piece, mask, schema) if mask.any() else iter(())
    if weights is not None:
        parts, schema = weighted_rows(parts, weights[mask]), schema_with(schema)
    write_part(path, piece.format, parts, schema)


def faults(
    piece: Piece, keys: Keys, invalid: NDArray[np.bool_], form: str
) -> tuple[int, list[str]]:
    """Return how many rows are malformed or have a reward the form does not take; name the first.

    A name is the file, the line and what is wrong.
    """
    rows = invalid.nonzero()[0]
    named = []
    for row in rows[:NAMED].tolist():
        wanted = "0 or 1" if form == "verifier" else "a number below infinity"
        why = keys.bad.get(row, f"the reward {keys.reward[row]} is not {wanted}")
        named.append(f"{place_of(piece, row)}: {why}")
    return len(rows), named


def histogram(reward: NDArray[np.float64], mask: NDArray[np.bool_]) -> list[list[float]]:
    """Return ``[reward, rows, rows kept]`` for each reward; those within 3 % are counted as one."""
    is_finite = np.isfinite(reward)
    # The sign, the exponent and the first five bits of the mantissa: at most 2^17 numbers.
    bits = (reward[is_finite] + 0.0).view(np.int64) >> 47
    if not len(bits):
        return []
    least = bits.min()
    counts = np.bincount(bits - least)
    kept = np.bincount(bits[mask[is_finite]] - least, minlength=len(counts))
    has = counts.nonzero()[0]
    values = ((has + least) << 47).view(np.float64)
    return [[float(v), int(counts[at]), int(kept[at])] for v, at in zip(values, has, strict=True)]
