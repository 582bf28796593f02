"""Checkpoints that are whole or absent, and that never execute code."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint that is absent, damaged, or of another run."""


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, replacing the one before only once the new one is on the disk.

    Parameters
    ----------
    path : Path
        The file.
    state : mapping
        Tensors, numbers, strings and containers of them.
    """
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(path: Path, *, expected: Mapping[str, Any], free: frozenset[str]) -> dict[str, Any]:
    """Read a checkpoint and check that it belongs to this run.

    Parameters
    ----------
    path : Path
        The file. It is read with ``weights_only=True``: a pickle that would run code is refused.
    expected : mapping
        The configuration of this run, compared with the one saved under ``"config"``.
    free : frozenset of str
        Names of the configuration that may differ.

    Returns
    -------
    dict
        What was given to `save`.

    Raises
    ------
    CheckpointError
        If the file is absent, damaged, of another format, or of a different configuration.
    """
    if not path.is_file():
        raise CheckpointError(f"nothing to resume: {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} is damaged or no rskernels checkpoint, and was not loaded: {reason}"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path} has format {found}, this version reads format {FORMAT}")
    saved = state["config"]
    differing = [
        f"{name} was {saved.get(name)!r}, is {expected.get(name)!r}"
        for name in sorted({*saved, *expected} - free)
        if saved.get(name) != expected.get(name)
    ]
    if differing:
        raise CheckpointError(f"{path} belongs to another run: {'; '.join(differing)}")
    return state
