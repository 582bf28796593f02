"""Bytes of files, also of compressed ones, which can only be read from their beginning.

A thread keeps one compressed file open where it stopped reading, and the bytes that it read last.
So a process that takes pieces in rising order, and reads each twice, decompresses the file once,
even where other processes take the pieces between.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from rskernels._python.extras import data_extra
from rskernels.rsft.errors import DataError

CODECS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""By what the name of a compressed file ends in."""
BLOCK = 1 << 24  # bytes that are read at once where they are only passed over


def codec_of(file: str) -> str | None:
    """Return how a file is compressed, by its name; None: it is not."""
    return CODECS.get(Path(file).suffix.lower())


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """Open a file to be read from its beginning, decompressed.

    Raises
    ------
    DataError
        If it is compressed in another way than its name says, or cut off.
    """
    codec = codec_of(file)
    if codec is None:
        with open(file, "rb") as plain:
            yield plain
        return
    with explained(file):
        stream = _stream(file, codec)
        try:
            yield stream
        finally:
            stream.close()


@contextmanager
def span(file: str, start: int, end: int) -> Iterator[BinaryIO]:
    """Open a file at the byte ``start``, decompressed; what follows ``end`` may be missing.

    Raises
    ------
    DataError
        As of ``opened``.
    """
    codec = codec_of(file)
    if codec is not None:
        with explained(file):
            held = _thread.bytes_of(file, codec, start, end)
        yield io.BytesIO(held)
        return
    with open(file, "rb") as plain:
        plain.seek(start)
        yield plain


def release() -> None:
    """Close the compressed file that this thread keeps open, and forget its bytes."""
    _thread.release()


class _Held(NamedTuple):
    """Bytes that were read last."""

    of: tuple[Any, ...]
    data: bytes


class _Thread(threading.local):
    """What a thread keeps of compressed files."""

    def __init__(self) -> None:
        self._of: tuple[Any, ...] | None = None
        self._stream: BinaryIO | None = None
        self._at = 0
        self._held: _Held | None = None

    def bytes_of(self, file: str, codec: str, start: int, end: int) -> bytes:
        """Return bytes of a file; fewer, if it has become shorter."""
        state = os.stat(file)
        of = file, state.st_size, state.st_mtime_ns
        if self._held is not None and self._held.of == (*of, start, end):
            return self._held.data
        self._held = None  # before there are others
        if self._stream is None or self._of != of or self._at > start:
            self.release()
            self._of, self._stream, self._at = of, _stream(file, codec), 0
        while self._at < start and (passed := self._stream.read(min(BLOCK, start - self._at))):
            self._at += len(passed)
        data = self._stream.read(end - start)
        self._at += len(data)
        self._held = _Held((*of, start, end), data)
        return data

    def release(self) -> None:
        """Close it."""
        stream, self._stream, self._held = self._stream, None, None
        if stream is not None:
            stream.close()


_thread = _Thread()


def _stream(file: str, codec: str) -> BinaryIO:
    with data_extra():
        import pyarrow as pa
    raw = pa.CompressedInputStream(pa.OSFile(file), codec)
    return cast(BinaryIO, io.BufferedReader(raw))


@contextmanager
def explained(file: str) -> Iterator[None]:
    """Name the file in an error that Arrow raises."""
    with data_extra():
        import pyarrow as pa
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError) or file in str(error):
            raise
        raise DataError(f"{file} cannot be read: {str(error).partition(chr(10))[0]}") from error
