"""Rows written with their log weights, for the form that keeps them all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rskernels._python.extras import data_extra
from rskernels.rsft.errors import DataError

NAME = "log_weight"


def refuse_column(names: Collection[str]) -> None:
    """Raise DataError if the data have a column of the name that is added."""
    if NAME in names:
        raise DataError(
            f"there is a column {NAME!r} already, the form 'weights' adds one: rename it"
        )


def schema_with(schema: Any) -> Any:
    """Return a schema with the column; None of JSON lines."""
    with data_extra():
        import pyarrow as pa
    return None if schema is None else schema.append(pa.field(NAME, pa.float64()))


def weighted_rows(parts: Iterable[Any], weights: NDArray[np.float64]) -> Iterator[Any]:
    """Yield tables, or bytes of JSON lines, with the log weights of their rows."""
    with data_extra():
        import pyarrow as pa
    at = 0
    for part in parts:
        if not isinstance(part, bytes):
            of_part = pa.array(weights[at : at + len(part)])
            at += len(part)
            yield part.append_column(NAME, of_part)
            continue
        lines = part.split(b"\n")[:-1]
        of_lines = weights[at : at + len(lines)].tolist()
        at += len(lines)
        yield b"".join(
            line[:-1].rstrip() + f', "{NAME}": {weight!r}}}\n'.encode()
            for line, weight in zip(lines, of_lines, strict=True)
        )
