"""The families of runs: the configuration says which loop it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rskernels.experiments.config import GradientConfig, SampleConfig, TuneConfig
from rskernels.experiments.data_config import DataConfig
from rskernels.experiments.sample import sample_parameters
from rskernels.experiments.train import train_model
from rskernels.experiments.tune import tune_proposal
from rskernels.rsft.run import torch_threads


def run(
    config: DataConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Make a run in a folder and return its summary.

    Parameters
    ----------
    config : GradientConfig, TuneConfig or SampleConfig
        What is run.
    out : Path
        Folder for ``metrics.jsonl``, TensorBoard events, ``checkpoint.pt``, ``curves.png``,
        ``summary.json``, and ``proposal.pt`` or ``samples.pt``.
    resume : bool
        Continue from the checkpoint in `out`; of the configuration only ``epochs``, or ``rounds``,
        may differ.
    overwrite : bool
        Replace a run that `out` already holds, once the data are there.
    progress : bool
        Show a progress bar where the output is a terminal.

    Returns
    -------
    dict
        The summary: the configuration under ``"config"`` and the final measurements.

    Raises
    ------
    DataError
        If the data, the imbalance or the test fraction cannot be had.
    FileExistsError
        If `out` holds a run and neither `resume` nor `overwrite` is given.
    CheckpointError
        If there is no checkpoint to resume, or it is damaged or of another configuration.
    TrainingError, NoFiniteM, RejectionError
        As `rskernels.rsft.run.train`, `rskernels.rsft.tune` and `rskernels.rsft.independent`.
    """
    with torch_threads(config.threads):
        match config:
            case GradientConfig():
                return train_model(
                    config, out, resume=resume, overwrite=overwrite, progress=progress
                )
            case TuneConfig():
                return tune_proposal(config, out, resume=resume, overwrite=overwrite)
            case SampleConfig():
                return sample_parameters(config, out, resume=resume, overwrite=overwrite)
    raise TypeError(f"no family of runs has a {type(config).__name__}")
