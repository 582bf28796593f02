"""Pieces of a data set: what is read, decided and written as one, and redone after a crash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

from numpy.typing import NDArray

from rskernels.pipeline.columns import Found
from rskernels.pipeline.read.inputs import Dataset

BYTES, ROWS = 1 << 26, 1 << 20
"""Of a piece, about: of JSON lines, and of tables, whose row groups are not cut."""


@dataclass(frozen=True)
class Piece:
    """A part of a file: bytes of JSON lines, row groups of Parquet, record batches of Arrow."""

    number: int
    file: str
    format: str
    start: int
    end: int


class Batch(NamedTuple):
    """Rows that follow one another."""

    table: Any
    """A pyarrow.RecordBatch with the columns that were asked for."""
    bad: dict[int, str]
    """Rows that cannot be read, and why; the table holds nulls for them."""


def split(data: Dataset, size: int | None = None) -> list[Piece]:
    """Return the pieces of a data set, in order.

    Parameters
    ----------
    data : Dataset
        Its files.
    size : int, optional
        About how many bytes of JSON lines, or rows of tables, make a piece. It changes no decision.
    """
    reader, pieces = _reader(data.format), []
    for file in data.files:
        for start, end in reader.bounds(file, size or (BYTES if data.format == "jsonl" else ROWS)):
            pieces.append(Piece(len(pieces), file, data.format, start, end))
    return pieces


def names_of(data: Dataset) -> list[str]:
    """Return the names of the columns of a data set, as its first file has them."""
    names: list[str] = _reader(data.format).names(data.files[0])
    return names


def batches(piece: Piece, found: Found) -> Iterator[Batch]:
    """Yield the rows of a piece with the columns that a decision needs."""
    yield from _reader(piece.format).batches(piece, found)


def kept_rows(piece: Piece, mask: NDArray[Any]) -> Iterator[Any]:
    """Yield the rows of a piece that are kept, whole: tables, or bytes of lines."""
    yield from _reader(piece.format).kept_rows(piece, mask)


def place_of(piece: Piece, row: int) -> str:
    """Return what names a row of a piece: its file and line, or row, counted from 1."""
    place: str = _reader(piece.format).place_of(piece, row)
    return place


def _reader(kind: str) -> ModuleType:
    from rskernels.pipeline.read import jsonl, tables

    return jsonl if kind == "jsonl" else tables
