"""Every case against torch and the read limit, by pytest-benchmark: a group a case.

python -m pytest benchmarks/cpu --benchmark-only -k 2048x32000
"""

import functools

import pytest

from benchmarks.common import timing
from benchmarks.common.cases import FURTHER, GRID, Pool
from benchmarks.cpu import calls

ROUNDS = {True: 3, False: 20}  # by whether a call takes longer than timing.SHORT
CASES = [*GRID, *FURTHER]


@functools.cache
def _pool():
    return Pool(CASES)


@functools.lru_cache(maxsize=1)
def _inputs(case):
    return _pool().inputs(case)


@pytest.mark.parametrize(
    ("case", "form"),
    [
        pytest.param(case, form, id=f"{case.slug}-{form.replace(' ', '-')}")
        for case in CASES
        for form in calls.names(case)
    ],
)
def test_form(benchmark, case, form):
    call = calls.call(case, form, _inputs(case))
    single = timing.once(call)
    benchmark.group = str(case)
    benchmark.extra_info["bytes"] = case.bytes
    rounds = ROUNDS[single > timing.SHORT]
    benchmark.pedantic(call, rounds=rounds, iterations=timing.repeats(single))
    if benchmark.stats is not None:
        benchmark.extra_info["GB/s"] = case.bytes / benchmark.stats["median"] / 1e9
