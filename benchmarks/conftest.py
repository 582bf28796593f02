"""``pytest benchmarks --benchmark-only``: one group a case, one benchmark a form."""

import functools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import calls
import cases
import timing

ROUNDS = {True: 3, False: 20}  # by whether a call takes longer than timing.SHORT


@functools.cache
def _pool():
    return cases.Pool([*cases.GRID, *cases.FURTHER])


@functools.lru_cache(maxsize=1)
def _inputs(case):
    return _pool().inputs(case)


def pytest_generate_tests(metafunc):
    """Make a benchmark of every form of every case in the module's ``CASES``."""
    if "form" in metafunc.fixturenames:
        metafunc.parametrize(
            ("case", "form"),
            [
                pytest.param(case, form, id=f"{case.slug}-{form.replace(' ', '-')}")
                for case in metafunc.module.CASES
                for form in calls.names(case)
            ],
        )


@pytest.fixture
def measure(benchmark):
    """Time a form of a case, with the bytes and their rate beside the times."""

    def measured(case, form):
        call = calls.call(case, form, _inputs(case))
        single = timing.once(call)
        benchmark.group = str(case)
        benchmark.extra_info["bytes"] = case.bytes
        rounds = ROUNDS[single > timing.SHORT]
        benchmark.pedantic(call, rounds=rounds, iterations=timing.repeats(single))
        if benchmark.stats is not None:
            benchmark.extra_info["GB/s"] = case.bytes / benchmark.stats["median"] / 1e9

    return measured
