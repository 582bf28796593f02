"""The commands put together, and what they have in common."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from rskernels.cli.compare import compare_app
from rskernels.cli.data.score import score_command
from rskernels.cli.data.select import select_command
from rskernels.cli.demo import demo_command
from rskernels.cli.options import Command
from rskernels.cli.rft import rft_command
from rskernels.cli.sample import sample_command
from rskernels.cli.train import train_command
from rskernels.cli.tune import tune_command
from rskernels.cli.warm import warm_command

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def show_version(value: bool) -> None:
    """Print the version and end."""
    if value:
        typer.echo(f"rskernels {version('rskernels')}")
        raise typer.Exit


@app.callback()
def about(
    is_version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Rejection sampling for PyTorch, and fine-tuning built on it."""


FAMILIES = "Fine-tuning by rejection"
DATA = "Data sets of prompts, answers and rewards"
COMPARISONS = "Comparisons"
INSTALLATION = "Installation"

app.command("train", cls=Command, rich_help_panel=FAMILIES)(train_command)
app.command("tune", cls=Command, rich_help_panel=FAMILIES)(tune_command)
app.command("sample", cls=Command, rich_help_panel=FAMILIES)(sample_command)
app.command("rft", cls=Command, rich_help_panel=FAMILIES)(rft_command)
app.command("score", rich_help_panel=DATA)(score_command)
app.command("select", rich_help_panel=DATA)(select_command)
app.add_typer(compare_app, name="compare", rich_help_panel=COMPARISONS)
app.command("demo", rich_help_panel=COMPARISONS)(demo_command)
app.command("warm", rich_help_panel=INSTALLATION)(warm_command)
