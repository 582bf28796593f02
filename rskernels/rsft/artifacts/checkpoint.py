"""Checkpoints that are whole or absent, and that never execute code."""

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

from rskernels.rsft.errors import CheckpointError

FORMAT = 2

# A file is MAGIC, the SHA-256 of the rest, and the rest: what torch.save wrote.
MAGIC = b"rskernels checkpoint\n"
DIGEST_SIZE = hashlib.sha256().digest_size


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, replacing the one before only once the new one is on the disk.

    Parameters
    ----------
    path : Path
        The file.
    state : mapping
        Tensors, numbers, strings and containers of them.

    Raises
    ------
    CheckpointError
        If the state holds anything else, so that it could not be read.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    buffer.seek(0)
    unsafe = get_unsafe_globals_in_checkpoint(buffer)
    if unsafe:
        raise CheckpointError(
            f"{path} would hold {', '.join(sorted(unsafe))}, which `read` refuses: accepted are "
            "tensors, numbers, strings and containers of them"
        )
    payload = buffer.getvalue()
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(MAGIC + hashlib.sha256(payload).digest() + payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # a disk that is full gets its room back
        raise


def load(
    path: Path,
    *,
    expected: Mapping[str, Any],
    free: frozenset[str],
    needed: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Read a checkpoint and check that it belongs to this run.

    Parameters
    ----------
    path : Path
        The file, as `read` reads it.
    expected : mapping
        The configuration of this run, compared with the one saved under ``"config"``.
    free : frozenset of str
        Names of the configuration that may differ.
    needed : frozenset of str
        Names that must have been passed to `save` besides ``"config"``.

    Returns
    -------
    dict
        What was passed to `save`.

    Raises
    ------
    CheckpointError
        If the file is absent, damaged, of another format, incomplete, or of a different
        configuration.
    """
    state = read(path)
    missing = sorted({"config", *needed} - state.keys())
    if missing:
        raise CheckpointError(f"{path} is incomplete: it lacks {', '.join(missing)}")
    saved = state["config"]
    differing = [
        f"{name} was {saved.get(name)!r}, is {expected.get(name)!r}"
        for name in sorted({*saved, *expected} - free)
        if saved.get(name) != expected.get(name)
    ]
    if differing:
        raise CheckpointError(f"{path} belongs to another run: {'; '.join(differing)}")
    return state


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint of whichever run.

    Nothing is unpickled unless the digest fits, and then with ``weights_only=True``: a pickle that
    would run code is refused.

    Raises
    ------
    CheckpointError
        If the file is absent, damaged, or of another format.
    """
    if not path.is_file():
        raise CheckpointError(f"nothing to resume: {path} does not exist")
    refusal = f"{path} is damaged or no rskernels checkpoint, and was not loaded"
    content = path.read_bytes()
    start = len(MAGIC) + DIGEST_SIZE
    payload = content[start:]
    if content[:start] != MAGIC + hashlib.sha256(payload).digest():
        raise CheckpointError(f"{refusal}: its SHA-256 does not fit")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{refusal}: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        read_format = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(
            f"{path} has format {read_format}, this version reads format {FORMAT}"
        )
    return state
