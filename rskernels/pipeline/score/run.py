"""Scores for a data set from beginning to end."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from rskernels.pipeline.engines.local import Engine, LocalEngine
from rskernels.pipeline.job import NAMED
from rskernels.pipeline.passes import run_pass
from rskernels.pipeline.read import Dataset, dataset_of, names_of, refuse_mixed, schema_of, split
from rskernels.pipeline.report import merged_rewards, read_report
from rskernels.pipeline.score.job import FOLDERS, Score, ScoreRecord
from rskernels.pipeline.score.rows import check_names
from rskernels.pipeline.score.scorer import ScoreConfig
from rskernels.pipeline.start import begun, put
from rskernels.pipeline.store.write import write_whole

BYTES, ROWS = 1 << 22, 1 << 13
"""Of a piece, about: scores take long, and a piece is what a crash loses."""


def score(
    inputs: Iterable[str | Path],
    out: str | Path,
    config: ScoreConfig,
    *,
    engine: Engine | None = None,
    resume: bool = False,
    overwrite: bool = False,
    piece_size: int | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Score the rows of files, and write them all with their scores and a report.

    Parameters
    ----------
    inputs : iterable of str or Path
        Files, folders and patterns, all JSON lines, Parquet or Arrow.
    out : str or Path
        A folder, made if need be: ``scored.jsonl``, ``.parquet`` or ``.arrow``, rows in their
        order, and ``report.json``.
    config : ScoreConfig
        How, and what the columns are called.
    engine : Engine, optional
        What runs it: this process, if None is given.
    resume, overwrite : bool
        Go on with a run that the folder holds, or replace it. What is scored is not scored again.
    piece_size : int, optional
        Rows of a table, or bytes of JSON lines, that are a unit of work; row groups are not cut.
    progress : bool
        Whether to show a bar on the standard error.

    Returns
    -------
    dict
        The report.

    Raises
    ------
    DataError
        If files are missing, of several formats, or lie in ``out``, or ``out`` in a folder that is
        read; if a column is missing, or one of the name is
        there; for more malformed rows, or such without a score, than ``config`` lets pass.
    CheckpointError
        If the folder holds another run, or one is writing there.
    OSError
        If files cannot be read or written.
    """
    inputs, folder = list(inputs), Path(out)
    data = dataset_of(inputs)
    refuse_mixed(folder, inputs, data)
    names = names_of(data)
    # A later row that has one that is added is malformed, and counted.
    check_names(config.columns, names, config.names, names_of(data, 1))
    config.scorer.check(names)
    pieces = split(data, piece_size or (BYTES if data.format == "jsonl" else ROWS))
    schema = schema_of(data)
    description = {**config.to_dict(), "data": data.digest()}
    with begun(folder, description, pieces, resume=resume, overwrite=overwrite) as work:
        if work is not None:
            work.make(FOLDERS, schema)
            job = Score(config, work)
            records = run_pass(
                engine or LocalEngine(), job, pieces, config.max_bad, progress=progress
            )
            put(folder / "scored", work, data, len(records), config.parts)
            report = _report(data, config, cast(Sequence[ScoreRecord], records))
            write_whole(folder / "report.json", json.dumps(report, indent=1, allow_nan=False))
        return read_report(folder)


def _report(data: Dataset, config: ScoreConfig, records: Sequence[ScoreRecord]) -> dict[str, Any]:
    rows, bad = sum(record.rows for record in records), sum(record.bad for record in records)
    scored = rows - bad
    mean = math.fsum(record.total for record in records) / scored if scored else None
    squares = math.fsum(record.squares for record in records)
    spread = None if mean is None else math.sqrt(max(0.0, squares / scored - mean * mean))
    counts = [record.counts for record in records if record.counts]
    return {
        "config": config.to_dict(),
        "files": list(data.files),
        "skipped": list(data.skipped),
        "format": data.format,
        "rows": rows,
        "scored": scored,
        "bad": bad,
        "named": [line for record in records for line in record.named][:NAMED],
        "mean": mean,
        "std": spread,
        "least": min((r.least for r in records if r.least is not None), default=None),
        "most": max((r.most for r in records if r.most is not None), default=None),
        "sums": dict(zip(config.names[1:], map(sum, zip(*counts, strict=True)), strict=False)),
        "scores": merged_rewards(records),
        "seconds": sum(record.seconds for record in records),
    }
