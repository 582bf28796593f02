"""Two processes that measure in turns: while one has the turn the other waits for a line."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.common import affinity

ROOT = Path(__file__).parents[2]


class Asked(Protocol):
    """Whatever answers a request: a process, or a stand-in for one."""

    def ask(self, **request: object) -> dict[str, Any]: ...


class Worker:
    """A process that measures one tree; a context manager.

    Parameters
    ----------
    site : Path or None
        The folder that holds its rskernels; None is this tree's, as ``import rskernels`` finds it.
    arguments : sequence of str
        Further ones of ``worker.py``.
    """

    def __init__(self, site: Path | None, arguments: Sequence[str] = ()) -> None:
        place = [] if site is None else ["--site", str(site)]
        command = [sys.executable, "-m", "benchmarks.base.worker", *place, *arguments]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=affinity.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        greeting = self._answer()
        self.names: list[str] = greeting["names"]
        self.package = Path(greeting["package"])

    def ask(self, **request: object) -> dict[str, Any]:
        """Hand the turn over, and return what came of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a measuring process ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Comparison(NamedTuple):
    """Seconds of a case in both trees, a value a round."""

    name: str
    old: list[float]
    new: list[float]
    same: bool
    """Whether both trees returned the same bits."""

    @property
    def ratio(self) -> float:
        """The median of the new tree over that of the old one."""
        return statistics.median(self.new) / statistics.median(self.old)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of new over old within a round."""
        pairs = [new / old for new, old in zip(self.new, self.old, strict=True)]
        low, _, high = statistics.quantiles(pairs, n=4, method="inclusive")
        return low, high


def compare(
    name: str, old: Asked, new: Asked, seconds: float, rounds: tuple[int, int]
) -> Comparison | str:
    """Measure a case in both, in turns, for about ``seconds``; or say why it cannot be.

    ``rounds`` are the fewest, at least 2, and the most. Who begins a round alternates.
    """
    single, digests = 0.0, set()
    for whose, worker in (("base", old), ("this tree", new)):
        prepared = worker.ask(prepare=name)
        if "error" in prepared:
            return f"{name}: {whose}: {prepared['error']}"
        single = max(single, prepared["seconds"])
        digests.add(prepared["digest"])
    times: tuple[list[float], list[float]] = ([], [])
    pair = [(old, times[0]), (new, times[1])]
    begin = time.perf_counter()
    for done in range(rounds[1]):
        if done >= rounds[0] and time.perf_counter() - begin > seconds:
            break
        for worker, values in pair if done % 2 == 0 else reversed(pair):
            values.append(worker.ask(sample=single)["seconds"])
    return Comparison(name, *times, same=len(digests) == 1)


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))
