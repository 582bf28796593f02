"""What can go wrong, as a message and an exit status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import typer

from rskernels.pipeline.engines.errors import EngineError
from rskernels.rsft.errors import CheckpointError, DataError, TrainingError
from rskernels.sampling import RejectionError

ERRORS = (
    OSError,
    ValueError,
    CheckpointError,
    EngineError,
    ImportError,
    RejectionError,
    TrainingError,
)


@contextmanager
def usage_errors(kind: type[ValueError]) -> Iterator[None]:
    """Report errors of a kind as options that are refused."""
    try:
        yield
    except kind as error:
        raise typer.BadParameter(str(error)) from error


@contextmanager
def errors_explained() -> Iterator[None]:
    """Turn what can go wrong in a run into a message and an exit status."""
    try:
        with usage_errors(DataError):
            yield
    except ERRORS as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


@contextmanager
def faults_named() -> Iterator[None]:
    """Do the same where a fault of data names files and lines, which no box is to break."""
    with errors_explained():
        try:
            yield
        except DataError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error


def refuse_both(resume: bool, overwrite: bool) -> None:
    """Raise ValueError where a run is both to go on and to begin anew."""
    if resume and overwrite:
        raise ValueError("--resume and --overwrite are both given; at most one is accepted")


def make_writable(folder: Path) -> None:
    """Make a folder, or raise OSError if files cannot be written to the one that there is."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"{folder} cannot be written to: {error.strerror}") from error
