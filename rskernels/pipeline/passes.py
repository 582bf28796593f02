"""A pass: a job on all pieces that are not done, with progress and a limit of malformed rows."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rskernels.pipeline.engines.local import Engine, Job
from rskernels.pipeline.job import NAMED, Record
from rskernels.pipeline.read import Piece
from rskernels.pipeline.read.packed import release
from rskernels.rsft.errors import DataError
from rskernels.sampling.progress import ProgressBar

TEXTS = ("{task.fields[what]}", "{task.fields[rows]:,} rows, {task.fields[rate]:,.0f} a second")


def run_pass(
    engine: Engine, job: Job, pieces: Sequence[Piece], max_bad: int, *, progress: bool = False
) -> list[Record]:
    """Run a job on the pieces that are not done, and return the records of all, in order.

    Raises
    ------
    DataError
        As soon as there are more than ``max_bad`` malformed rows.
    """
    there = {piece.number: job.done(piece) for piece in pieces}
    done: dict[int, Record] = {n: record for n, record in there.items() if record is not None}
    bad = _checked(done, 0, max_bad)
    left = [piece for piece in pieces if piece.number not in done]
    begin, rows = time.perf_counter(), 0
    with ProgressBar(
        len(pieces), TEXTS, completed=len(done), on=progress, only_on_terminal=True,
        what=job.title, rows=0, rate=0.0,
    ) as bar:  # fmt: skip
        try:
            for record in engine.run(job, left):
                done[record.number] = record
                bad = _checked({record.number: record}, bad, max_bad)
                rows += record.rows
                bar.advance(1, rows=rows, rate=rows / (time.perf_counter() - begin))
        finally:
            release()
    return [done[piece.number] for piece in pieces]


def _checked(records: dict[int, Record], before: int, max_bad: int) -> int:
    """Return how many malformed rows there are with those before, unless they are too many."""
    bad = before + sum(record.bad for record in records.values())
    if bad > max_bad:
        named = [line for n in sorted(records) for line in records[n].named][:NAMED]
        raise DataError(
            f"{bad} malformed rows so far, --max-bad lets {max_bad} pass:\n  " + "\n  ".join(named)
        )
    return bad
