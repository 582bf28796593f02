"""The pieces of a data set and their rows, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from rskernels.pipeline.read import jsonl, tables
from rskernels.pipeline.read.inputs import Dataset
from rskernels.pipeline.read.pieces import Batch, Piece
from rskernels.pipeline.read.schemas import common_schema
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
    who = f"{data.files[0]} holds" if len(data.files) == 1 else "the inputs hold"
    what = ": each line must be a JSON object" if data.format == "jsonl" else ""
    raise DataError(f"{who} no rows{what}")


def batches(piece: Piece, found: Found) -> Iterator[Batch]:
    """Yield the rows of a piece with the columns that a decision needs."""
    yield from _reader(piece.format).batches(piece, found)


def kept_rows(piece: Piece, mask: NDArray[Any], schema: Any) -> Iterator[Any]:
    """Yield the rows of a piece that are kept, whole: tables by a schema, or bytes of lines."""
    if piece.format == "jsonl":
        yield from jsonl.kept_rows(piece, mask)
    else:
        yield from tables.kept_rows(piece, mask, schema)


def schema_of(data: Dataset) -> Any:
    """Return the schema of what is written of a data set of tables; None of JSON lines.

    Raises
    ------
    DataError
        If its files have types of a column that no type holds all of.
    """
    if data.format == "jsonl":
        return None
    return common_schema(data.files, [tables.schema_of(file) for file in data.files], data.format)


def place_of(piece: Piece, row: int) -> str:
    """Return what names a row of a piece: its file and line, or row, counted from 1."""
    place: str = _reader(piece.format).place_of(piece, row)
    return place


def _reader(kind: str) -> ModuleType:
    return jsonl if kind == "jsonl" else tables
