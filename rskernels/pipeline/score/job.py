"""What an engine runs on each piece: score its rows, and write them with their scores."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from rskernels.pipeline.job import NAMED, Record, Work, histogram
from rskernels.pipeline.read import Piece, place_of
from rskernels.pipeline.score.rows import added_fields, scored_lines, scored_tables
from rskernels.pipeline.score.scorer import Row, ScoreConfig, Scores
from rskernels.pipeline.store.write import write_part, write_whole
from rskernels.rsft.errors import DataError

FOLDERS = ("scored", "done")


@dataclass(frozen=True)
class ScoreRecord(Record):
    """What a job says of a piece.

    Attributes
    ----------
    total, squares, least, most : float
        The sum of the scores, that of their squares, and their range.
    counts : list of int
        Sums of the further columns that the scorer adds.
    """

    total: float = 0.0
    squares: float = 0.0
    least: float | None = None
    most: float | None = None
    counts: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Score:
    """Score a piece and write it.

    Attributes
    ----------
    config : ScoreConfig
        How.
    work : Work
        Where what is done lies.
    """

    config: ScoreConfig
    work: Work
    title: ClassVar[str] = "scoring"

    def __call__(self, piece: Piece) -> ScoreRecord:
        """Do it for a piece."""
        begin = time.perf_counter()
        tally = _Tally(piece, self.config)
        columns, added = self.config.columns, self.config.names
        path = self.work.path("scored", piece.number, f".{piece.format}")
        if piece.format == "jsonl":
            write_part(path, piece.format, scored_lines(piece, columns, added, tally.scored))
        else:
            schema = written = self.work.schema()
            for of in added_fields(added):
                written = written.append(of)
            parts = scored_tables(piece, schema, columns, added, tally.scored)
            write_part(path, piece.format, parts, written)
        record = tally.record(time.perf_counter() - begin)
        write_whole(self.work.path("done", piece.number, ".json"), json.dumps(vars(record)))
        return record

    def done(self, piece: Piece) -> ScoreRecord | None:
        """Return the record of a piece that is done."""
        path = self.work.path("done", piece.number, ".json")
        if not path.exists():
            return None
        return ScoreRecord(**json.loads(path.read_text(encoding="utf-8")))


class _Tally:
    """The scores of a piece so far."""

    def __init__(self, piece: Piece, config: ScoreConfig) -> None:
        self.piece, self.config = piece, config
        self.rows = self.bad = 0
        self.named: list[str] = []
        self.values: list[tuple[float, ...]] = []

    def scored(self, rows: list[Row | str]) -> Scores:
        """Score rows and note them.

        Raises
        ------
        DataError
            As soon as the piece alone has more bad rows than are let pass.
        """
        bad = {n: row for n, row in enumerate(rows) if isinstance(row, str)}
        places = [n for n in range(len(rows)) if n not in bad]
        good = [row for row in rows if not isinstance(row, str)]
        room = self.config.max_bad - self.bad - len(bad)
        scores = self.config.scorer(good, max(room, 0)) if good and room >= 0 else Scores([], {})
        bad |= {places[n]: why for n, why in scores.bad.items()}
        for n in sorted(bad)[: NAMED - len(self.named)]:
            self.named.append(f"{place_of(self.piece, self.rows + n)}: {bad[n]}")
        self.bad += len(bad)
        self.rows += len(rows)
        if self.bad > self.config.max_bad:
            raise DataError(
                f"{self.bad} rows without a score so far, --max-bad lets {self.config.max_bad} "
                "pass:\n  " + "\n  ".join(self.named)
            )
        values: list[tuple[float, ...] | None] = [None] * len(rows)
        for n, value in zip(places, scores.values, strict=True):
            values[n] = value
        self.values += [value for value in scores.values if value is not None]
        return Scores(values, bad)

    def record(self, seconds: float) -> ScoreRecord:
        """Return what is said of the piece once it is written."""
        first = np.array([value[0] for value in self.values], np.float64)
        more: Any = list(zip(*self.values, strict=True))[1:]
        return ScoreRecord(
            self.piece.number,
            self.rows,
            bad=self.bad,
            named=self.named,
            seconds=seconds,
            rewards=histogram(first, np.ones(len(first), bool)),
            total=math.fsum(first),
            squares=math.fsum(first * first),
            least=float(first.min()) if len(first) else None,
            most=float(first.max()) if len(first) else None,
            counts=[sum(column) for column in more],
        )
