"""``rskernels compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rskernels.cli.compare_lm import compare_lm_command
from rskernels.cli.errors import errors_explained, make_writable, usage_errors
from rskernels.cli.report import show_report
from rskernels.experiments.comparison.runner import run_all
from rskernels.experiments.suite import EXPERIMENTS, NAMED, choose, make_runs

compare_app = typer.Typer(invoke_without_command=True)


@compare_app.callback()
def compare_command(
    ctx: typer.Context,
    experiments: Annotated[
        str | None,
        typer.Option(
            help=f"Some of {', '.join(e.name for e in (*EXPERIMENTS, *NAMED))}, separated by "
            "commas.",
            show_default=f"all of them but {', '.join(e.name for e in NAMED)}",
        ),
    ] = None,
    cases: Annotated[
        str | None,
        typer.Option(
            help="Some of the cases, by their names in the tables, separated by semicolons; the "
            "first of an experiment always runs.",
            show_default="all of them",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Runs of each case.", show_default="10; 2 if quick"),
    ] = None,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two seeds and a few epochs: does it all work?")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the runs. Those that it holds are not made again.",
            show_default="runs/compare; runs/compare-quick if quick",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder of the report.", show_default="that of the runs")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make anew the runs that --out already holds.")
    ] = False,
) -> None:
    """Compare rejection with what one would use instead, over data sets and seeds.

    Continues where it was interrupted. A run that fails does not end the others: the report says
    so, and the exit status is 1. `compare lm` compares ways to fine-tune language models.
    """
    if ctx.invoked_subcommand is not None:
        return
    with usage_errors(ValueError):
        chosen = choose(
            EXPERIMENTS if experiments is None else (*EXPERIMENTS, *NAMED),
            names=split(experiments, ","),
            cases=split(cases, ";"),
        )
        number = seeds or (2 if quick else 10)
        runs = make_runs(chosen, seeds=number, first_seed=seed, quick=quick)
    folder = out or Path("runs") / ("compare-quick" if quick else "compare")
    with errors_explained():
        # What cannot be written to is better known before the runs than after.
        make_writable(report or folder)
        failures = run_all(runs, folder, jobs=jobs, overwrite=overwrite)
        show_report(chosen, runs, folder, report or folder, failures=failures, is_quick=quick)


compare_app.command("lm")(compare_lm_command)


def split(names: str | None, separator: str) -> list[str] | None:
    """Return the names in a text; None for no text."""
    return None if names is None else [name.strip() for name in names.split(separator)]
