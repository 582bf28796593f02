"""Which loop serves a method."""

from pathlib import Path
from typing import Any

import torch

from rskernels.rsft.loop import train
from rskernels.rsft.methods.config import Config
from rskernels.rsft.methods.parameter_run import run_parameter
from rskernels.rsft.methods.tuned_run import run_tuned

# Those that the gradient loop does not serve.
RUNS = {"parameter": run_parameter, "tuned": run_tuned}


def run(
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Run a method and return its summary; arguments and errors are those of `train`.

    Of the configuration that is resumed only `epochs` may differ, and for "tuned" only `rounds`.
    """
    if config.method not in RUNS:
        return train(config, out, resume=resume, overwrite=overwrite, progress=progress)
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        return RUNS[config.method](config, out, resume=resume, overwrite=overwrite)
    finally:
        torch.set_num_threads(before)
