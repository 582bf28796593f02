"""``rskernels select``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rskernels.cli.data.engines import Address, Engines, Parts, Workers
from rskernels.cli.errors import faults_named, make_writable, refuse_both, usage_errors
from rskernels.cli.options import Overwrite, Resume, completion, folder_option
from rskernels.cli.tables import make_table
from rskernels.pipeline import Columns, Rule, SelectConfig, select
from rskernels.pipeline.engines.choose import engine_of
from rskernels.pipeline.report import table
from rskernels.pipeline.rule import NEEDS

COLUMNS = "Columns"
RULE = "What is kept"
LIMITS = "Limits"


def column(help: str, default: str | None = None) -> Any:
    """Return the option that names a column."""
    return typer.Option(help=help, rich_help_panel=COLUMNS, show_default=default or True)


def number(help: str) -> Any:
    """Return the option of a number of a rule."""
    return typer.Option(help=help, rich_help_panel=RULE, show_default=False)


EnvelopePolicy = Annotated[
    str,
    typer.Option(help="learnt: how M follows, as quantile:0.99.", rich_help_panel=RULE),
]
Shared = Annotated[
    bool,
    typer.Option(
        "--shared", help="learnt: one M for all prompts, of all the pilot.", rich_help_panel=RULE
    ),
]
Pilot = Annotated[
    list[str] | None,
    typer.Option(
        help="quantile, best_of, learnt: other answers with rewards; may be given again.",
        rich_help_panel=RULE,
        show_default="none; quantile, best_of: the rows themselves",
    ),
]


def select_command(
    inputs: Annotated[
        list[str], typer.Argument(help="JSON lines, Parquet or Arrow: files, folders, patterns.")
    ],
    out: Annotated[Path, folder_option("selected")] = Path("selected"),
    form: Annotated[
        str,
        typer.Option(
            help=f"How rewards weigh. One of {', '.join(NEEDS)}.",
            rich_help_panel=RULE,
            autocompletion=completion(NEEDS),
        ),
    ] = "verifier",
    beta: Annotated[float | None, number("Temperature of the reward; 0 keeps right ones.")] = None,
    bound: Annotated[float | None, number("bounded: the largest reward there can be.")] = None,
    n: Annotated[int | None, number("best_of: the best of how many.")] = None,
    k: Annotated[int | None, number("top_k: how many of each prompt.")] = None,
    least: Annotated[float | None, number("threshold: the least reward that is kept.")] = None,
    num: Annotated[int | None, number("rso: how many of each prompt.")] = None,
    envelope: EnvelopePolicy = "max",
    shared: Shared = False,
    pilot: Pilot = None,
    seed: Annotated[int, typer.Option(help="Of the draws.", rich_help_panel=RULE)] = 0,
    prompt: Annotated[str, column("Text, or a list of messages.")] = "prompt",
    completion_column: Annotated[
        str, typer.Option("--completion", help="Likewise.", rich_help_panel=COLUMNS)
    ] = "completion",
    messages: Annotated[str, column("A conversation, in place of both.")] = "messages",
    reward: Annotated[str, column("A number.")] = "reward",
    group: Annotated[
        str | None, column("Which rows answer one prompt.", "those of equal prompts")
    ] = None,
    id: Annotated[
        str | None, column("Who a row is.", "a hash of prompt, completion, reward and a count")
    ] = None,
    sample: Annotated[
        str | None, column("Which answer to its prompt a row is, without --id.", "none")
    ] = None,
    pairs: Annotated[
        int,
        typer.Option(help="Pairs of a prompt to write, best against worst.", rich_help_panel=RULE),
    ] = 0,
    parts: Parts = False,
    max_bad: Annotated[
        int, typer.Option(help="Malformed rows to let pass.", rich_help_panel=LIMITS)
    ] = 0,
    max_duplicates: Annotated[
        int, typer.Option(help="Rows to let pass whose id another has.", rich_help_panel=LIMITS)
    ] = 0,
    engine: Engines = "local",
    workers: Workers = None,
    address: Address = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Keep answers so that they follow the policy that gave them, tilted by their rewards."""
    with usage_errors(ValueError):
        refuse_both(resume, overwrite)
        rule = Rule(
            form, beta, bound, n, k, least, num, envelope=envelope, seed=seed, shared=shared
        )
        names = Columns(prompt, completion_column, messages, reward, group, id, sample)
        config = SelectConfig(rule, names, pairs, parts, max_bad, max_duplicates)
        chosen = engine_of(engine, workers, address)
    with faults_named():
        make_writable(out)
        with chosen as running:
            report = select(
                inputs, out, config, pilot=pilot, engine=running, resume=resume,
                overwrite=overwrite, progress=True,
            )  # fmt: skip
    show(report, out)


def show(report: dict[str, Any], out: Path) -> None:
    """Print what came of a selection."""
    from rich.console import Console

    Console().print(make_table(table(report), ("", report["form"])))
    typer.echo(f"report: {out / 'report.md'}")
