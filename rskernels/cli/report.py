"""A run and its table, and the report of finished runs, in a folder and in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console

from rskernels.cli.errors import errors_explained, refuse_both, usage_errors
from rskernels.cli.tables import make_table, summary_table
from rskernels.experiments.comparison.intervals import collect
from rskernels.experiments.comparison.report import table, write_report
from rskernels.experiments.comparison.runner import Failure, folder_of
from rskernels.experiments.data_config import DataConfig
from rskernels.experiments.families import run
from rskernels.experiments.suite import Experiment, ExperimentRun


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


def show_report(
    experiments: Sequence[Experiment],
    runs: Sequence[ExperimentRun],
    out: Path,
    report: Path,
    *,
    failures: Sequence[Failure] = (),
    is_quick: bool = False,
) -> None:
    """Write the report of finished runs, and print its tables; exit with 1 if a run failed."""
    compared = [
        (experiment, collect(experiment, runs, out, failures)) for experiment in experiments
    ]
    console = Console()
    if not console.is_terminal:
        console.width = 150
    for experiment, results in compared:
        console.print(f"\n{experiment.title}")
        headings, rows = table(results)
        console.print(make_table(rows, headings))
    typer.echo(f"report: {write_report(compared, report, is_quick=is_quick)}")
    for failure in failures:
        typer.echo(f"failed: {folder_of(failure.run, out)}: {failure.reason}", err=True)
    if failures:
        typer.echo(
            f"error: {len(failures)} of {len(runs)} runs failed, which the report leaves out; the "
            "same command tries them again",
            err=True,
        )
        raise typer.Exit(1)
