"""Pairs of a chosen and a rejected answer to a prompt, for trainers that learn from preferences.

Of each prompt the best answer that is kept is paired with the worst that is not, the next best with
the next worst, as long as the first has the larger reward. Which pairs there are follows from
rewards and ids alone. They come in the order of their prompts' hashes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rskernels._python.extras import data_extra
from rskernels.pipeline.read import Piece, kept_rows
from rskernels.pipeline.rows.columns import Columns
from rskernels.pipeline.rows.keys import Keys
from rskernels.pipeline.store.runs import Records, merged, new_records, starts_of
from rskernels.pipeline.store.write import atomic, write_part

ROWS = 1 << 16
"""Pairs that are brought together at once."""
NONE, CHOSEN, REJECTED = -1, 0, 1
PAIRABLE = np.dtype(
    [
        ("key", np.int64), ("id", np.int64), ("reward", np.float64), ("row", np.uint32),
        ("kept", np.bool_),
    ]
)  # fmt: skip
PAIRED = np.dtype([("pair", np.int64), ("side", np.int8)])


def pairable(keys: Keys, mask: NDArray[np.bool_], invalid: NDArray[np.bool_]) -> Records:
    """Return the rows of a piece that have a reward."""
    rows = (~invalid).nonzero()[0]
    records = np.zeros(len(rows), PAIRABLE)
    records["key"], records["id"] = keys.group[rows], keys.id[rows]
    records["reward"], records["row"] = keys.reward[rows], rows
    records["kept"] = mask[rows]
    return records


def pair_up(rows: Records, most: int) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Return the pair of each row, counted from 0, and its side; ``NONE`` of those in none.

    Parameters
    ----------
    rows : array
        Records ``key`` (the prompt, rising), ``id``, ``reward`` (no NaN) and ``kept``.
    most : int
        Pairs of a prompt, at most.
    """
    pair, side = np.full(len(rows), NONE, np.int64), np.where(rows["kept"], CHOSEN, REJECTED)
    # The best first of those that are kept, the worst first of the others; ties by id.
    order = np.lexsort(
        (rows["id"], np.where(rows["kept"], -rows["reward"], rows["reward"]), side, rows["key"])
    )
    key, of_side = rows["key"][order], side[order]
    starts = starts_of(key)
    sizes = np.diff(np.append(starts, len(rows)))
    chosen = np.add.reduceat(of_side == CHOSEN, starts) if len(starts) else sizes
    count = np.minimum(np.minimum(chosen, sizes - chosen), most)
    group = np.repeat(np.arange(len(starts)), count)
    place = np.arange(len(group)) - np.repeat(count.cumsum() - count, count)
    first = order[starts[group] + place]
    second = order[starts[group] + chosen[group] + place]
    is_pair = rows["reward"][first] > rows["reward"][second]
    first, second = first[is_pair], second[is_pair]
    pair[first] = pair[second] = np.arange(len(first))
    return pair, side.astype(np.int8)


def assign(runs: Sequence[Path], sizes: Sequence[int], most: int, path: Path) -> int:
    """Write the pair and side of each row to a file, whole or absent; return how many pairs.

    Parameters
    ----------
    runs : sequence of Path
        Of each piece, the rows that have a reward: ``key``, ``id``, ``reward``, ``row``, ``kept``.
    sizes : sequence of int
        Rows of each piece.
    most : int
        Pairs of a prompt, at most.
    path : Path
        The file: ``PAIRED`` records of all rows in order.
    """
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    total = 0
    with atomic(path) as temporary:
        out = new_records(temporary, PAIRED, int(starts[-1]))
        for start in range(0, len(out), 1 << 20):
            out["pair"][start : start + (1 << 20)] = NONE
        for records, run, _ in merged(runs):
            pair, side = pair_up(records, most)
            at = starts[run] + records["row"]
            out["pair"][at] = np.where(pair >= 0, pair + total, NONE)
            out["side"][at] = side
            total += int(pair.max(initial=NONE)) + 1
        out.flush()
        del out
    return total


def write_sides(piece: Piece, columns: Columns, paired: Records, path: Path, schema: Any) -> None:
    """Write the rows of a piece that are in pairs as Arrow, in the order of the pairs.

    Of JSON lines, prompts and completions stay JSON text. Of tables they are what the columns hold,
    with the types of ``schema``.
    """
    with data_extra():
        import pyarrow as pa
    mask = paired["pair"] >= 0
    there = paired[mask]
    is_json = piece.format == "jsonl"
    tables = [
        _of_lines(part, columns) if is_json else _of_table(part, columns)
        for part in (kept_rows(piece, mask, schema) if mask.any() else ())
        if len(part)
    ]
    if not tables:
        tables = [_of_lines(b"", columns) if is_json else _of_table(schema.empty_table(), columns)]
    table = pa.concat_tables(tables)
    for name in ("pair", "side"):
        table = table.append_column(name, pa.array(there[name]))
    table = table.take(pa.array(np.argsort(there["pair"], kind="stable")))
    write_part(path, "arrow", [table], table.schema)


def write_pairs(parts: Sequence[Path], count: int, kind: str, path: Path) -> None:
    """Write all pairs, in order, to a file that is whole or absent.

    A row has ``prompt``, ``chosen``, ``rejected``, ``chosen_reward`` and ``rejected_reward``.
    """
    with data_extra():
        import pyarrow as pa
    with pa.memory_map(str(parts[0])) as source:
        schema = _pairs_schema(pa, pa.ipc.open_file(source).schema)
    tables = _joined(parts, count)
    if kind == "jsonl":
        write_part(path, kind, (_lines(table) for table in tables))
    else:
        write_part(path, kind, tables, schema)


def _joined(parts: Sequence[Path], count: int) -> Iterator[Any]:
    """Yield tables of pairs, range by range."""
    with data_extra():
        import pyarrow as pa
    sources = [pa.memory_map(str(part)) for part in parts]
    try:
        # What is not read stays on the disk.
        sides = [pa.ipc.open_file(source).read_all() for source in sources]
        numbers = [of["pair"].to_numpy() for of in sides]
        for start in range(0, count, ROWS):
            cut = [np.searchsorted(of, (start, start + ROWS)) for of in numbers]
            near = pa.concat_tables(
                [of.slice(a, b - a) for of, (a, b) in zip(sides, cut, strict=True)]
            )
            order = np.lexsort((near["side"].to_numpy(), near["pair"].to_numpy()))
            both = near.take(pa.array(order))
            chosen, rejected = (
                both.take(pa.array(np.arange(side, len(both), 2))) for side in (0, 1)
            )
            yield pa.table(
                [
                    chosen["prompt"], chosen["completion"], rejected["completion"],
                    chosen["reward"], rejected["reward"],
                ],
                schema=_pairs_schema(pa, near.schema),
            )  # fmt: skip
    finally:
        for source in sources:
            source.close()


def _pairs_schema(pa: Any, sides: Any) -> Any:
    answer, reward = sides.field("completion").type, sides.field("reward").type
    return pa.schema(
        [
            ("prompt", sides.field("prompt").type), ("chosen", answer), ("rejected", answer),
            ("chosen_reward", reward), ("rejected_reward", reward),
        ]
    )  # fmt: skip


def _lines(table: Any) -> bytes:
    """Return pairs as JSON lines; texts are JSON already."""
    names = table.schema.names
    lines = []
    for values in zip(*(table[name].to_pylist() for name in names), strict=True):
        fields = (
            f'"{name}": {value if isinstance(value, str) else json.dumps(value)}'
            for name, value in zip(names, values, strict=True)
        )
        lines.append("{" + ", ".join(fields) + "}\n")
    return "".join(lines).encode()


def _of_lines(lines: bytes, columns: Columns) -> Any:
    with data_extra():
        import pyarrow as pa
    # A bare carriage return is a blank in JSON.
    rows = [json.loads(line) for line in lines.split(b"\n") if line]
    prompts, completions = [], []
    for row in rows:
        if columns.prompt in row:
            prompt, completion = row[columns.prompt], row.get(columns.completion)
        else:
            prompt, completion = row[columns.messages][:-1], row[columns.messages][-1:]
        prompts.append(json.dumps(prompt, ensure_ascii=False))
        completions.append(json.dumps(completion, ensure_ascii=False))
    return pa.table(
        {
            "prompt": pa.array(prompts, pa.large_string()),
            "completion": pa.array(completions, pa.large_string()),
            "reward": pa.array([float(row[columns.reward]) for row in rows], pa.float64()),
        }
    )


def _of_table(table: Any, columns: Columns) -> Any:
    with data_extra():
        import pyarrow as pa
        import pyarrow.compute as pc
    reward = table[columns.reward]
    if columns.prompt in table.schema.names:
        prompt, completion = table[columns.prompt], table[columns.completion]
    else:
        turns = table[columns.messages].combine_chunks()
        lists = turns.to_pylist()
        kind = table.schema.field(columns.messages).type
        prompt = pa.array([turn[:-1] for turn in lists], kind)
        completion = pa.array([turn[-1:] for turn in lists], kind)
    if pa.types.is_boolean(reward.type):
        reward = pc.cast(reward, pa.uint8())
    return pa.table(
        {"prompt": prompt, "completion": completion, "reward": pc.cast(reward, pa.float64())}
    )
