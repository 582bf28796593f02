"""Data sets of a few thousand rows, in every format."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from rskernels.pipeline import Columns, Rule, SelectConfig, select

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
        text = "".join(f"{json.dumps(row)}\n" for row in rows.to_pylist()).encode()
        codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
        if codec is not None:
            # Of two parts, as programs of several threads write it.
            middle = len(text) // 3
            parts = text[:middle], text[middle:]
            text = b"".join(pa.compress(part, codec, asbytes=True) for part in parts)
        path.write_bytes(text)
    return path


def read(folder, name="accepted"):
    """Return the rows that are kept."""
    (path,) = folder.glob(f"{name}.*")
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".arrow":
        return feather.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def config_of(form, columns=None, pairs=0, max_bad=0, max_duplicates=0, **rule):
    """Return a configuration."""
    if form not in ("top_k", "weights"):
        rule = {"seed": 3, **rule}
    if form in ("verifier", "bounded", "quantile", "learnt", "rso", "soft_best_of_n", "weights"):
        rule = {"beta": 0.7, **rule}
    limits = {"pairs": pairs, "max_bad": max_bad, "max_duplicates": max_duplicates}
    return SelectConfig(Rule(form, **rule), columns or Columns(), **limits)


def kept(inputs, folder, form="verifier", size=None, pilot=None, engine=None, **options):
    """Return the ids that are kept, in order, and the report."""
    inputs = inputs if isinstance(inputs, list) else [inputs]
    config = config_of(form, **options)
    report = select(inputs, folder, config, pilot=pilot, piece_size=size, engine=engine)
    return [row["id"] for row in read(folder)], report
