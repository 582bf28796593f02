"""What every run on a data set begins and ends with: its folder, held, and the rows it writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rskernels.pipeline.job import Work
from rskernels.pipeline.read import Dataset, Piece
from rskernels.pipeline.store.manifest import Manifest
from rskernels.pipeline.store.write import join_parts, move_parts
from rskernels.rsft.artifacts.lock import hold
from rskernels.rsft.errors import DataError


@contextmanager
def begun(
    folder: Path,
    config: Mapping[str, Any],
    pieces: Sequence[Piece],
    *,
    resume: bool,
    overwrite: bool,
) -> Iterator[Work | None]:
    """Hold the folder of a run; at the end, note in its manifest that the run is finished.

    Parameters
    ----------
    folder : Path
        Of the results, made if need be.
    config : mapping
        All that decides what is written.
    pieces : sequence of Piece
        How the data are cut.
    resume, overwrite : bool
        Go on with a run that the folder holds, or replace it.

    Yields
    ------
    Work or None
        The run's unfinished files; None if the folder holds all of it.

    Raises
    ------
    DataError
        If there are no rows.
    CheckpointError
        If the folder holds another run, or one is writing there.
    """
    if not pieces:
        raise DataError("the inputs hold no rows")
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder):
        manifest = Manifest(folder, config, pieces)
        if manifest.begin(resume=resume, overwrite=overwrite):
            yield None
        else:
            yield Work(manifest.work)
            manifest.finish()


def put(path: Path, work: Work, data: Dataset, count: int, in_parts: bool) -> None:
    """Put the rows that were written, a part a piece, in their place: joined, or as parts.

    Parameters
    ----------
    path : Path
        Where, without the ending of the format; its name is that of the parts' folder.
    work : Work
        Where they are.
    data : Dataset
        What they were read from.
    count : int
        Pieces.
    in_parts : bool
        Whether ``path`` is to be a folder of them.
    """
    parts = work.paths(path.name, count, data.suffix)
    if in_parts:
        move_parts(path, parts)
    else:
        join_parts(path.with_name(f"{path.name}{data.suffix}"), data.format, parts)
