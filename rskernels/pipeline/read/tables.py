"""Parquet and Arrow files: columns of row groups, or of record batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from rskernels._python.extras import data_extra
from rskernels.pipeline.read.packed import explained
from rskernels.pipeline.read.pieces import Batch, Piece
from rskernels.pipeline.read.schemas import conformed
from rskernels.pipeline.rows.columns import Found
from rskernels.rsft.errors import DataError

ROWS = 1 << 16  # of a batch


def bounds(file: str, size: int) -> Iterator[tuple[int, int]]:
    """Yield the first row group, or record batch, of each piece of a file and the one behind it."""
    start = rows = end = 0
    for end, count in enumerate(_row_counts(file), 1):
        rows += count
        if rows >= size:
            yield start, end
            start, rows = end, 0
    if rows:
        yield start, end


def names(file: str, rows: int = 1) -> list[str]:
    """Return the names of a file's columns."""
    return list(schema_of(file).names)


def batches(piece: Piece, found: Found) -> Iterator[Batch]:
    """Yield the rows of a piece with the columns that a decision needs."""
    # Few prompts and groups are distinct: read as dictionaries, each is hashed once.
    few = [name for name in (found.prompt, found.group) if name is not None]
    with explained(piece.file):
        for table in _record_batches(piece, found.names, few):
            yield Batch(table, {})


def kept_rows(piece: Piece, mask: NDArray[Any], schema: Any) -> Iterator[Any]:
    """Yield a table of the rows that are kept of each batch of a piece, by a schema."""
    with data_extra():
        import pyarrow as pa
    start = 0
    with explained(piece.file):
        for table in whole_tables(piece, schema):
            of_batch = mask[start : start + len(table)]
            start += len(table)
            yield table.filter(pa.array(of_batch)) if of_batch.any() else table.slice(0, 0)


def whole_tables(piece: Piece, schema: Any) -> Iterator[Any]:
    """Yield the rows of a piece, a table a batch, by a schema of all files."""
    with data_extra():
        import pyarrow as pa
    with explained(piece.file):
        for batch in _record_batches(piece, None, []):
            yield conformed(pa.Table.from_batches([batch]), schema, piece.file)


def place_of(piece: Piece, row: int) -> str:
    """Return a row's file and its number there, from 1."""
    before = sum(_row_counts(piece.file)[: piece.start])
    return f"{piece.file}: row {before + row + 1}"


def schema_of(file: str) -> Any:
    """Return the schema of a file."""
    with explained(file):
        if _is_parquet(file):
            with _parquet(file) as parquet:
                return parquet.schema_arrow
        with _arrow(file) as arrow:
            return arrow.schema


def _row_counts(file: str) -> list[int]:
    with explained(file):
        if _is_parquet(file):
            with _parquet(file) as parquet:
                of = parquet.metadata
                return [of.row_group(n).num_rows for n in range(of.num_row_groups)]
        with _arrow(file) as arrow:
            return [len(batch) for batch in arrow]


def _record_batches(piece: Piece, columns: list[str] | None, few: list[str]) -> Iterator[Any]:
    if piece.format == "parquet":
        groups = list(range(piece.start, piece.end))
        with _parquet(piece.file, few) as parquet:
            _check(piece.file, columns, parquet.schema_arrow.names)
            yield from parquet.iter_batches(
                ROWS, row_groups=groups, columns=columns, use_threads=False
            )
        return
    with _arrow(piece.file) as arrow:
        _check(piece.file, columns, arrow.schema.names)
        for number, batch in enumerate(arrow):
            if number >= piece.end:
                return
            if number >= piece.start:
                batch = batch if columns is None else batch.select(columns)
                for start in range(0, len(batch), ROWS):
                    yield batch.slice(start, ROWS)


def _check(file: str, columns: list[str] | None, there: list[str]) -> None:
    missing = [name for name in columns or () if name not in there]
    if missing:
        raise DataError(f"{file} has no column {', '.join(map(repr, missing))}")


def _is_parquet(file: str) -> bool:
    return file.lower().endswith(".parquet")


@contextmanager
def _parquet(file: str, few: list[str] | None = None) -> Iterator[Any]:
    with data_extra():
        import pyarrow.parquet as pq
    # Without buffering ahead a row group is read page by page, however large it is.
    with pq.ParquetFile(file, read_dictionary=few, buffer_size=1 << 20, pre_buffer=False) as opened:
        yield opened


@contextmanager
def _arrow(file: str) -> Iterator[Any]:
    """Open a file in either of Arrow's formats, as something that yields record batches."""
    with data_extra():
        import pyarrow as pa
    with pa.memory_map(file) as opened:
        if opened.read(6) == b"ARROW1":
            opened.seek(0)
            yield _Random(pa.ipc.open_file(opened))
        else:
            opened.seek(0)
            yield pa.ipc.open_stream(opened)


class _Random:
    """The record batches of a file, one after the other."""

    def __init__(self, reader: Any) -> None:
        self.schema = reader.schema
        self._reader = reader

    def __iter__(self) -> Iterator[Any]:
        for number in range(self._reader.num_record_batches):
            yield self._reader.get_batch(number)
