"""What the commands of the three families do: run, and show what came of it."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from rskernels.cli.errors import errors_explained, refuse_both, usage_errors
from rskernels.cli.tables import summary_table
from rskernels.experiments.data_config import DataConfig
from rskernels.experiments.families import run


def run_and_show(
    config: DataConfig, out: Path | None, name: str, *, resume: bool, overwrite: bool
) -> None:
    """Make a run in a folder, by default one of its name, and print its table."""
    with usage_errors(ValueError):
        refuse_both(resume, overwrite)
    folder = out or Path("runs") / f"{config.data}-{name}-seed{config.seed}"
    with errors_explained():
        summary = run(config, folder, resume=resume, overwrite=overwrite)
    Console().print(summary_table(summary, config.title))
    typer.echo(f"curves: {folder / 'curves.png'}")
