"""``rskernels score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rskernels.cli.data.engines import Address, Engines, Gpus, Parts, Workers
from rskernels.cli.errors import faults_named, make_writable, refuse_both, usage_errors
from rskernels.cli.options import Overwrite, Resume, completion, folder_option
from rskernels.cli.tables import make_table
from rskernels.pipeline import Columns, LogProb, Reward, ScoreConfig, score
from rskernels.pipeline.engines.choose import engine_of
from rskernels.pipeline.score.log_prob import DTYPES
from rskernels.pipeline.score.scorer import Scorer

SCORE = "What is scored"
COLUMNS = "Columns"
LIMITS = "Limits"


def scoring(help: str, default: str | None = None, **more: Any) -> Any:
    """Return an option of what is scored."""
    shown = default or True
    return typer.Option(help=help, rich_help_panel=SCORE, show_default=shown, **more)


def column(*flags: str, help: str, default: str | None = None) -> Any:
    """Return the option that names a column."""
    return typer.Option(*flags, help=help, rich_help_panel=COLUMNS, show_default=default or True)


REWARD = "module:function, called as TRL does: f(prompts, completions, **columns)."
LOG_PROB = "Folder of a language model: log-probabilities of completions given prompts."
DTYPE = f"log-prob: of the weights. One of {', '.join(DTYPES)}."
END = "log-prob: whether the token that ends an answer counts."
CONVERSATIONS = "Conversations that end with the answer, where there is no prompt."
BAD = "Malformed rows, and such without a score, to let pass."
End = Annotated[bool, typer.Option("--end/--no-end", help=END, rich_help_panel=SCORE)]


def score_command(
    inputs: Annotated[
        list[str], typer.Argument(help="JSON lines, Parquet or Arrow: files, folders, patterns.")
    ],
    out: Annotated[Path, folder_option("scored")] = Path("scored"),
    reward: Annotated[str | None, scoring(REWARD, "none")] = None,
    log_prob: Annotated[str | None, scoring(LOG_PROB, "none")] = None,
    batch_size: Annotated[int, scoring("reward: rows of a call.")] = 256,
    batch_tokens: Annotated[int, scoring("log-prob: tokens of a batch.")] = 1 << 14,
    with_end: End = True,
    dtype: Annotated[str, scoring(DTYPE, autocompletion=completion(DTYPES))] = "auto",
    device: Annotated[
        str | None, scoring("log-prob: as torch names it.", "cuda if there is one, else cpu")
    ] = None,
    name: Annotated[
        str | None, column("--as", help="Of scores.", default="reward, or log_prob")
    ] = None,
    prompt: Annotated[str, column(help="Text, or a list of messages.")] = "prompt",
    completion_column: Annotated[str, column("--completion", help="Likewise.")] = "completion",
    messages: Annotated[str, column(help=CONVERSATIONS)] = "messages",
    max_bad: Annotated[int, typer.Option(help=BAD, rich_help_panel=LIMITS)] = 0,
    engine: Engines = "local",
    workers: Workers = None,
    address: Address = None,
    gpus: Gpus = 0.0,
    parts: Parts = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Give each answer a reward by a function, or its log-probability by a language model."""
    with usage_errors(ValueError):
        refuse_both(resume, overwrite)
        if (reward is None) == (log_prob is None):
            raise ValueError("exactly one of --reward and --log-prob is needed")
        scorer: Scorer
        if reward is not None:
            scorer = Reward(reward, batch_size)
        else:
            assert log_prob is not None
            scorer = LogProb(log_prob, with_end, batch_tokens, dtype, device)
        columns = Columns(prompt, completion_column, messages)
        config = ScoreConfig(scorer, name, columns, max_bad, parts)
        chosen = engine_of(engine, workers, address, gpus)
    with faults_named():
        make_writable(out)
        with chosen as running:
            report = score(
                inputs, out, config, engine=running, resume=resume, overwrite=overwrite,
                progress=True,
            )  # fmt: skip
    show(report, out)


def show(report: dict[str, Any], out: Path) -> None:
    """Print what came of it."""
    from rich.console import Console

    rows = [
        ("rows", f"{report['rows']:,}"),
        ("scored", f"{report['scored']:,}"),
        ("malformed, or without a score", f"{report['bad']:,}"),
        *(
            (what, "–" if report[what] is None else f"{report[what]:.4g}")
            for what in ("mean", "std", "least", "most")
        ),
        *((f"{name}, in all", f"{total:,}") for name, total in report["sums"].items()),
    ]
    Console().print(make_table(rows, ("", report["config"]["names"][0])))
    typer.echo(f"report: {out / 'report.json'}")
