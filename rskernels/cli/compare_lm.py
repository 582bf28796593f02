"""``rskernels compare lm``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rskernels.cli.errors import errors_explained, make_writable, usage_errors
from rskernels.experiments.lm.methods import NAMED
from rskernels.experiments.lm.subjects import SUBJECTS
from rskernels.rsft.say import say


def compare_lm_command(
    tasks: Annotated[
        str | None,
        typer.Option(
            help=f"Some of {', '.join(s.name for s in SUBJECTS)}, separated by commas.",
            show_default="all of them",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help=f"Some of {', '.join(NAMED)}, separated by commas.", show_default="all of them"
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Of each method.", show_default="10; 1 if quick")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="One seed and a few steps: does it all work?")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 1,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.0, help="Begin no run after so many.", show_default="no limit"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the runs. Those that it holds are not made again.",
            show_default="runs/lm; runs/lm-quick if quick",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the report; runs of one that is there stay, and are not made again.",
            show_default="that of the runs",
        ),
    ] = None,
) -> None:
    """Compare ways to fine-tune language models on their own answers, at equal tokens.

    Every method's learning rate is chosen first, by trials on other seeds. Continues where it was
    interrupted: the report is of the runs that there are.
    """
    from rskernels.experiments.lm.report import restore, write_report
    from rskernels.experiments.lm.study import FULL, QUICK, choose, run_study

    with usage_errors(ValueError):
        size = choose(
            QUICK if quick else FULL,
            tasks=_split(tasks),
            methods=_split(methods),
            seeds=range(seed, seed + (seeds or len((QUICK if quick else FULL).seeds))),
        )
    folder = out or Path("runs") / ("lm-quick" if quick else "lm")
    to = report or folder
    with errors_explained():
        make_writable(to)
        restored = restore(to, size, folder, is_quick=quick)
        if restored:
            say(f"{restored} runs taken from the report in {to}")
        study = run_study(size, folder, say, jobs=jobs, minutes=minutes)
        if not study.runs:
            typer.echo("no run was made in the minutes given", err=True)
            raise typer.Exit(1)
        typer.echo(f"report: {write_report(study, size, to, is_quick=quick)}")


def _split(names: str | None) -> list[str] | None:
    return None if names is None else [name.strip() for name in names.split(",")]
