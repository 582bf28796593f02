"""``rskernels compare``: every run of the experiments, those done before not again.

rskernels compare --jobs 2 --report docs/results
"""

from __future__ import annotations

import dataclasses
import json
import re
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from rskernels._python.extras import train_extra
from rskernels.experiments.comparison.workers import side_by_side
from rskernels.experiments.config import GradientConfig
from rskernels.experiments.families import run
from rskernels.experiments.suite import ExperimentRun
from rskernels.rsft.errors import CheckpointError, TrainingError

# What this process has compiled and loaded: kinds of runs of which it has made one.
_warm: set[tuple[str, str, str | None]] = set()

ERROR = "error.txt"  # of a run that failed: the whole of it


class Failure(NamedTuple):
    """A run that could not be finished."""

    run: ExperimentRun
    reason: str
    """In a line."""


def run_all(
    runs: Sequence[ExperimentRun],
    out: Path,
    *,
    jobs: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> list[Failure]:
    """Make the runs that `out` does not hold yet, and return those that failed.

    A finished run of the same configuration is left as it is, one that was interrupted or failed
    continues from its checkpoint. A run that fails, or whose process is killed, does not end the
    others.

    Parameters
    ----------
    runs : sequence of ExperimentRun
        Of distinct cases or seeds.
    out : Path
        Folder for a folder a run.
    jobs : int
        Processes at a time; 1 is this one.
    overwrite : bool
        Make all runs anew.
    progress : bool
        Show a progress bar where the output is a terminal.

    Raises
    ------
    CheckpointError
        If `out` holds a finished run of another configuration, before any run is made.
    TrainingError
        If there is no run that has not failed.
    """
    todo = [r for r in runs if overwrite or not is_done(r.config, folder_of(r, out))]
    with train_extra():
        from rich.console import Console
        from rich.progress import track
    console = Console(stderr=True)
    failures = []
    with closing(_outcomes(todo, out, jobs, overwrite)) as outcomes:
        for failure in track(
            outcomes,
            "runs",
            total=len(todo),
            console=console,
            disable=not (progress and console.is_terminal),
        ):
            if failure is not None:
                failures.append(failure)
    if failures and len(failures) == len(runs):
        first, reason = failures[0]
        raise TrainingError(
            f"none of {len(runs)} runs could be finished; the first, {folder_of(first, out)}: "
            f"{reason}"
        )
    return sorted(failures, key=lambda failure: runs.index(failure.run))


def _outcomes(
    todo: Sequence[ExperimentRun], out: Path, jobs: int, overwrite: bool
) -> Generator[Failure | None, None, None]:
    """Make runs, and yield for each how it failed, or None."""
    made: Iterator[tuple[ExperimentRun, str | None]]
    if jobs == 1:
        made = ((r, make(r, out, overwrite)) for r in todo)
    else:
        made = side_by_side(make, [(r, out, overwrite) for r in todo], jobs)
    for run_, reason in made:
        yield None if reason is None else Failure(run_, reason)


def make(run_: ExperimentRun, out: Path, overwrite: bool) -> str | None:
    """Make one run, or what is missing of it; return why it failed, in a line, or None.

    Whatever is raised but an interrupt fails this run alone; the whole of it is in its folder.
    """
    folder = folder_of(run_, out)
    (folder / ERROR).unlink(missing_ok=True)
    try:
        make_or_raise(run_.config, folder, overwrite)
    except Exception as error:
        name = "" if isinstance(error, TrainingError) else f"{type(error).__name__}: "
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ERROR).write_text(
                traceback.format_exc(), encoding="utf-8", errors="backslashreplace"
            )
        except OSError:
            pass  # a full disk, say, may be why it failed: the reason still is told
        return " ".join(f"{name}{error}".split())
    return None


def make_or_raise(config: GradientConfig, folder: Path, overwrite: bool) -> None:
    """Make one run, or what is missing of it."""
    resume = not overwrite and (folder / "checkpoint.pt").is_file()
    kind = (config.data, config.method, config.selection)
    if kind not in _warm:
        # The first run pays for compiling its kernels; time the second.
        brief = dataclasses.replace(config, epochs=1)
        if config.pretrain_epochs is not None:
            brief = dataclasses.replace(brief, pretrain_epochs=1)
        with TemporaryDirectory() as scratch:
            run(brief, Path(scratch), progress=False)
        _warm.add(kind)
    # Without a checkpoint to continue from, what an interrupted run has left is of no use.
    run(config, folder, resume=resume, overwrite=not resume, progress=False)


def is_done(config: GradientConfig, folder: Path) -> bool:
    """Say whether a folder holds this run, finished.

    Raises
    ------
    CheckpointError
        If it holds a finished run of another configuration, or what cannot be read.
    """
    path = folder / "summary.json"
    if not path.is_file():
        return False
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))["config"]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: overwrite it or name another folder") from error
    # As JSON has it, so that both have the same types.
    requested = json.loads(json.dumps(dataclasses.asdict(config)))
    differing = [
        f"{name} was {saved.get(name)!r}, is {requested.get(name)!r}"
        for name in sorted({*saved, *requested})
        if saved.get(name) != requested.get(name)
    ]
    if differing:
        raise CheckpointError(
            f"{folder} holds a run of another configuration: {'; '.join(differing)}; overwrite it "
            "or name another folder"
        )
    return True


def read_run(run_: ExperimentRun, out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the summary of a finished run, and the records of its metrics."""
    folder = folder_of(run_, out)
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary, [json.loads(line) for line in lines]


def folder_of(run_: ExperimentRun, out: Path) -> Path:
    """Return the folder of a run."""
    name = re.sub("[^a-z0-9.]+", "-", run_.case.lower())
    return out / run_.experiment / f"{name}-seed{run_.config.seed}"
