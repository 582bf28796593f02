"""Scores for a data set from beginning to end."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from rskernels.pipeline.engines.local import Engine, LocalEngine
from rskernels.pipeline.job import Work
from rskernels.pipeline.passes import NAMED, run_pass
from rskernels.pipeline.read import Dataset, dataset_of, names_of, split
from rskernels.pipeline.report import merged_rewards
from rskernels.pipeline.score.job import FOLDERS, Score, ScoreRecord
from rskernels.pipeline.score.rows import check_names
from rskernels.pipeline.score.scorer import ScoreConfig
from rskernels.pipeline.store.manifest import Manifest
from rskernels.pipeline.store.write import join_parts, move_parts, write_whole
from rskernels.rsft.artifacts.lock import hold
from rskernels.rsft.errors import DataError

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
        If files are missing, or of several formats; if a column is missing, or one of the name is
        there; for more malformed rows, or such without a score, than ``config`` lets pass.
    CheckpointError
        If the folder holds another run, or one is writing there.
    OSError
        If files cannot be read or written.
    """
    data = dataset_of(inputs)
    names = names_of(data)
    check_names(config.columns, names, config.names)
    config.scorer.check(names)
    pieces = split(data, piece_size or (BYTES if data.format == "jsonl" else ROWS))
    if not pieces:
        raise DataError("the inputs hold no rows")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder):
        manifest = Manifest(folder, {**config.to_dict(), "data": data.digest()}, pieces)
        if not manifest.begin(resume=resume, overwrite=overwrite):
            work = Work(manifest.work)
            for name in FOLDERS:
                (work.folder / name).mkdir(parents=True, exist_ok=True)
            job = Score(config, work)
            records = run_pass(
                engine or LocalEngine(), job, pieces, config.max_bad, progress=progress
            )
            parts = work.paths("scored", len(records), data.suffix)
            if config.parts:
                move_parts(folder / "scored", parts)
            else:
                join_parts(folder / f"scored{data.suffix}", data.format, parts)
            of_pieces = cast(Sequence[ScoreRecord], records)
            report = _report(data, config, of_pieces)
            write_whole(folder / "report.json", json.dumps(report, indent=1, allow_nan=False))
            manifest.finish()
        saved: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return saved


def _report(data: Dataset, config: ScoreConfig, records: Sequence[ScoreRecord]) -> dict[str, Any]:
    rows, bad = sum(record.rows for record in records), sum(record.bad for record in records)
    scored = rows - bad
    mean = math.fsum(record.total for record in records) / scored if scored else None
    squares = math.fsum(record.squares for record in records)
    spread = None if mean is None else math.sqrt(max(0.0, squares / scored - mean * mean))
    counts = [record.counts for record in records if record.counts]
    return {
        "config": config.to_dict(),
        "files": len(data.files),
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
