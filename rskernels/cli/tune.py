"""``rskernels tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rskernels.cli.options import Overwrite, Resume, folder_option, with_options
from rskernels.cli.report import run_and_show
from rskernels.experiments.config import TuneConfig


@with_options(TuneConfig)
def tune_command(
    config: TuneConfig,
    out: Annotated[Path | None, folder_option("runs/DATA-tune-PROPOSAL-seedSEED")] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune a proposal on the draws that it had accepted, towards the density of the data."""
    run_and_show(config, out, f"tune-{config.proposal}", resume=resume, overwrite=overwrite)
