"""The pieces of a data set and their rows, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from rskernels.pipeline.read import jsonl, tables
from rskernels.pipeline.read.inputs import Dataset
from rskernels.pipeline.read.pieces import Batch, Piece
from rskernels.pipeline.rows.columns import Found
from rskernels.rsft.errors import DataError

BYTES, ROWS = 1 << 26, 1 << 19
"""Of a piece, about: of JSON lines, and of tables, whose row groups are not cut."""


def split(data: Dataset, size: int | None = None) -> list[Piece]:
    """Return the pieces of a data set, in order.

    Parameters
    ----------
    data : Dataset
        Its files.
    size : int, optional
        About how many bytes of JSON lines, or rows of tables, make a piece. It changes no decision.
    """
    reader = _reader(data.format)
    pieces: list[Piece] = []
    for file in data.files:
        for start, end in reader.bounds(file, size or (BYTES if data.format == "jsonl" else ROWS)):
            pieces.append(Piece(len(pieces), file, data.format, start, end))
    return pieces


def names_of(data: Dataset, rows: int = jsonl.FIRST) -> list[str]:
    """Return the names of the columns of a data set, as its first file with any has them.

    Parameters
    ----------
    data : Dataset
        Its files.
    rows : int
        Of JSON lines, how many rows say so.

    Raises
    ------
    DataError
        If there are none.
    """
    for file in data.files:
        names: list[str] = _reader(data.format).names(file, rows)
        if names:
            return names
    raise DataError("the inputs hold no rows")


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
    return jsonl if kind == "jsonl" else tables
