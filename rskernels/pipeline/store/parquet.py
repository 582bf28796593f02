"""Parquet files joined to one as they are: their bytes one after the other, and one footer.

A file is ``PAR1``, the pages of its row groups, a footer that says where each lies, the footer's
length in four bytes, and ``PAR1``. So pages are moved, and places in footers shifted by how far;
nothing is decompressed. https://github.com/apache/parquet-format/blob/master/src/main/thrift
has the fields. Footers are in Thrift's compact protocol, read and written by ``read_struct`` and
``write_struct``, whatever fields they have.
"""

from __future__ import annotations

import base64
import io
import os
import struct
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, NamedTuple

from rskernels._python.extras import data_extra

MAGIC = b"PAR1"
COPIED = 1 << 20  # bytes that are copied at once: few, so that they stay in the cache
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
INTEGERS = (I16, I32, I64)

SCHEMA, NUM_ROWS, ROW_GROUPS, KEY_VALUES = 2, 3, 4, 5  # of a file
KEY, VALUE = 1, 2  # of what else it says
COLUMNS, GROUP_OFFSET, ORDINAL = 1, 5, 7  # of a row group
MOST_ORDINAL = (1 << 15) - 1  # beyond it is left out, as it may be
FILE, CHUNK_OFFSET, META_DATA = 1, 2, 3  # of a column's chunk
INDEXES = (4, 5, 6, 7)  # of it: where its page indexes lie, which name places themselves
PAGE_OFFSETS = (9, 10, 11, 14)  # of its metadata: of data, index, dictionary, Bloom filter
FILE_ENCRYPTION, CHUNK_ENCRYPTION = (8, 9), (8, 9)  # of a file, of a column's chunk
ARROW_SCHEMA = b"ARROW:schema"
MOST_FOOTER = 1 << 32
DEEPEST = 32
"""How deep structs and lists of a footer may be nested: the format has nine levels."""

Fields = dict[int, tuple[int, Any]]
"""A struct: the type and value of each field, by the field's number."""


class Footer(NamedTuple):
    """What a file says of itself."""

    fields: Fields
    end: int
    """Where its pages end."""

    @property
    def rows(self) -> int:
        """How many it has."""
        rows: int = self.fields[NUM_ROWS][1]
        return rows

    @property
    def groups(self) -> list[Fields]:
        """Its row groups."""
        groups: list[Fields] = self.fields[ROW_GROUPS][1][1]
        return groups

    @property
    def arrow_schema(self) -> bytes | None:
        """The types that Arrow reads the columns as, serialised; None: by Parquet's."""
        for pair in self.fields.get(KEY_VALUES, (LIST, (STRUCT, [])))[1][1]:
            if pair[KEY][1] == ARROW_SCHEMA:
                value: bytes = pair[VALUE][1]
                return value
        return None

    def has_schema_of(self, other: Footer) -> bool:
        """Return whether columns and their types, also Arrow's, are those of another file."""
        if self.fields[SCHEMA] != other.fields[SCHEMA]:
            return False
        ours, theirs = self.arrow_schema, other.arrow_schema
        if ours is None or theirs is None:
            return ours is theirs
        return ours == theirs or bool(_decoded(ours).equals(_decoded(theirs)))


def read_footer(file: BinaryIO) -> Footer:
    """Return the footer of a file that is open for reading.

    Raises
    ------
    ValueError
        If it does not end as a Parquet file does, its footer cannot be read, or a column or all of
        it is encrypted or lies in another file.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or length + 12 > end:
        raise ValueError("the file does not end as Parquet does")
    file.seek(end - 8 - length)
    fields = read_struct(io.BytesIO(file.read(length)))
    _check(fields)
    return Footer(fields, end - 8 - length)


def _check(fields: Fields) -> None:
    """Raise ValueError if a footer lacks what is read of it, or says that bytes lie elsewhere."""
    _need(fields, {SCHEMA: LIST, NUM_ROWS: I64, ROW_GROUPS: LIST})
    is_encrypted = any(number in fields for number in FILE_ENCRYPTION)
    for group in _structs(fields, ROW_GROUPS):
        _need(group, {COLUMNS: LIST})
        for chunk in _structs(group, COLUMNS):
            if FILE in chunk:
                raise ValueError("the file has columns that lie in other files")
            if any(number in chunk for number in CHUNK_ENCRYPTION):
                is_encrypted = True
            else:
                _need(chunk, {META_DATA: STRUCT})
    if is_encrypted:
        raise ValueError("the file is encrypted: its pages are bound to their places")
    if KEY_VALUES in fields:
        _need(fields, {KEY_VALUES: LIST})
        for pair in _structs(fields, KEY_VALUES):
            _need(pair, {KEY: BINARY})
            if pair[KEY][1] == ARROW_SCHEMA:
                _need(pair, {VALUE: BINARY})


def _need(fields: Fields, kinds: dict[int, int]) -> None:
    for number, kind in kinds.items():
        if fields.get(number, (None, None))[0] != kind:
            raise ValueError("the footer is broken: it lacks what every one has")


def _structs(fields: Fields, number: int) -> Iterable[Fields]:
    of, values = fields[number][1]
    if values and of != STRUCT:
        raise ValueError("the footer is broken: it has a list of another type")
    structs: list[Fields] = values
    return structs


def _decoded(schema: bytes) -> Any:
    """Return Arrow's schema of a file, which is equal to others whatever lists call their items."""
    with data_extra():
        import pyarrow as pa
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(schema)))


class Joined:
    """A file that is made of the row groups of others that have one schema.

    Parameters
    ----------
    out : file
        Open for writing, and empty.
    """

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self._first: Footer | None = None
        self._rows = 0
        self._groups: list[bytes] = []
        out.write(MAGIC)

    def add(self, source: BinaryIO, footer: Footer) -> None:
        """Append the row groups of a file that is open for reading.

        Raises
        ------
        ValueError
            If it has other columns than the first.
        """
        self._first = self._first or footer
        if not footer.has_schema_of(self._first):
            raise ValueError("the files have columns that differ")
        at = self.out.tell()
        append_bytes(source, len(MAGIC), footer.end, self.out)
        self._rows += footer.rows
        for group in footer.groups:
            _shift(group, at - len(MAGIC))
            if ORDINAL in group:
                group[ORDINAL] = I16, len(self._groups)
                if len(self._groups) > MOST_ORDINAL:
                    del group[ORDINAL]
            packed = io.BytesIO()
            write_struct(packed, group)
            self._groups.append(packed.getvalue())

    def finish(self) -> None:
        """Write the footer; at least one file must have been added, if one without rows."""
        assert self._first is not None
        fields = dict(self._first.fields)
        fields[NUM_ROWS] = I64, self._rows
        fields[ROW_GROUPS] = LIST, (STRUCT, self._groups)
        packed = io.BytesIO()
        write_struct(packed, fields)
        self.out.write(packed.getvalue() + struct.pack("<I", packed.tell()) + MAGIC)


def append_bytes(source: BinaryIO, start: int, end: int, out: BinaryIO) -> None:
    """Write bytes of a file to another."""
    source.seek(start)
    room = memoryview(bytearray(COPIED))
    while start < end:
        count = source.readinto(room[: end - start])  # type: ignore[attr-defined]
        if not count:
            raise ValueError("a file has become shorter while it was read")
        out.write(room[:count])
        start += count


def _shift(group: Fields, by: int) -> None:
    """Move the places of a row group's pages, and forget its page indexes; 0 stands for none."""
    _add(group, (GROUP_OFFSET,), by)
    for chunk in group[COLUMNS][1][1]:
        _add(chunk, (CHUNK_OFFSET,), by)
        for number in INDEXES:
            chunk.pop(number, None)
        _add(chunk[META_DATA][1], PAGE_OFFSETS, by)


def _add(fields: Fields, numbers: Sequence[int], by: int) -> None:
    for number in numbers:
        kind, place = fields.get(number, (I64, 0))
        if kind != I64:
            raise ValueError("the footer is broken: a place is no number")
        if place:
            fields[number] = kind, place + by


def read_struct(data: BinaryIO, depth: int = 0) -> Fields:
    """Return the fields of a struct.

    Raises
    ------
    ValueError
        If they are cut off, of a type that Thrift does not know, or nested too deep.
    """
    fields: Fields = {}
    number = 0
    while head := _bytes(data, 1)[0]:
        kind, step = head & 15, head >> 4
        number = number + step if step else _signed(data)
        fields[number] = kind, _read(data, kind, depth)
    return fields


def write_struct(out: BinaryIO, fields: Fields) -> None:
    """Write the fields of a struct."""
    before = 0
    for number, (kind, value) in sorted(fields.items()):
        step = number - before
        if 0 < step < 16:
            out.write(bytes([step << 4 | kind]))
        else:
            out.write(bytes([kind]))
            _write(out, I32, number)
        _write(out, kind, value)
        before = number
    out.write(b"\0")


def _read(data: BinaryIO, kind: int, depth: int) -> Any:
    if kind in (TRUE, FALSE):
        return None  # the type says it
    if kind in INTEGERS:
        return _signed(data)
    if kind == BINARY:
        return _bytes(data, _unsigned(data))
    if depth > DEEPEST:
        raise ValueError("the footer is broken: it is nested too deep")
    if kind == STRUCT:
        return read_struct(data, depth + 1)
    if kind in (LIST, SET):
        head = _bytes(data, 1)[0]
        count = head >> 4 if head >> 4 < 15 else _unsigned(data)
        of = head & 15
        return of, [_element(data, of, depth + 1) for _ in range(count)]
    if kind in (BYTE, DOUBLE):
        return _bytes(data, 1 if kind == BYTE else 8)
    raise ValueError(f"the footer has a field of the unknown type {kind}")


def _element(data: BinaryIO, kind: int, depth: int) -> Any:
    return _bytes(data, 1) if kind in (TRUE, FALSE) else _read(data, kind, depth)


def _bytes(data: BinaryIO, count: int) -> bytes:
    # No more than there can be: a broken count may be any number.
    found = data.read(min(count, MOST_FOOTER))
    if len(found) != count:
        raise ValueError("the footer is broken: it is cut off")
    return found


def _write(out: BinaryIO, kind: int, value: Any) -> None:
    if kind in (TRUE, FALSE):
        out.write(value or b"")
    elif kind in INTEGERS:
        out.write(_varint(value << 1 ^ value >> 63))
    elif kind == STRUCT:
        if isinstance(value, bytes):  # written already
            out.write(value)
        else:
            write_struct(out, value)
    elif kind == BINARY:
        out.write(_varint(len(value)) + value)
    elif kind in (LIST, SET):
        of, values = value
        count = len(values)
        out.write(bytes([count << 4 | of]) if count < 15 else bytes([240 | of]) + _varint(count))
        for each in values:
            _write(out, of, each)
    else:
        out.write(value)


def _unsigned(data: BinaryIO) -> int:
    number = shift = 0
    while True:
        byte = _bytes(data, 1)[0]
        number |= (byte & 127) << shift
        if byte < 128:
            return number
        shift += 7


def _signed(data: BinaryIO) -> int:
    number = _unsigned(data)
    return number >> 1 ^ -(number & 1)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)
