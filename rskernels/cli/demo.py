"""``rskernels demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rskernels.cli.errors import errors_explained, usage_errors
from rskernels.cli.report import show_report
from rskernels.experiments.comparison.runner import run_all
from rskernels.experiments.data_config import IMBALANCE
from rskernels.experiments.suite import DEMO, make_runs


def demo_command(
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method.")] = 6,
    epochs: Annotated[int, typer.Option(help="Passes over the training pool.")] = 30,
    imbalance: Annotated[
        float, typer.Option(help="Most frequent class of the training pool over its rarest.")
    ] = IMBALANCE,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Folder for the results; an earlier demo there is replaced.")
    ] = Path("runs/demo"),
) -> None:
    """Compare five methods over several seeds: accuracy, gradient samples, time, and spread."""
    with usage_errors(ValueError):
        options = {**DEMO.options, "epochs": epochs, "imbalance": imbalance}
        demo = DEMO._replace(options=options)
        runs = make_runs([demo], seeds=seeds, first_seed=seed)
    with errors_explained():
        failures = run_all(runs, out, overwrite=True)
        show_report([demo], runs, out, out, failures=failures)
