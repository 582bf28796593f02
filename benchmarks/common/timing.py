"""Times that can be compared on a machine that is not quiet: alternating rounds, medians."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

SAMPLE = 2e-3  # seconds; faster calls are repeated until a sample is this long
SHORT = 2e-2  # seconds; such calls are run once untimed before a sample, to find warm caches
# OpenMP's idle threads spin for milliseconds and would take a core from the next call.
SETTLE = 5e-3


class Timing(NamedTuple):
    """Seconds a call."""

    median: float
    low: float  # first quartile
    high: float  # third quartile
    rounds: int


def alternate(
    calls: dict[str, Callable[[], Any]], seconds: float, rounds: tuple[int, int]
) -> dict[str, Timing]:
    """Time every call once a round, in an order that rotates, for about ``seconds`` in all.

    ``rounds`` are the fewest, at least 2 (1 where every call is long), and the most. Whatever else
    slows the machine slows all of them alike, so that ratios of medians hold.
    """
    single = {name: once(call) for name, call in calls.items()}
    # A long call's first time is as good as a sample.
    samples = {name: [value] if value > SHORT else [] for name, value in single.items()}
    names = list(calls)
    begin = time.perf_counter()
    gc.collect()
    gc.disable()
    try:
        for done in range(rounds[1]):
            if done >= rounds[0] and time.perf_counter() - begin > seconds:
                break
            shift = done % len(names)
            for name in names[shift:] + names[:shift]:
                samples[name].append(sample(calls[name], single[name]))
    finally:
        gc.enable()
    return {name: _timing(values) for name, values in samples.items()}


def repeats(single: float) -> int:
    """Return how many calls of this many seconds make a sample."""
    return max(1, math.ceil(SAMPLE / single))


def sample(call: Callable[[], Any], single: float) -> float:
    """Return the seconds of a call that takes about ``single``, of as many as make a sample."""
    time.sleep(SETTLE)
    if single < SHORT:
        call()
    count = repeats(single)
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begin) / count


def once(call: Callable[[], Any]) -> float:
    """Return about how long a call takes once it is warm, in seconds."""
    call()  # compiles, starts threads, touches memory
    times = []
    while len(times) < 3 and sum(times) < SHORT:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def _timing(values: list[float]) -> Timing:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Timing(median, low, high, len(values))
