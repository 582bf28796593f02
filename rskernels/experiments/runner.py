"""``rskernels compare``: every run of the experiments, those done before not again.

rskernels compare --jobs 2 --report docs/results
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import re
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rskernels.experiments.config import GradientConfig
from rskernels.experiments.families import run
from rskernels.experiments.suite import ExperimentRun
from rskernels.rsft.errors import CheckpointError, TrainingError
from rskernels.rsft.extras import train_extra

# What this process has compiled and loaded: kinds of runs of which it has made one.
_warm: set[tuple[str, str, str | None]] = set()


def run_all(
    runs: Sequence[ExperimentRun],
    out: Path,
    *,
    jobs: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Make the runs that `out` does not hold yet.

    A finished run of the same configuration is left as it is, one that was interrupted continues
    from its checkpoint.

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
        If `out` holds a run of another configuration, where it is finished before any run is made;
        or a checkpoint is damaged.
    TrainingError
        If a run diverges, which the message names, or a process is killed.
    """
    todo = [r for r in runs if overwrite or not is_done(r.config, folder_of(r, out))]
    with train_extra():
        from rich.console import Console
        from rich.progress import track
    console = Console(stderr=True)
    with _results(todo, out, jobs, overwrite) as results:
        for _ in track(
            results,
            "runs",
            total=len(todo),
            console=console,
            disable=not (progress and console.is_terminal),
        ):
            pass


@contextmanager
def _results(
    todo: Sequence[ExperimentRun], out: Path, jobs: int, overwrite: bool
) -> Iterator[Iterator[Path]]:
    """Yield what gives something for each run that has been made."""
    if jobs == 1:
        yield (make(r, out, overwrite) for r in todo)
        return
    # Forked, a process would share the threads of torch and Numba that its parent has started.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
    try:
        # The processes start here, and inherit what is blocked: an interrupt is for their parent.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            futures = [pool.submit(make, r, out, overwrite) for r in todo]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield (future.result() for future in as_completed(futures))
    except BrokenProcessPool as error:
        raise TrainingError(
            f"one of {jobs} processes has died, for want of memory perhaps, which fewer jobs need "
            "less of; what is finished is kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def make(run_: ExperimentRun, out: Path, overwrite: bool) -> Path:
    """Make one run, or what is missing of it, and return its folder."""
    folder, config = folder_of(run_, out), run_.config
    resume = not overwrite and (folder / "checkpoint.pt").is_file()
    try:
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
    except TrainingError as error:
        raise TrainingError(f"{folder}: {error}") from error
    return folder


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
        saved = json.loads(path.read_text())["config"]
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
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return json.loads((folder / "summary.json").read_text()), [json.loads(line) for line in lines]


def folder_of(run_: ExperimentRun, out: Path) -> Path:
    """Return the folder of a run."""
    name = re.sub("[^a-z0-9.]+", "-", run_.case.lower())
    return out / run_.experiment / f"{name}-seed{run_.config.seed}"
