"""The engines by name."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from rskernels.pipeline.engines.local import Engine, LocalEngine
from rskernels.pipeline.engines.on_ray import RayEngine

ENGINES = ("local", "ray")


def engine_of(
    name: str, workers: int | None = None, address: str | None = None, gpus: float = 0.0
) -> AbstractContextManager[Engine]:
    """Return an engine as a context manager, which ends the workers at its end.

    Parameters
    ----------
    name : {"local", "ray"}
        Which.
    workers, address, gpus
        As of ``RayEngine``; "local" takes workers alone, 1 if None is given.

    Raises
    ------
    ValueError
        If there is no engine of the name, or a number is out of range or not for it.
    """
    if name == "ray":
        return RayEngine(workers, address, gpus)
    if name != "local":
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}")
    if address is not None or gpus:
        raise ValueError("an address and GPUs are for the engine 'ray', got 'local'")
    return nullcontext(LocalEngine(1 if workers is None else workers))
