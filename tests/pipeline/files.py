"""Data sets of a few thousand rows, in every format."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from rskernels.pipeline import SelectConfig, select

ROWS = 3000


def table(rows=ROWS, seed=0):
    """Return answers to prompts, 16 each, some of them equal, and rewards of 0 and 1."""
    draw = np.random.default_rng(seed)
    return pa.table(
        {
            "prompt": [f"prompt {n // 16}: ünï" for n in range(rows)],
            "completion": [f"answer {n}" for n in draw.integers(0, 40, rows)],
            "reward": (draw.random(rows) < 0.3).astype(float),
            "score": draw.normal(size=rows).round(1),
            "id": np.arange(rows) * 7919,
            "sample": np.arange(rows) % 16,
            "note": [{"n": n, "tags": ["a"] * (n % 3)} for n in range(rows)],
        }
    )


def conversations(rows):
    """Return a table whose prompts and completions are conversations."""
    turns = [
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": p},
            {"role": "assistant", "content": c},
        ]
        for p, c in zip(rows["prompt"].to_pylist(), rows["completion"].to_pylist(), strict=True)
    ]
    return rows.drop_columns(["prompt", "completion"]).append_column("messages", pa.array(turns))


def write(rows, path, group=None):
    """Write a table in the format of a name."""
    if path.suffix == ".parquet":
        pq.write_table(rows, path, row_group_size=group)
    elif path.suffix == ".arrow":
        feather.write_feather(rows, path, chunksize=group)
    else:
        lines = [json.dumps(row) for row in rows.to_pylist()]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(folder):
    """Return the rows that are kept."""
    (path,) = folder.glob("accepted.*")
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".arrow":
        return feather.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def kept(inputs, folder, form="verifier", size=None, engine=None, **options):
    """Return the ids that are kept, in order, and the report."""
    options = {"beta": 0.7, "seed": 3, **options}
    inputs = inputs if isinstance(inputs, list) else [inputs]
    report = select(inputs, folder, SelectConfig(form, **options), piece_size=size, engine=engine)
    return [row["id"] for row in read(folder)], report
