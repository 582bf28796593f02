"""Rows to select from: prompts, answers and rewards, any number of them, without memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SAMPLES = 16
"""Answers to a prompt."""
GROUP = 1 << 17
"""Rows of a row group."""
PROMPT, COMPLETION = 120, 240
"""Bytes, in the mean."""
WORDS = 2000


def tables(rows: int, seed: int = 0) -> Iterator[Any]:
    """Yield tables of ``GROUP`` rows, the answers to a prompt together."""
    draw = np.random.default_rng(seed)
    letters = np.frombuffer(b"etaoinshrdlu", np.uint8)
    words = [bytes(draw.choice(letters, draw.integers(2, 9))) for _ in range(WORDS)]
    corpus = np.frombuffer(b" ".join(words[w] for w in draw.integers(0, WORDS, 1 << 18)), np.uint8)
    for start in range(0, rows, GROUP):
        count = min(GROUP, rows - start)
        ids = np.arange(start, start + count)
        numbers = np.arange(start // SAMPLES, (start + count - 1) // SAMPLES + 1)
        texts = _texts(draw, corpus, len(numbers), PROMPT)
        prompts = pc.binary_join_element_wise(pa.array(numbers).cast(pa.string()), texts, " ")
        yield pa.table(
            {
                "prompt": prompts.take(pa.array(ids // SAMPLES - start // SAMPLES)),
                "completion": _texts(draw, corpus, count, COMPLETION),
                "reward": (draw.random(count) < 0.3).astype(np.float32),
                "score": draw.normal(size=count),
                "id": ids,
                "prompt_id": ids // SAMPLES,
                "sample": (ids % SAMPLES).astype(np.int32),
            }
        )


def write(path: Path, rows: int, seed: int = 0) -> None:
    """Write a Parquet file of rows."""
    writer = None
    for table in tables(rows, seed):
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=GROUP)
    if writer is not None:
        writer.close()


def _texts(draw: np.random.Generator, corpus: Any, count: int, size: int) -> Any:
    """Return texts that are cut out of a corpus."""
    lengths = draw.integers(size // 2, size * 3 // 2, count)
    offsets = np.concatenate([[0], lengths.cumsum()])
    block = 1 << 12
    starts = draw.integers(0, len(corpus) - block, -(-int(offsets[-1]) // block))
    data = np.concatenate([corpus[s : s + block] for s in starts])
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), count, buffers)
