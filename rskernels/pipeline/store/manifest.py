"""What a run is: its data and options, so that no other run goes on from its files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rskernels.pipeline.read import Piece
from rskernels.pipeline.store.write import write_whole
from rskernels.rsft.errors import CheckpointError

NAME, WORK = "manifest.json", "work"
FORMAT = 1
RESULTS = (
    "accepted.jsonl", "accepted.parquet", "accepted.arrow", "accepted",
    "pairs.jsonl", "pairs.parquet", "pairs.arrow",
    "scored.jsonl", "scored.parquet", "scored.arrow", "scored",
    "report.json", "report.md", "report.png",
)  # fmt: skip


class Manifest:
    """The record of a run, in its folder.

    Parameters
    ----------
    folder : Path
        Of the results; it exists.
    config : mapping
        All that decides what is written, JSON alone.
    pieces : sequence of Piece
        How the data are cut.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], pieces: Sequence[Piece]) -> None:
        self.folder, self.path, self.work = folder, folder / NAME, folder / WORK
        self.config = dict(config)
        self.pieces = [asdict(piece) for piece in pieces]

    def begin(self, *, resume: bool, overwrite: bool) -> bool:
        """Begin a run or go on with one, and return whether it is finished.

        Raises
        ------
        CheckpointError
            If the folder holds a run and neither is asked for, none where one is to be resumed, or
            one of other data or options.
        """
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)  # of a run that was killed: this one holds the lock
        there = sorted(name for name in (NAME, WORK, *RESULTS) if (self.folder / name).exists())
        if overwrite:
            self._clear()
            there = []
        if resume:
            return self._resumed()
        if there:
            raise CheckpointError(
                f"{self.folder} already holds {', '.join(there)}: go on with --resume, replace it "
                "with --overwrite, or name another folder"
            )
        self._write(is_finished=False)
        return False

    def finish(self) -> None:
        """Note that all is written, and remove what only resumption needs."""
        self._write(is_finished=True)
        self._clear_work()

    def _resumed(self) -> bool:
        if not self.path.exists():
            raise CheckpointError(f"nothing to resume: {self.path} does not exist")
        try:
            saved = json.loads(self.path.read_text(encoding="utf-8"))
            given, pieces, is_finished = saved["config"], saved["pieces"], saved["finished"]
            known = saved["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.path} is damaged or no manifest of rskernels") from error
        if known != FORMAT:
            raise CheckpointError(f"{self.path} has format {known}, this version has {FORMAT}")
        differing = [
            f"{name} was {given.get(name)!r}, is {self.config.get(name)!r}"
            for name in sorted({*given, *self.config})
            if given.get(name) != self.config.get(name)
        ]
        if not differing and pieces != self.pieces:
            differing = ["the pieces, or the paths of the files, differ"]
        if differing:
            raise CheckpointError(f"{self.path} belongs to another run: {'; '.join(differing)}")
        if is_finished:
            self._clear_work()
        return bool(is_finished)

    def _clear_work(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)

    def _write(self, *, is_finished: bool) -> None:
        content = {
            "format": FORMAT, "finished": is_finished, "config": self.config, "pieces": self.pieces,
        }  # fmt: skip
        write_whole(self.path, json.dumps(content, indent=1))

    def _clear(self) -> None:
        # The manifest last: what a crash leaves is refused, not mixed.
        for name in (WORK, *RESULTS, NAME):
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
