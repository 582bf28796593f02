"""The engine of one machine: pieces one after the other, or in several processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import ClassVar, Protocol

import torch

from rskernels.pipeline.job import Record
from rskernels.pipeline.read import Piece


class Job(Protocol):
    """What is done with a piece; it can be pickled."""

    title: ClassVar[str]

    def __call__(self, piece: Piece) -> Record:
        """Do it, and write the results where later jobs find them."""

    def done(self, piece: Piece) -> Record | None:
        """Return the record of a piece that is done already."""


class Engine(Protocol):
    """What runs a job on pieces and yields the records as they come, in any order."""

    def run(self, job: Job, pieces: Iterable[Piece]) -> Iterator[Record]:
        """Run a job on each piece."""


class LocalEngine:
    """Pieces in this process, or in others of this machine.

    Parameters
    ----------
    workers : int
        1: in this process.
    """

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.workers = workers

    def run(self, job: Job, pieces: Iterable[Piece]) -> Iterator[Record]:
        """Run a job on each piece."""
        if self.workers == 1:
            yield from map(job, pieces)
            return
        # Forked children would lack the threads of torch and Arrow. Spawned ones start their own,
        # each as many as there are cores: they get a share.
        share = max(1, torch.get_num_threads() // self.workers)
        with ProcessPoolExecutor(
            self.workers, get_context("spawn"), torch.set_num_threads, (share,)
        ) as pool:
            waiting: set[Future[Record]] = set()
            try:
                for piece in pieces:
                    waiting.add(pool.submit(job, piece))
                    if len(waiting) >= 2 * self.workers:
                        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                        yield from (future.result() for future in done)
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            finally:
                for future in waiting:
                    future.cancel()
