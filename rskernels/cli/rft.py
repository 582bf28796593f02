"""``rskernels rft``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rskernels.cli.errors import errors_explained, refuse_both, usage_errors
from rskernels.cli.options import Overwrite, Resume, folder_option, with_options
from rskernels.cli.tables import make_table
from rskernels.language.config import LanguageConfig


@with_options(LanguageConfig)
def rft_command(
    config: LanguageConfig,
    out: Annotated[Path | None, folder_option("runs/TASKS-FORM-seedSEED")] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune a language model in rounds on its own answers, selected by reward.

    Under torchrun, as `torchrun -m rskernels rft`, processes share the work.
    """
    from rskernels.language.report import REPORT, cells, columns_of
    from rskernels.language.run import fine_tune
    from rskernels.rsft.run import read_metrics

    with usage_errors(ValueError):
        refuse_both(resume, overwrite)
        for name in ("model", "tasks"):
            if getattr(config, name) is None:
                raise ValueError(f"--{name} is needed")
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in config.tasks or "")
    folder = out or Path("runs") / f"{name}-{config.form}-seed{config.seed}"
    with errors_explained():
        fine_tune(config, folder, resume=resume, overwrite=overwrite)
    if int(os.environ.get("RANK", 0)):
        return
    rounds = [record for record in read_metrics(folder) if record["kind"] == "round"]
    console = Console()
    if not console.is_terminal:
        console.width = 200
    columns = columns_of(rounds)
    rows = [cells(record, columns) for record in rounds]
    console.print(make_table(rows, [heading for heading, _, _ in columns]))
    typer.echo(f"report: {folder / REPORT}")
