"""``rskernels demo``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rskernels.cli.errors import errors_explained, usage_errors
from rskernels.cli.report import show_report
from rskernels.cli.tables import make_table
from rskernels.experiments.comparison.runner import run_all
from rskernels.experiments.data_config import IMBALANCE
from rskernels.experiments.suite import DEMO, make_runs
from rskernels.rsft.say import say

LANGUAGE = "own_answers"


def demo_command(
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method.")] = 6,
    epochs: Annotated[int, typer.Option(help="Passes over the training pool.")] = 30,
    imbalance: Annotated[
        float, typer.Option(help="Most frequent class of the training pool over its rarest.")
    ] = IMBALANCE,
    rounds: Annotated[
        int,
        typer.Option(min=0, help="Rounds of the language model; 0 leaves it out."),
    ] = 3,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Folder for the results; an earlier demo there is replaced.")
    ] = Path("runs/demo"),
) -> None:
    """Compare five methods over several seeds, and train a language model on its right answers."""
    with usage_errors(ValueError):
        options = {**DEMO.options, "epochs": epochs, "imbalance": imbalance}
        demo = DEMO._replace(options=options)
        runs = make_runs([demo], seeds=seeds, first_seed=seed)
    with errors_explained():
        failures = run_all(runs, out, overwrite=True)
        show_report([demo], runs, out, out, failures=failures)
        if rounds:
            _show_language(out / LANGUAGE, seed, rounds)


def _show_language(folder: Path, seed: int, rounds: int) -> None:
    if find_spec("transformers") is None:
        say(
            "the language model is left out, since transformers is not installed: "
            "pip install '.[language]' in a clone of rskernels"
        )
        return
    from rskernels.experiments.own_answers import RUN, run_own_answers
    from rskernels.language.report import COLUMNS, REPORT, cells

    typer.echo("\nLanguage model: arithmetic, fine-tuned on its own right answers")
    records = run_own_answers(folder, seed=seed, rounds=rounds, say=typer.echo)
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(make_table(map(cells, records), [heading for heading, _, _ in COLUMNS]))
    typer.echo(f"report: {folder / RUN / REPORT}")
