"""A selection from beginning to end: passes over pieces, then the files that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rskernels.pipeline.config import SelectConfig
from rskernels.pipeline.engines.local import Engine, LocalEngine
from rskernels.pipeline.job import Count, Decide, Record, Work
from rskernels.pipeline.read import Dataset, Piece, dataset_of, names_of, split
from rskernels.pipeline.report import write_report
from rskernels.pipeline.rows.numbering import write_counts_before
from rskernels.pipeline.store.duplicates import duplicates_in
from rskernels.pipeline.store.manifest import Manifest
from rskernels.pipeline.store.write import join_parts
from rskernels.rsft.artifacts.lock import hold
from rskernels.rsft.errors import DataError


def select(
    inputs: Iterable[str | Path],
    out: str | Path,
    config: SelectConfig,
    *,
    engine: Engine | None = None,
    resume: bool = False,
    overwrite: bool = False,
    piece_size: int | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Select rows of files, and write those that are kept and a report.

    Parameters
    ----------
    inputs : iterable of str or Path
        Files, folders and patterns, all JSON lines, Parquet or Arrow.
    out : str or Path
        A folder, made if need be: ``accepted.jsonl``, ``.parquet`` or ``.arrow``, ``report.json``,
        ``report.md`` and, with matplotlib, ``report.png``.
    config : SelectConfig
        What to keep.
    engine : Engine, optional
        What runs the passes: this process, if None is given.
    resume, overwrite : bool
        Go on with a run that the folder holds, or replace it.
    piece_size : int, optional
        Rows of a table, or bytes of JSON lines, that are a unit of work; no decision depends on it.
    progress : bool
        Whether to show a bar on the standard error.

    Returns
    -------
    dict
        The report.

    Raises
    ------
    DataError
        If files are missing, or of several formats; for more malformed rows, or ids that several
        rows have, than ``config`` lets pass.
    CheckpointError
        If the folder holds another run, or one is writing there.
    OSError
        If files cannot be read or written.
    """
    data, folder = dataset_of(inputs), Path(out)
    found = config.columns.found_in(names_of(data))
    pieces = split(data, piece_size)
    folder.mkdir(parents=True, exist_ok=True)
    engine = engine or LocalEngine()
    with hold(folder):
        manifest = Manifest(folder, {**config.to_dict(), "data": data.digest()}, pieces)
        if manifest.begin(resume=resume, overwrite=overwrite):
            from rskernels.pipeline.report import read_report

            return read_report(folder)
        work = Work(manifest.work)
        work.make()
        if found.is_numbered and len(pieces) > 1:
            _pass(engine, Count(found, work), pieces, config)
            counts, before = (work.paths(of, len(pieces)) for of in ("counts", "before"))
            if not all(path.exists() for path in before):
                write_counts_before(counts, before)
        records = _pass(engine, Decide(found, config.rule, work), pieces, config)
        return _finish(folder, data, config, records, work, manifest)


def _pass(engine: Engine, job: Any, pieces: Sequence[Piece], config: SelectConfig) -> list[Record]:
    """Run a job on the pieces that are not done, and return the records of all, in order."""
    records = {piece.number: job.done(piece) for piece in pieces}
    left = [piece for piece in pieces if records[piece.number] is None]
    _check_bad([record for record in records.values() if record is not None], config)
    for record in engine.run(job, left):
        records[record.number] = record
        _check_bad([record for record in records.values() if record is not None], config)
    return [records[piece.number] for piece in pieces]


def _check_bad(records: Sequence[Record], config: SelectConfig) -> None:
    bad = sum(record.bad for record in records)
    if bad > config.max_bad:
        named = [line for record in records for line in record.named][:10]
        raise DataError(
            f"{bad} malformed rows so far, --max-bad lets {config.max_bad} pass:\n  "
            + "\n  ".join(named)
        )


def _finish(
    folder: Path,
    data: Dataset,
    config: SelectConfig,
    records: Sequence[Record],
    work: Work,
    manifest: Manifest,
) -> dict[str, Any]:
    count, named = duplicates_in(work.paths("ids", len(records)))
    if count > config.max_duplicates:
        raise DataError(
            f"{count} rows have the id of another, --max-duplicates lets {config.max_duplicates} "
            f"pass; among them {', '.join(map(str, named))}. Rows of one id are decided alike"
        )
    parts = work.paths("accepted", len(records), data.suffix)
    join_parts(folder / f"accepted{data.suffix}", data.format, parts)
    report = write_report(folder, data, config, records, work, count)
    manifest.finish()
    return report
