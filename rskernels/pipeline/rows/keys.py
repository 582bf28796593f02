"""What a decision reads of a row: its reward, its group, and its id."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rskernels._python.extras import data_extra
from rskernels.pipeline.rows.columns import Found
from rskernels.pipeline.rows.hashing import (
    hashes_of,
    is_messages,
    pairs_of,
    prompts_and_completions,
)
from rskernels.rsft.errors import DataError


class Keys(NamedTuple):
    """Rows as they are decided."""

    reward: NDArray[np.float64]
    """``[N]``; NaN of a row that is malformed."""
    group: NDArray[np.int64]
    """``[N]``: which prompt each row answers."""
    answer: NDArray[np.int64]
    """``[N]``: a hash of the completion, 0 where it is not read."""
    id: NDArray[np.int64]
    """``[N]``: tells rows apart. Without an id or sample column, the hash of prompt, completion
    and reward, which ``numbered`` makes an id."""
    bad: dict[int, str]
    """Rows that are malformed, and why."""


def keys_of(table: Any, found: Found, bad: dict[int, str] | None = None) -> Keys:
    """Return the keys of the rows of an Arrow record batch: a function of each row alone.

    Parameters
    ----------
    table : pyarrow.RecordBatch
        With the columns that were found.
    found : Found
        Which column is what.
    bad : dict, optional
        Rows that are malformed already, and why.

    Raises
    ------
    DataError
        If a column has a type that it cannot have.
    """
    bad = dict(bad or {})
    reward = _rewards(table.column(found.reward), found.reward)
    for name in found.names:
        _note_nulls(table.column(name), name, bad)
    prompt = completion = None
    if found.messages is not None:
        conversations = table.column(found.messages)
        if not is_messages(conversations.type):
            raise DataError(
                f"the column {found.messages!r} must hold lists of messages, got "
                f"{conversations.type}"
            )
        _note_no_answers(conversations, found.messages, bad)
        prompt, completion = prompts_and_completions(conversations)
    elif found.prompt is not None:
        prompt = hashes_of(table.column(found.prompt), found.prompt)
        if found.completion is not None:
            completion = hashes_of(table.column(found.completion), found.completion)
    group = prompt
    if found.group is not None:
        group = hashes_of(table.column(found.group), found.group)
    assert group is not None
    answer = np.zeros(len(reward), np.int64) if completion is None else completion
    ids = answer
    if found.id is not None:
        ids = hashes_of(table.column(found.id), found.id)
    elif found.sample is not None:
        assert prompt is not None
        ids = pairs_of(prompt, hashes_of(table.column(found.sample), found.sample))
    elif found.is_numbered:
        assert prompt is not None
        bits = (reward + 0.0).view(np.int64)  # of -0.0 those of 0.0
        ids = pairs_of(pairs_of(prompt, answer), bits)
    if bad:
        reward = reward.copy()
        reward[list(bad)] = np.nan
    return Keys(reward, group, answer, ids, bad)


def joined(parts: list[Keys]) -> Keys:
    """Return the keys of batches that follow one another."""
    bad, start = {}, 0
    for part in parts:
        bad.update({start + row: why for row, why in part.bad.items()})
        start += len(part.reward)
    nothing = np.zeros(0, np.int64)
    none = Keys(np.zeros(0), nothing, nothing, nothing, {})
    reward, group, answer, ids = (
        np.concatenate([part[at] for part in parts or [none]]) for at in range(4)
    )
    return Keys(reward, group, answer, ids, bad)


def _rewards(column: Any, name: str) -> NDArray[np.float64]:
    with data_extra():
        import pyarrow as pa
        import pyarrow.compute as pc
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not (is_number or pa.types.is_boolean(kind) or pa.types.is_decimal(kind)):
        raise DataError(f"the column {name!r} must hold numbers, got {kind}")
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    numbers = pc.fill_null(column.cast(pa.float64(), safe=False), float("nan"))
    values: NDArray[np.float64] = numbers.to_numpy(zero_copy_only=False)
    return values


def _note_nulls(column: Any, name: str, bad: dict[int, str]) -> None:
    if column.null_count:
        for row in column.is_null().to_numpy(zero_copy_only=False).nonzero()[0].tolist():
            bad.setdefault(row, f"{name} is missing")


def _note_no_answers(conversations: Any, name: str, bad: dict[int, str]) -> None:
    """Note conversations whose last message is not the assistant's."""
    with data_extra():
        import pyarrow as pa
        import pyarrow.compute as pc
    offsets = conversations.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    is_empty = offsets[1:] == offsets[:-1]
    values = conversations.values
    is_answer = np.zeros(len(values), bool)
    if "role" in [field.name for field in values.type] and len(values):
        of_role = pc.fill_null(pc.equal(values.field("role").cast(pa.string()), "assistant"), False)
        is_answer = of_role.to_numpy(zero_copy_only=False)
    last = np.where(is_empty, 0, offsets[1:] - 1)
    ends_well = is_answer[last] if len(values) else np.zeros(len(last), bool)
    for row in (is_empty | ~ends_well).nonzero()[0].tolist():
        bad.setdefault(row, f"{name} must end with a message of the role 'assistant'")
