"""JSON lines: parsed by Arrow block by block, and a block with a fault line by line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rskernels._python.extras import data_extra
from rskernels.pipeline.read.packed import codec_of, opened, span
from rskernels.pipeline.read.pieces import Batch, Piece
from rskernels.pipeline.rows.columns import Found
from rskernels.pipeline.rows.hashing import REST, canonical
from rskernels.rsft.errors import DataError

BLOCK = 1 << 24  # bytes
NEWLINE = ord("\n")
BLANK = np.zeros(256, bool)
BLANK[[ord(c) for c in " \t\r\n"]] = True
BOM = b"\xef\xbb\xbf"
"""What some programs begin a file with: no part of its first line."""
FIRST = 1000
"""Rows of a file that say which columns there are."""
SHOWN = 60  # characters of a faulty line


class Lines(NamedTuple):
    """Whole lines of a block; blank ones are no rows."""

    data: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    """Behind the last character that is not blank."""


def bounds(file: str, size: int) -> Iterator[tuple[int, int]]:
    """Yield the bytes at which each piece of a file begins and ends, both beginnings of lines.

    Of a compressed file these are bytes of what it holds; they are found by reading it.
    """
    start = 0
    with opened(file) as source:
        if codec_of(file) is not None:
            while data := source.read(size):
                end = start + len(data) + (0 if data.endswith(b"\n") else len(source.readline()))
                yield start, end
                start = end
            return
        total = os.path.getsize(file)
        while start < total:
            source.seek(min(start + size, total) - 1)
            source.readline()
            yield start, source.tell()
            start = source.tell()


def names(file: str, rows: int = FIRST) -> list[str]:
    """Return the names of the columns that the first rows have."""
    found: dict[str, None] = {}
    with opened(file) as source:
        for line in source:
            try:
                row = json.loads(line.removeprefix(BOM))
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                found.update(dict.fromkeys(row))
                rows -= 1
                if not rows:
                    break
    return list(found)


def batches(piece: Piece, found: Found) -> Iterator[Batch]:
    """Yield the rows of a piece with the columns that a decision needs."""
    for lines in blocks(piece):
        table = _parsed(lines, found)
        there = {} if found.added is None else _there_already(lines, found.added)
        if table is not None:
            yield Batch(table, there)
        else:
            table, bad = _one_by_one(lines, found)
            yield Batch(table, {**there, **bad})


def kept_rows(piece: Piece, mask: NDArray[Any]) -> Iterator[bytes]:
    """Yield the lines that are kept of each block of a piece, byte by byte as they are."""
    start = 0
    for lines in blocks(piece):
        places = mask[start : start + len(lines.starts)].nonzero()[0]
        start += len(lines.starts)
        view = memoryview(lines.data)
        kept = [view[lines.starts[n] : lines.ends[n]] for n in places.tolist()]
        yield b"\n".join([*kept, b""]) if kept else b""


def place_of(piece: Piece, row: int) -> str:
    """Return a row's file and line, from 1."""
    before, line = 0, 0
    for lines in blocks(piece):
        if row < before + len(lines.starts):
            line += lines.data[: lines.starts[row - before]].count(b"\n")
            break
        before += len(lines.starts)
        line += lines.data.count(b"\n")
    line += _lines_before(piece.file, piece.start, os.stat(piece.file).st_mtime_ns)
    return f"{piece.file}: line {line + 1}"


@lru_cache(maxsize=1)
def _lines_before(file: str, end: int, changed: int) -> int:
    """Return how many lines a file has before a byte; kept, as a piece asks for several rows.

    ``changed`` is when the file was changed, so that nothing old is returned.
    """
    count = 0
    with opened(file) as source:
        while end and (block := source.read(min(end, BLOCK))):
            count += block.count(b"\n")
            end -= len(block)
    return count


def blocks(piece: Piece) -> Iterator[Lines]:
    """Yield the lines of a piece, a few megabytes at a time."""
    with span(piece.file, piece.start, piece.end) as file:
        left, rest = piece.end - piece.start, b""
        while left > 0:
            block = file.read(min(BLOCK, left))
            if not block:
                raise DataError(f"{piece.file} has become shorter while it was read")
            if left == piece.end and block.startswith(BOM):
                left, block = left - len(BOM), block[len(BOM) :]
            left -= len(block)
            end = block.rfind(b"\n") + 1 if left else len(block)
            if end == 0:
                rest += block
                continue
            yield _lines(rest + block[:end])
            rest = block[end:]


def _lines(data: bytes) -> Lines:
    content = np.frombuffer(data, np.uint8)
    ends = (content == NEWLINE).nonzero()[0]
    if len(content) and content[-1] != NEWLINE:
        ends = np.append(ends, len(content))
    starts = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1] + 1])
    starts, ends = _stripped(content, starts, ends)
    has_any = starts < ends
    return Lines(data, starts[has_any], ends[has_any])


def _stripped(
    content: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return lines without the blanks at both ends."""
    starts, ends = starts.copy(), ends.copy()
    while len(
        at := ((starts < ends) & BLANK[content[np.minimum(starts, len(content) - 1)]]).nonzero()[0]
    ):
        starts[at] += 1
    while len(at := ((starts < ends) & BLANK[content[np.maximum(ends - 1, 0)]]).nonzero()[0]):
        ends[at] -= 1
    return starts, ends


def _parsed(lines: Lines, found: Found) -> Any:
    """Return a block as Arrow parses it; None where it has a fault, or may have one."""
    with data_extra():
        import pyarrow as pa
        import pyarrow.json as pj
    if len(lines.starts) == 0:
        return None
    content = np.frombuffer(lines.data, np.uint8)
    is_whole = (content[lines.starts] == ord("{")) & (content[lines.ends - 1] == ord("}"))
    if not is_whole.all():
        return None
    try:
        lines.data.decode()  # Arrow does not look at the bytes of text
        fields = _fields(lines, found)
        is_nested = any(not pa.types.is_primitive(t) and t != pa.string() for t in fields.types)
        table = pj.read_json(
            pa.BufferReader(lines.data),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(lines.data) + 1),
            parse_options=pj.ParseOptions(
                explicit_schema=fields,
                unexpected_field_behavior="infer" if is_nested else "ignore",
            ),
        )
    except (pa.ArrowException, ValueError, RecursionError):
        return None
    if len(table) != len(lines.starts) or any(_has_more(column) for column in table.columns):
        return None
    table = table.select(found.names).combine_chunks()
    return table.to_batches(max_chunksize=len(table))[0]


def _has_more(column: Any) -> bool:
    """Return whether a message has fields beside role and content.

    Arrow infers their types from all rows of a block, and a row must not depend on others.
    """
    with data_extra():
        import pyarrow as pa
    if not pa.types.is_list(column.type):
        return False
    for chunk in column.chunks:
        messages = chunk.flatten()
        others = [f.name for f in messages.type if f.name not in ("role", "content")]
        if any(messages.field(name).null_count < len(messages) for name in others):
            return True
    return False


def _fields(lines: Lines, found: Found) -> Any:
    """Return the schema of the columns that are needed, as the first row of a block has them."""
    with data_extra():
        import pyarrow as pa
    first = json.loads(lines.data[lines.starts[0] : lines.ends[0]])
    message = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    named = (found.id, found.group, found.sample)
    fields = []
    for name in found.names:
        value = first.get(name)
        # What a row may hold does not depend on the others of its block.
        kind = pa.string()
        if name == found.reward:
            kind = pa.bool_() if isinstance(value, bool) else pa.float64()
        elif name in named:
            kind = pa.int64() if type(value) is int else kind
        elif isinstance(value, list) or name == found.messages:
            kind = message
        fields.append((name, kind))
    return pa.schema(fields)


def _one_by_one(lines: Lines, found: Found) -> tuple[Any, dict[int, str]]:
    """Return a table of the rows of a block, nulls for those with a fault, and the faults."""
    with data_extra():
        import pyarrow as pa
    rows: list[dict[str, Any]] = []
    bad: dict[int, str] = {}
    for number, (start, end) in enumerate(zip(lines.starts, lines.ends, strict=True)):
        line = lines.data[start:end]
        try:
            rows.append(_checked(json.loads(line.decode()), found))
        except (ValueError, OverflowError, RecursionError) as error:
            shown = line[:SHOWN].decode(errors="replace")
            bad[number] = f"{error}: {shown}{'…' if len(line) > SHOWN else ''}"
            rows.append({})
    columns = []
    for name in found.names:
        values = [row.get(name) for row in rows]
        columns.append(_array(values, found, name))
    return pa.RecordBatch.from_arrays(columns, names=found.names), bad


def _there_already(lines: Lines, name: str) -> dict[int, str]:
    """Return the rows that have a column, and that they have it."""
    letters = (rf"(?:{re.escape(c)}|\\u00(?i:{ord(c):02x}))" for c in name)
    key = re.compile(f'"{"".join(letters)}"\\s*:'.encode())
    found: dict[int, str] = {}
    for match in key.finditer(lines.data):
        row = int(np.searchsorted(lines.starts, match.start(), "right")) - 1
        if row in found:
            continue
        try:
            has = name in json.loads(lines.data[lines.starts[row] : lines.ends[row]].decode())
        except (ValueError, RecursionError) as error:
            found[row] = f"there may be a column {name!r} already: {error}"
            continue
        if has:
            found[row] = f"there is a column {name!r} already, which is added: rename it"
    return found


def _checked(row: Any, found: Found) -> dict[str, Any]:
    """Return what is needed of a row, or raise ValueError."""
    if not isinstance(row, dict):
        raise ValueError("a row must be a JSON object")
    checked: dict[str, Any] = {}
    for name in found.names:
        value = row.get(name)
        if value is None:
            raise ValueError(f"{name} is missing")
        if name == found.reward:
            if not isinstance(value, bool | int | float):
                raise ValueError(f"{name} must be a number, got {json.dumps(value)[:SHOWN]}")
            checked[name] = float(value)
        elif name in (found.id, found.group, found.sample):
            checked[name] = _name(name, value)
        elif isinstance(value, list) and all(isinstance(m, dict) for m in value):
            checked[name] = [canonical(message) for message in value]
        elif isinstance(value, str) and name != found.messages:
            value.encode()  # raises where half of a surrogate pair is left alone
            checked[name] = value
        else:
            what = "a list" if name == found.messages else "text or a list"
            raise ValueError(f"{name} must be {what} of messages")
    return checked


def _name(name: str, value: Any) -> int | str:
    """Return an integer or text that names something."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not -(1 << 63) <= value < 1 << 64:
            raise ValueError(f"{name} must fit 64 bits, got {value}")
        return value - (1 << 64) if value >= 1 << 63 else value
    if isinstance(value, str):
        value.encode()
        return value
    raise ValueError(f"{name} must be an integer or text, got {json.dumps(value)[:SHOWN]}")


def _array(values: list[Any], found: Found, name: str) -> Any:
    """Return an Arrow array of values, or where they are of two kinds, of their hashes.

    Only the hash of such a value is ever used, so that decisions are the same.
    """
    with data_extra():
        import pyarrow as pa
    kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        kinds = {float if name == found.reward else list if name == found.messages else str}
    if kinds == {list}:
        texts = [(field, pa.large_string()) for field in ("role", "content", REST)]
        return pa.array(values, pa.list_(pa.struct(texts)))
    if len(kinds) > 1:
        from rskernels.pipeline.rows.hashing import hashes_of

        hashes: list[int | None] = []
        for value in values:
            one = None if value is None else hashes_of(_array([value], found, name), name)
            hashes.append(None if one is None else int(one[0]))
        return pa.array(hashes, pa.int64())
    of_kind = {str: pa.large_string(), int: pa.int64(), float: pa.float64()}
    return pa.array(values, of_kind[kinds.pop()])
