"""``rskernels warm``."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer

from rskernels.cli.errors import errors_explained, usage_errors
from rskernels.kernels.warm import DEVICES, DTYPES, FORMS, processor, warm


def warm_command(
    dtypes: Annotated[
        str | None,
        typer.Option(
            help=f"Dtypes of logits: some of {', '.join(DTYPES)}, separated by commas.",
            show_default="all of them",
        ),
    ] = None,
    forms: Annotated[
        str | None,
        typer.Option(
            help=f"What is called: some of {', '.join(FORMS)}, separated by commas.",
            show_default="all of them",
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            help=f"Some of {', '.join(DEVICES)}, separated by commas.",
            show_default="cpu, and cuda if there is one",
        ),
    ] = None,
) -> None:
    """Compile the kernels ahead, as in an image, so that no process has to wait for its first call.

    Prints what was compiled, or found from earlier, in how many seconds, and where it is kept. If
    it cannot be kept the exit status is 1.
    """
    present = [name for name in DEVICES if name == "cpu" or torch.cuda.is_available()]
    with usage_errors(ValueError):
        chosen = some_of(devices, present, "device here")
        of_dtypes, of_forms = some_of(dtypes, DTYPES, "dtype"), some_of(forms, FORMS, "form")
    # The table says it.
    logging.getLogger("rskernels").setLevel(logging.ERROR)
    line = "{:<8}{:<12}{:<11}{:>8}  {}".format
    typer.echo(line("device", "form", "dtype", "seconds", ""))
    folders: set[Path | None] = set()
    with errors_explained():
        for done in warm(chosen, of_dtypes, of_forms):
            outcome = "compiled" if done.is_new else "was there"
            seconds = f"{done.seconds:.2f}"
            typer.echo(line(done.device, done.form, done.dtype, seconds, outcome))
            folders |= done.folders
    for folder in sorted(folder for folder in folders if folder):
        typer.echo(f"kept in {folder}")
    if "cpu" in chosen:
        typer.echo(f"processor: {processor()}; on others CPU kernels are compiled anew")
    if None in folders:
        typer.echo("error: what was compiled cannot be kept", err=True)
        raise typer.Exit(1)


def some_of(names: str | None, known: Iterable[str], what: str) -> list[str]:
    """Return the names in a text, which must be among those known; all for no text."""
    every = list(known)
    chosen = every if names is None else [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in every:
            raise ValueError(f"{name!r} is no {what}: choose from {', '.join(every)}")
    return chosen
