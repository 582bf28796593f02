"""Kept rows written in the format they came in: part by part, each whole or absent, then joined."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rskernels._python.extras import data_extra
from rskernels.pipeline.store.parquet import Joined, append_bytes, read_footer
from rskernels.rsft.errors import DataError

GROUP_ROWS = 1 << 17  # of a row group that is written
LEAST_ROWS = 1 << 14  # of a part whose row groups are joined as they are


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path, and move its file to ``path``, synced to disk, once it is complete.

    Raises
    ------
    OSError
        If it cannot be written; the message says so where the disk is full. Nothing is left then.
    """
    # A name of its own: a worker that was thought dead may still write the same piece.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)  # a disk that is full gets its room back
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno,
                f"{path.parent} is full: make room there, and go on with --resume; what is done is "
                "kept",
            ) from error
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is whole or absent."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_part(path: Path, kind: str, parts: Iterable[Any], schema: Any = None) -> None:
    """Write rows to a file that is whole or absent.

    Parameters
    ----------
    path : Path
        Where.
    kind : {"jsonl", "parquet", "arrow"}
        The format.
    parts : iterable
        Bytes of whole lines, or tables.
    schema : pyarrow.Schema
        Of tables.
    """
    with atomic(path) as temporary:
        if kind == "jsonl":
            with temporary.open("wb") as file:
                for part in parts:
                    file.write(part)
            return
        with _writer(temporary, kind, schema) as writer:
            for table in _in_groups(parts):
                writer.write_table(table.cast(schema) if table.schema != schema else table)


def join_parts(path: Path, kind: str, parts: Sequence[Path]) -> None:
    """Write the rows of parts, in order, to a file that is whole or absent.

    Bytes are copied as they are. Only Arrow is written anew, and so are parts of Parquet that have
    so few rows that they would make many small row groups.
    """
    if not parts:
        raise DataError("there are no parts to join")
    if kind == "arrow":
        schema = next(iter(_tables(parts[:1], kind, only_schema=True)))
        write_part(path, kind, _tables(parts, kind), schema)
        return
    with atomic(path) as temporary, temporary.open("wb") as file:
        if kind == "parquet":
            _join_parquet(parts, file)
            return
        for part in parts:
            with part.open("rb") as source:
                append_bytes(source, 0, part.stat().st_size, file)


def _join_parquet(parts: Sequence[Path], file: Any) -> None:
    joined = Joined(file)
    few: list[Path] = []
    rows = 0
    for part in parts:
        with part.open("rb") as source:
            footer = read_footer(source)
            if footer.rows < LEAST_ROWS:
                few.append(part)
                rows += footer.rows
            if few and (rows >= GROUP_ROWS or footer.rows >= LEAST_ROWS):
                _add_few(joined, few)
                few, rows = [], 0
            if footer.rows >= LEAST_ROWS:
                joined.add(source, footer)
    if few:
        _add_few(joined, few)
    joined.finish()


def _add_few(joined: Joined, parts: Sequence[Path]) -> None:
    """Add the rows of small parts, in row groups of the usual size."""
    schema = next(iter(_tables(parts[:1], "parquet", only_schema=True)))
    with tempfile.TemporaryFile(dir=parts[0].parent) as together:
        with _writer(together, "parquet", schema) as writer:
            for table in _in_groups(_tables(parts, "parquet")):
                writer.write_table(table)
        together.flush()
        joined.add(together, read_footer(together))


def move_parts(folder: Path, parts: Sequence[Path]) -> None:
    """Move parts to a folder, by names that sort in their order; some may be there already."""
    folder.mkdir(exist_ok=True)
    for part in parts:
        if part.exists():
            part.replace(folder / f"part-{part.name}")
    _sync_folder(folder)


def _tables(parts: Sequence[Path], kind: str, only_schema: bool = False) -> Iterator[Any]:
    with data_extra():
        import pyarrow as pa
        import pyarrow.parquet as pq
    for part in parts:
        if kind == "parquet":
            with pq.ParquetFile(part, pre_buffer=False) as file:
                if only_schema:
                    yield file.schema_arrow
                    return
                for batch in file.iter_batches(1 << 16):
                    yield pa.Table.from_batches([batch])
        else:
            with pa.memory_map(str(part)) as source:
                reader = pa.ipc.open_file(source)
                if only_schema:
                    yield reader.schema
                    return
                for number in range(reader.num_record_batches):
                    yield pa.Table.from_batches([reader.get_batch(number)])


@contextmanager
def _writer(path: Any, kind: str, schema: Any) -> Iterator[Any]:
    with data_extra():
        import pyarrow as pa
        import pyarrow.parquet as pq
    if kind == "parquet":
        with pq.ParquetWriter(path, schema) as writer:
            yield writer
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            yield writer


def _in_groups(tables: Iterable[Any]) -> Iterator[Any]:
    """Yield tables of about as many rows as a row group is to have."""
    with data_extra():
        import pyarrow as pa
    held: list[Any] = []
    rows = size = 0
    for table in tables:
        held.append(table)
        rows, size = rows + len(table), size + table.nbytes
        if rows >= GROUP_ROWS or size >= 1 << 25:
            yield pa.concat_tables(held)
            held, rows, size = [], 0, 0
    if rows:
        yield pa.concat_tables(held)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some file systems cannot
    finally:
        os.close(descriptor)
