"""A selection from beginning to end: passes over pieces, then the files that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from rskernels.pipeline.config import SelectConfig
from rskernels.pipeline.engines.local import Engine, Job, LocalEngine
from rskernels.pipeline.gather import resolve
from rskernels.pipeline.job import Count, Decide, Gather, Record, Sides, Work, named_keys
from rskernels.pipeline.pairs import assign, write_pairs
from rskernels.pipeline.passes import run_pass
from rskernels.pipeline.read import (
    Dataset,
    Piece,
    dataset_of,
    names_of,
    place_of,
    refuse_mixed,
    refuse_shared,
    schema_of,
    split,
)
from rskernels.pipeline.report import read_report, write_report
from rskernels.pipeline.rows.columns import Found
from rskernels.pipeline.rows.numbering import write_counts_before
from rskernels.pipeline.rule import OF_THE_ROWS, WITH_PILOT
from rskernels.pipeline.start import begun, put
from rskernels.pipeline.store.duplicates import duplicates_in
from rskernels.pipeline.weighted import NAME, refuse_column
from rskernels.rsft.errors import DataError
from rskernels.rsft.say import say


def select(
    inputs: Iterable[str | Path],
    out: str | Path,
    config: SelectConfig,
    *,
    pilot: Iterable[str | Path] | None = None,
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
        A folder, made if need be: ``accepted.jsonl``, ``.parquet`` or ``.arrow``, or a folder
        ``accepted`` of parts; ``report.json``,
        ``report.md`` and, with matplotlib, ``report.png``; where they are asked for
        ``pairs.jsonl``, ``.parquet`` or ``.arrow``.
    config : SelectConfig
        What to keep.
    pilot : iterable of str or Path, optional
        Files of other answers to the same prompts, with rewards, for "quantile", "best_of" and
        "learnt". Without, a first pass takes the quantiles of the rows themselves, which the report
        warns of; "learnt" needs a pilot.
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
        If files are missing, of several formats, or lie in ``out``, or ``out`` in a folder that is
        read; if a file is an input and a pilot; for more malformed rows, or ids that several rows
        have, than ``config`` lets pass.
    ValueError
        If there is a pilot that the form does not take, or none that it needs.
    CheckpointError
        If the folder holds another run, or one is writing there.
    OSError
        If files cannot be read or written.
    """
    inputs, folder = list(inputs), Path(out)
    pilot = None if pilot is None else list(pilot)
    data, of_pilot = dataset_of(inputs), _pilot_of(pilot, config)
    refuse_mixed(folder, [*inputs, *(pilot or ())], data, of_pilot)
    refuse_shared(data, of_pilot)
    run = _Run(config, data, of_pilot, piece_size, progress)
    with begun(folder, run.description(), run.pieces, resume=resume, overwrite=overwrite) as work:
        if work is None:
            return read_report(folder)
        work.make(schema=run.schema)
        return run.finish(folder, run.decide(engine or LocalEngine(), work), work)


def _pilot_of(pilot: Iterable[str | Path] | None, config: SelectConfig) -> Dataset | None:
    if pilot is not None and config.rule.form not in WITH_PILOT:
        raise ValueError(f"the form {config.rule.form!r} takes no pilot")
    if pilot is None and config.rule.form == "learnt":
        raise ValueError(
            "the form 'learnt' needs a pilot (--pilot): M must not be learnt from the rows that it "
            "decides; give answers to the same prompts that are no input"
        )
    return None if pilot is None else dataset_of(pilot)


class _Run:
    """A selection: its data, its passes and its results."""

    def __init__(
        self,
        config: SelectConfig,
        data: Dataset,
        pilot: Dataset | None,
        size: int | None,
        progress: bool,
    ) -> None:
        self.config, self.data, self.pilot, self.progress = config, data, pilot, progress
        answers = config.rule.form == "rso"
        self.found = config.columns.found_in(names_of(data), answers=answers)
        self.pieces, self.schema = split(data, size), schema_of(data)
        if config.rule.form == "weights":
            refuse_column(names_of(data) if self.schema is None else self.schema.names)
            if self.schema is None:
                # Only the first lines were looked at: a later one may have the column.
                self.found = replace(self.found, added=NAME)
        if config.pairs:
            # Raises where a text is missing: pairs need prompt and completion.
            config.columns.of_text().found_in(names_of(data), answers=True)
        self.duplicates = self.pairs = 0
        self.pilot_found: Found | None = None
        self.pilot_pieces: list[Piece] = []
        if pilot is not None:
            of_pilot = config.columns.of_pilot()
            self.pilot_found = of_pilot.found_in(names_of(pilot), is_pilot=True)
            self.pilot_pieces = split(pilot, size)

    def description(self) -> dict[str, Any]:
        """Return what decides which rows are kept."""
        pilot = None if self.pilot is None else self.pilot.digest()
        return {**self.config.to_dict(), "data": self.data.digest(), "pilot": pilot}

    def decide(self, engine: Engine, work: Work) -> list[Record]:
        """Run the passes, and return the records of the last."""
        rule, count = self.config.rule, len(self.pieces)
        if self.found.is_numbered and count > 1:
            self._pass(engine, Count(self.found, work), self.pieces)
            before = work.paths("before", count)
            if not all(path.exists() for path in before):
                write_counts_before(work.paths("counts", count), before)
        starts: tuple[int, ...] = ()
        if not rule.is_alone:
            starts = self._resolve(engine, work)
        job = Decide(self.found, rule, work, starts, bool(self.config.pairs))
        records = self._pass(engine, job, self.pieces)
        self._refuse_duplicates(work)
        if self.config.pairs:
            self._pair_up(engine, records, work)
        return records

    def _refuse_duplicates(self, work: Work) -> None:
        self.duplicates, named = duplicates_in(work.paths("ids", len(self.pieces)))
        allowed = self.config.max_duplicates
        if self.duplicates > allowed:
            raise DataError(
                f"{self.duplicates} rows have the id of another, --max-duplicates lets {allowed} "
                "pass; rows of one id are decided alike:\n  "
                + "\n  ".join(self._places_of(named, work))
            )

    def _places_of(self, ids: Sequence[int], work: Work) -> list[str]:
        """Return where the first two rows of each id are."""
        places: dict[int, list[str]] = {each: [] for each in ids}
        for piece, run in zip(self.pieces, work.paths("ids", len(self.pieces)), strict=True):
            there = np.isin(ids, np.load(run)["key"])
            wanted = [each for each in np.array(ids)[there].tolist() if len(places[each]) < 2]
            keys = named_keys(piece, self.found, work) if wanted else None
            for each in wanted:
                assert keys is not None
                rows = [n for n in (keys.id == each).nonzero()[0].tolist() if n not in keys.bad]
                places[each] += [place_of(piece, n) for n in rows[: 2 - len(places[each])]]
        return [" and ".join(of) for of in places.values()]

    def _pair_up(self, engine: Engine, records: Sequence[Record], work: Work) -> None:
        """Find the pairs, and write the sides of each piece."""
        sizes = [record.rows for record in records]
        self.pairs = assign(
            work.paths("pairable", len(sizes)), sizes, self.config.pairs, work.paired
        )
        starts = tuple(accumulate(sizes, initial=0))
        self._pass(engine, Sides(self.config.columns, work, starts), self.pieces)

    def finish(self, folder: Path, records: Sequence[Record], work: Work) -> dict[str, Any]:
        """Write the results, and return the report."""
        put(folder / "accepted", work, self.data, len(records), self.config.parts)
        if self.config.pairs:
            sides = work.paths("sides", len(records), ".arrow")
            path = folder / f"pairs{self.data.suffix}"
            write_pairs(sides, self.pairs, self.data.format, path)
        counts = {"duplicates": self.duplicates, "pairs": self.pairs}
        is_own = self.config.rule.form in WITH_PILOT and self.pilot is None
        report = write_report(
            folder, self.data, self.config, records, work, counts, is_own_pilot=is_own
        )
        for text in report["warnings"]:
            if text != OF_THE_ROWS:  # which was said at the beginning
                say(text)
        return report

    def _resolve(self, engine: Engine, work: Work) -> tuple[int, ...]:
        """Decide all answers to a prompt together, and return where each piece's rows begin."""
        rule = self.config.rule
        if rule.form in WITH_PILOT and self.pilot is None:
            say(f"no --pilot: {OF_THE_ROWS}")
        records = self._pass(engine, Gather(self.found, rule, work), self.pieces)
        pilot = None
        if self.pilot_found is not None:
            of_pilot = Gather(self.pilot_found, rule, work, "pilot")
            self._pass(engine, of_pilot, self.pilot_pieces)
            pilot = work.paths("pilot", len(self.pilot_pieces))
        sizes = [record.rows for record in records]
        if not work.resolved.exists():
            runs = work.paths("gathered", len(self.pieces))
            resolve(runs, pilot, sizes, rule, work.resolved)
        return tuple(accumulate(sizes, initial=0))

    def _pass(self, engine: Engine, job: Job, pieces: Sequence[Piece]) -> list[Record]:
        return run_pass(engine, job, pieces, self.config.max_bad, progress=self.progress)
