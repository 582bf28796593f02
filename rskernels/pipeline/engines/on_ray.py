"""The engine of many machines: actors of Ray, a process each, that take a piece at a time.

Nothing but pieces and records passes through Ray: a job reads and writes files, in folders that all
machines share. Where a worker ends, whoever is free does its piece again from the beginning, and
another worker is started as soon as there is room.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from rskernels._python.extras import RAY_HINT, framework
from rskernels.pipeline.engines.errors import EngineError
from rskernels.pipeline.engines.local import Job
from rskernels.pipeline.job import Record
from rskernels.pipeline.read import Piece

RETRIES = 5
"""How often a piece is tried again after its worker ended, and so is the start of a worker."""
STORE = 1 << 27
"""Bytes of shared memory, where Ray is started here; pieces and records need hardly any."""


class RayEngine:
    """Pieces in processes of Ray, of this machine or of a cluster.

    Parameters
    ----------
    workers : int, optional
        Processes, of one CPU each. None: as many as a cluster has CPUs; without a cluster 1.
    address : str, optional
        Of a cluster that runs, ``"auto"`` or as ``ray.init`` takes it. Its machines must see the
        files by the same paths and have rskernels installed. None: the Ray that this process has
        joined, or else one is started on this machine and ended by ``close``.
    gpus : float
        GPUs of each worker; below 1 several workers share one.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """

    def __init__(
        self, workers: int | None = None, address: str | None = None, gpus: float = 0.0
    ) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        if not 0.0 <= gpus < float("inf"):
            raise ValueError(f"gpus must be at least 0, got {gpus}")
        self.workers, self.address, self.gpus = workers, address, gpus
        self._actors: list[Any] = []
        self._has_begun = False

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, and the Ray that this engine has started or joined."""
        self._end_workers()
        if self._has_begun:
            self._has_begun = False
            _ray().shutdown()

    def run(self, job: Job, pieces: Iterable[Piece]) -> Iterator[Record]:
        """Run a job on each piece, and yield the records as they come.

        Raises
        ------
        EngineError
            If the worker of a piece ended more often than ``RETRIES``, or Ray cannot be reached.
        """
        left = deque(pieces)
        if not left:
            return
        ray = self._joined()
        # By what is waited for: the worker and its piece, or None while the worker starts. Only
        # those that have started get pieces: a cluster may have no room for others yet.
        waiting: dict[Any, tuple[Any, Piece | None]] = {
            actor.ready.remote(): (actor, None) for actor in self._pool()
        }
        idle: list[Any] = []
        given, tries = ray.put(job), Counter[Piece | None]()
        try:
            while left or any(piece for _, piece in waiting.values()):
                (ref,), _ = ray.wait(list(waiting))
                actor, piece = waiting.pop(ref)
                record = None
                try:
                    record = _result(ref)
                    idle.append(actor)
                except _Ended as ended:
                    tries[piece] += 1
                    if tries[piece] > RETRIES:
                        raise EngineError(f"{_ended(piece)}: {ended}") from ended
                    if piece is not None:
                        left.appendleft(piece)
                    # Whoever is idle takes it: there may be no room for the new one.
                    other = self._replaced(actor)
                    waiting[other.ready.remote()] = other, None
                while idle and left:
                    actor, piece = idle.pop(), left.popleft()
                    waiting[actor.run.remote(given, piece)] = actor, piece
                if record is not None:
                    yield record
        finally:
            # After an error or an interrupt nobody takes what workers still do.
            if any(piece for _, piece in waiting.values()):
                self._end_workers()

    def _joined(self) -> Any:
        """Return ray, once it runs."""
        ray = _ray()
        if ray.is_initialized():
            return ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address is None:
            options |= {
                "num_cpus": self.workers or 1,
                "include_dashboard": False,
                "object_store_memory": STORE,
                # RAY_ADDRESS names a cluster that nobody asked for here.
                "address": "local",
            }
        else:
            options["address"] = self.address
        try:
            ray.init(**options)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            where = "on this machine" if self.address is None else f"at {self.address}"
            raise EngineError(f"Ray cannot be reached {where}: {error}") from error
        self._has_begun = True
        return ray

    def _pool(self) -> list[Any]:
        if not self._actors:
            ray = _ray()
            count = self.workers
            if count is None:
                of_all = ray.cluster_resources().get("CPU", 1)
                count = max(1, int(of_all)) if self.address is not None else 1
            self._actors = [self._worker() for _ in range(count)]
        return self._actors

    def _worker(self) -> Any:
        options = {"num_cpus": 1, "num_gpus": self.gpus}
        return _ray().remote(_Worker).options(**options).remote()

    def _replaced(self, actor: Any) -> Any:
        """Return a new worker in the place of one that has ended."""
        other = self._worker()
        self._actors[self._actors.index(actor)] = other
        return other

    def _end_workers(self) -> None:
        actors, self._actors = self._actors, []
        for actor in actors:
            _ray().kill(actor)


class _Worker:
    """What runs in a process of Ray."""

    def ready(self) -> None:
        """Answer once the process runs."""

    def run(self, job: Job, piece: Piece) -> Record:
        """Run a job on a piece."""
        return job(piece)


class _Ended(Exception):
    """A worker that has ended, or could not be started."""


def _result(ref: Any) -> Any:
    """Return what a worker has returned, or raise what it has raised."""
    from ray.exceptions import RayError, RayTaskError

    try:
        return _ray().get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from error
        raise EngineError(str(error)) from error
    except RayError as error:
        raise _Ended(str(error)) from error


def _ended(piece: Piece | None) -> str:
    """Return what the error says of workers that ended too often."""
    if piece is None:
        return f"{RETRIES + 1} workers could not be started"
    place = f"{piece.file} from {piece.start} to {piece.end}"
    return f"the worker of {place} ended {RETRIES + 1} times, as for want of memory"


def _ray() -> Any:
    with framework("--engine ray", RAY_HINT):
        import ray
    return ray
