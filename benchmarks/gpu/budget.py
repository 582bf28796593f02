"""Seconds to spend: what each kind of step has cost, and whether another one fits."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator


class Budget:
    """A number of seconds from now; ``guesses`` are what kinds of steps cost until one is done."""

    def __init__(
        self,
        seconds: float,
        guesses: dict[str, float],
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._clock = clock
        self._begin = clock()
        self._seconds = seconds
        self._guesses = guesses
        self._costs: dict[str, list[float]] = {kind: [] for kind in guesses}

    @property
    def spent(self) -> float:
        return self._clock() - self._begin

    @property
    def left(self) -> float:
        return self._seconds - self.spent

    @contextlib.contextmanager
    def step(self, kind: str) -> Iterator[None]:
        """Count the time of a step, however it ends."""
        begin = self._clock()
        try:
            yield
        finally:
            self._costs[kind].append(self._clock() - begin)

    def cost(self, kind: str) -> float:
        """Return the median seconds of a step so far."""
        return statistics.median(self._costs[kind] or [self._guesses[kind]])

    def allows(self, kind: str, **kept: int) -> bool:
        """Say whether a step fits, and after it as many steps of other kinds as are kept for."""
        later = sum(count * self.cost(other) for other, count in kept.items())
        return self.left >= self.cost(kind) + later
