"""Hashes of Arrow columns: numbers of 64 bits that depend on the contents alone.

- Text: XXH64 of its UTF-8, seed 0.
- A message: the hash of the pair of hashes of its role and content. If it has other fields, or
  content that is no text, this rest is written as JSON and its hash paired with the first.
- A list of messages: their hashes, taken in turn (``kernels.reference.hashes.xxh64_fold``).
- An integer: itself.

Neither dictionaries nor batches change a hash. Nor does the file format, but for the rest of a
message: JSON lines hold it as it was written, tables with the types of their columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rskernels._python.extras import data_extra
from rskernels.rsft.errors import DataError

Hashes = NDArray[np.int64]
REST = "\0rest"
"""The field of a message that holds, as JSON, what is neither its role nor its text."""


def hashes_of(column: Any, name: str) -> Hashes:
    """Return the hash of each entry of an Arrow array, int64 ``[N]``; that of a null may be any.

    Raises
    ------
    DataError
        If the column holds neither text, nor integers, nor lists of messages.
    """
    with data_extra():
        import pyarrow as pa
    kind = column.type
    if pa.types.is_dictionary(kind):
        of_values = hashes_of(column.dictionary, name)
        places: Hashes = column.indices.fill_null(0).to_numpy(zero_copy_only=False)
        if len(of_values) == 0:
            return np.zeros(len(column), np.int64)
        return of_values[places]
    if pa.types.is_integer(kind):
        return _integers(column)
    if is_text(kind):
        return text_hashes(column)
    if is_messages(kind):
        starts, ends = list_bounds(column)
        of_lists: Hashes = _kernels().fold(message_hashes(column.values), starts, ends)
        return of_lists
    raise DataError(
        f"the column {name!r} must hold text, integers or lists of messages, got {kind}"
    )


def _integers(column: Any) -> Hashes:
    numbers: NDArray[Any] = column.fill_null(0).to_numpy(zero_copy_only=False)
    if numbers.dtype == np.uint64:
        return numbers.view(np.int64)
    return numbers.astype(np.int64, copy=False)


def pairs_of(first: Hashes, second: Hashes) -> Hashes:
    """Return the hash of each pair."""
    hashes: Hashes = _kernels().pairs(first, second)
    return hashes


def prompts_and_completions(column: Any) -> tuple[Hashes, Hashes]:
    """Return of each conversation the hash of all messages but the last, and that of the last."""
    of_messages = message_hashes(column.values)
    starts, ends = list_bounds(column)
    last = np.maximum(starts, ends - 1)
    return _kernels().fold(of_messages, starts, last), _kernels().fold(of_messages, last, ends)


def text_hashes(column: Any) -> Hashes:
    """Return the hash of each string of an Arrow array."""
    with data_extra():
        import pyarrow as pa
    if len(column) == 0:
        return np.zeros(0, np.int64)
    if not (pa.types.is_large_string(column.type) or pa.types.is_string(column.type)):
        column = column.cast(pa.large_string())
    is_large = pa.types.is_large_string(column.type)
    _, offsets, data = column.buffers()
    dtype: Any = np.int64 if is_large else np.int32
    places = np.frombuffer(offsets, dtype)[column.offset : column.offset + len(column) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    hashes: Hashes = _kernels().strings(content, places)
    return hashes


def message_hashes(messages: Any) -> Hashes:
    """Return the hash of each message of an Arrow array of structs."""
    fields = [field.name for field in messages.type]
    plain = {name: messages.field(name) for name in ("role", "content") if name in fields}
    others = [name for name in fields if name not in ("role", "content")]
    is_odd = {name: not is_text(column.type) for name, column in plain.items()}
    if any(is_odd.values()):
        return _hashes_of_dicts([canonical(m or {}) for m in messages.to_pylist()])
    parts = [
        text_hashes(plain[name].fill_null("")) if name in plain else _text_hash("", len(messages))
        for name in ("role", "content")
    ]
    hashes = pairs_of(parts[0], parts[1])
    has_more = np.zeros(len(messages), bool)
    for name in others:
        has_more |= messages.field(name).is_valid().to_numpy(zero_copy_only=False)
    places = has_more.nonzero()[0]
    if len(places):
        hashes = hashes.copy()
        rows = messages.take(_indices(places)).to_pylist()
        hashes[places] = _hashes_of_dicts([canonical(row) for row in rows])
    return hashes


def canonical(message: Mapping[str, Any]) -> dict[str, str | None]:
    """Return a message as role, content and the rest of it, as JSON or None."""
    rest = {k: whole(v) for k, v in message.items() if v is not None}
    texts = {name: rest.pop(name) for name in ("role", "content") if _is_str(rest.get(name))}
    more = rest.pop(REST, None)
    if rest:
        more = json.dumps(
            rest, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str
        )
    return {"role": texts.get("role", ""), "content": texts.get("content", ""), REST: more}


def is_text(kind: Any) -> bool:
    """Return whether an Arrow type is one of text."""
    with data_extra():
        import pyarrow as pa
    is_view = getattr(pa.types, "is_string_view", lambda kind: False)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or is_view(kind))


def is_messages(kind: Any) -> bool:
    """Return whether an Arrow type is one of lists of messages."""
    with data_extra():
        import pyarrow as pa
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(is_list and pa.types.is_struct(kind.value_type))


def list_bounds(column: Any) -> tuple[Hashes, Hashes]:
    """Return where each list of an Arrow array starts and ends among its values."""
    offsets = column.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    return offsets[:-1], offsets[1:]


def _hashes_of_dicts(messages: list[dict[str, str | None]]) -> Hashes:
    with data_extra():
        import pyarrow as pa
    columns = [
        text_hashes(pa.array([message[name] or "" for message in messages], pa.large_string()))
        for name in ("role", "content", REST)
    ]
    hashes = pairs_of(columns[0], columns[1])
    has_more = np.array([message[REST] is not None for message in messages], bool)
    return np.where(has_more, pairs_of(hashes, columns[2]), hashes)


def _text_hash(text: str, count: int) -> Hashes:
    with data_extra():
        import pyarrow as pa
    return np.repeat(text_hashes(pa.array([text], pa.large_string())), count)


def _indices(places: NDArray[np.int64]) -> Any:
    with data_extra():
        import pyarrow as pa
    return pa.array(places)


def whole(value: Any) -> Any:
    """Return a value without the nulls that Arrow adds where a struct lacks a field."""
    if isinstance(value, Mapping):
        return {k: whole(v) for k, v in value.items() if v is not None}
    return [whole(v) for v in value] if isinstance(value, list) else value


def _is_str(value: Any) -> bool:
    return isinstance(value, str)


def _kernels() -> Any:
    from rskernels.kernels.cpu import hashes

    return hashes
