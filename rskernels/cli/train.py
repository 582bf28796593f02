"""``rskernels train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rskernels.cli.options import Overwrite, Resume, folder_option, with_options
from rskernels.cli.report import run_and_show
from rskernels.experiments.config import GradientConfig


@with_options(GradientConfig)
def train_command(
    config: GradientConfig,
    out: Annotated[Path | None, folder_option("runs/DATA-METHOD-seedSEED")] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a model on the samples that a rule selects: by rejection, or as its baselines do."""
    run_and_show(config, out, config.method, resume=resume, overwrite=overwrite)
