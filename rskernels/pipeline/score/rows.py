"""Whole rows, as scorers see them, and the same rows with their scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from rskernels._python.extras import data_extra
from rskernels.pipeline.read import Piece, jsonl, tables
from rskernels.pipeline.rows.columns import Columns
from rskernels.pipeline.rows.hashing import whole
from rskernels.pipeline.score.scorer import Row, Scores
from rskernels.rsft.errors import DataError

CHUNK = 1 << 12
"""Rows that are scored together, at most."""

Scoring = Callable[[list[Row | str]], Scores]
"""Scores rows. A malformed row is given as the reason, a str, and gets no score."""


def check_names(
    columns: Columns, names: Collection[str], added: Sequence[str], first: Collection[str]
) -> None:
    """Raise DataError if a column that is needed is missing, or the first row has one to add."""
    if columns.prompt in names:
        if columns.completion not in names:
            raise DataError(
                f"there is no column {columns.completion!r} (--completion); the columns are "
                f"{', '.join(names)}"
            )
    elif columns.messages not in names:
        raise DataError(
            f"there is neither a column {columns.prompt!r} (--prompt) nor {columns.messages!r} "
            f"(--messages); the columns are {', '.join(names)}"
        )
    for name in added:
        if name in first:
            raise DataError(f"there is a column {name!r} already; name another with --as")


def row_of(fields: dict[str, Any], columns: Columns, added: Sequence[str]) -> Row | str:
    """Return a row as a scorer sees it, or what is wrong with it."""
    for name in added:
        if name in fields:
            return f"there is a column {name!r} already"
    if columns.prompt in fields:
        names: tuple[str, ...] = (columns.prompt, columns.completion)
        prompt, completion = (whole(fields.get(name)) for name in names)
        for name, value in zip(names, (prompt, completion), strict=True):
            if value is None:
                return f"{name} is missing"
            if not (isinstance(value, str) or _is_messages(value)):
                return f"{name} must be text or a list of messages"
        if isinstance(completion, list) != isinstance(prompt, list):
            if isinstance(completion, list):
                return f"{names[1]} must be text, as {names[0]} is"
            completion = [{"role": "assistant", "content": completion}]
    else:
        names = (columns.messages,)
        messages = whole(fields.get(columns.messages))
        if messages is None:
            return f"{columns.messages} is missing"
        if not _is_messages(messages) or messages[-1].get("role") != "assistant":
            return f"{columns.messages} must end with a message of the role 'assistant'"
        prompt, completion = messages[:-1], messages[-1:]
    return Row(prompt, completion, {k: v for k, v in fields.items() if k not in names})


def scored_lines(
    piece: Piece, columns: Columns, added: Sequence[str], scoring: Scoring
) -> Iterator[bytes]:
    """Yield the lines of a piece with their scores, and else byte by byte as they are."""
    names = [json.dumps(name, ensure_ascii=False) for name in added]
    for lines in jsonl.blocks(piece):
        for start in range(0, len(lines.starts), CHUNK):
            places = range(start, min(start + CHUNK, len(lines.starts)))
            texts = [lines.data[lines.starts[n] : lines.ends[n]] for n in places]
            scores = scoring([_parsed(text, columns, added) for text in texts])
            parts = []
            for text, values in zip(texts, scores.values, strict=True):
                if values is None:
                    continue
                more = ", ".join(f"{k}: {v!r}" for k, v in zip(names, values, strict=True))
                parts.append(text[:-1].rstrip() + f", {more}}}\n".encode())
            yield b"".join(parts)


def scored_tables(
    piece: Piece, schema: Any, columns: Columns, added: Sequence[str], scoring: Scoring
) -> Iterator[Any]:
    """Yield tables of the rows of a piece, with columns of their scores."""
    with data_extra():
        import pyarrow as pa
    for whole_table in tables.whole_tables(piece, schema):
        for start in range(0, len(whole_table), CHUNK):
            table = whole_table.slice(start, CHUNK)
            rows = [row_of(fields, columns, added) for fields in table.to_pylist()]
            scores = scoring(rows)
            table = table.filter(pa.array([values is not None for values in scores.values]))
            good = [values for values in scores.values if values is not None]
            for at, field in enumerate(added_fields(added)):
                column = pa.array([values[at] for values in good], field.type)
                table = table.append_column(field, column)
            yield table


def added_fields(added: Sequence[str]) -> list[Any]:
    """Return Arrow's fields of scores: the first is a number, the others count."""
    with data_extra():
        import pyarrow as pa
    return [
        pa.field(name, pa.int64() if number else pa.float64()) for number, name in enumerate(added)
    ]


def _parsed(text: bytes, columns: Columns, added: Sequence[str]) -> Row | str:
    try:
        fields = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        shown = text[: jsonl.SHOWN].decode(errors="replace")
        return f"{error}: {shown}{'…' if len(text) > jsonl.SHOWN else ''}"
    if not isinstance(fields, dict):
        return "a row must be a JSON object"
    return row_of(fields, columns, added)


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(m, dict) for m in value)
