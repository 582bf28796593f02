"""Which loop serves a method."""

from pathlib import Path
from typing import Any

import torch

from rskernels.rsft.checkpoint import CheckpointError
from rskernels.rsft.config import Config
from rskernels.rsft.parameter_run import run_parameter
from rskernels.rsft.train import start_afresh, train
from rskernels.rsft.tuned_run import run_tuned

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

    Raises
    ------
    CheckpointError
        Also for `resume` with "parameter" or "tuned", which keep no checkpoint.
    """
    if config.method not in RUNS:
        return train(config, out, resume=resume, overwrite=overwrite, progress=progress)
    if resume:
        raise CheckpointError(f"method={config.method!r} keeps no checkpoint: run it anew")
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        start_afresh(out, overwrite=overwrite)
        return RUNS[config.method](config, out)
    finally:
        torch.set_num_threads(before)
