"""Studies in pieces, each kept in a file, so that one that was interrupted goes on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rskernels.experiments.comparison.workers import side_by_side
from rskernels.rsft.errors import TrainingError

Piece = dict[str, Any]
Made = tuple[str, Callable[[], Piece]]
"""A name, which is that of the file, and what makes the piece: JSON's numbers, texts and lists."""


def make_pieces(
    all_pieces: Iterable[Made],
    folder: Path,
    say: Callable[[str], None],
    *,
    only: str = "",
    jobs: int = 1,
    minutes: float | None = None,
) -> list[Piece]:
    """Make the pieces that a folder lacks, and return those that there are.

    Parameters
    ----------
    all_pieces : iterable of (str, callable)
        In the order in which they are made. With several jobs what makes them can be pickled.
    folder : Path
        Of the files.
    say : callable
        Told of each piece that was made.
    only : str
        The beginning of the names that are made; others are neither made nor returned.
    jobs : int
        Processes at a time; 1 is this one.
    minutes : float, optional
        After which no further piece is begun.

    Returns
    -------
    list of dict
        In the order given. Each has ``seconds``, of the processor, that it took to make.

    Raises
    ------
    TrainingError
        If a process has died; what was raised in this one is raised as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [(name, make) for name, make in all_pieces if name.startswith(only)]
    missing = [(name, make) for name, make in chosen if not _file(folder, name).exists()]
    end = None if minutes is None else time.monotonic() + 60.0 * minutes
    if jobs == 1:
        for name, make in missing:
            _make(name, make, folder, end)
            _tell(name, folder, say)
    else:
        tasks = [(name, make, folder, end) for name, make in missing]
        for name, reason in side_by_side(_make_or_say, tasks, jobs):
            if reason is not None:
                raise TrainingError(f"{name}: {reason}")
            _tell(name, folder, say)
    files = [_file(folder, name) for name, _ in chosen]
    return [json.loads(path.read_text(encoding="utf-8")) for path in files if path.exists()]


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _make(name: str, make: Callable[[], Piece], folder: Path, end: float | None) -> None:
    if end is not None and time.monotonic() > end:
        return
    start = time.process_time()
    piece = {**make(), "seconds": time.process_time() - start}
    path = _file(folder, name)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(piece), encoding="utf-8")
    part.replace(path)


def _make_or_say(
    name: str, make: Callable[[], Piece], folder: Path, end: float | None
) -> str | None:
    try:
        _make(name, make, folder, end)
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def _tell(name: str, folder: Path, say: Callable[[str], None]) -> None:
    path = _file(folder, name)
    if path.exists():
        seconds = json.loads(path.read_text(encoding="utf-8"))["seconds"]
        say(f"{name}: {seconds:.1f} s")


def rounded(value: Any, digits: int) -> Any:
    """Return what JSON holds with so many digits of every float; None of NaN and the infinite."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    return [rounded(item, digits) for item in value] if isinstance(value, list) else value
