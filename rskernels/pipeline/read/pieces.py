"""Pieces of a data set: what is read, decided and written as one, and redone after a crash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


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
