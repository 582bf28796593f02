"""``rskernels sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rskernels.cli.options import Overwrite, Resume, folder_option, with_options
from rskernels.cli.report import run_and_show
from rskernels.experiments.config import SampleConfig


@with_options(SampleConfig)
def sample_command(
    config: SampleConfig,
    out: Annotated[Path | None, folder_option("runs/DATA-sample-FORM-seedSEED")] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Draw the parameters of a softmax regression from their posterior, without gradients."""
    run_and_show(config, out, f"sample-{config.form}", resume=resume, overwrite=overwrite)
