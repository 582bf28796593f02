"""The soak catches what is planted."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from .calls import CASES
from .run import never_done
from .watch import LIMITS, MIB, Sample, leaks
from .worker import OFTEN

REPOSITORY = Path(__file__).parents[2]
LEAKS = ("leak-memory", "leak-objects", "leak-thread", "leak-file", "leak-child")


def soak(*options):
    """Return the exit status and what was printed."""
    command = [sys.executable, "-m", "tests.soak.run", "--seed", "1", "--threads", "3", *options]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.process
def test_leaks_are_caught():
    code, said, _ = soak("--seconds", "5", "--skip", "loader", "interrupt", "--plant", *LEAKS)
    assert code == 1
    for name in ("malloc", "objects", "threads", "tasks", "files", "children"):
        assert f"FAILED {name} grew by" in said, said


@pytest.mark.process
def test_a_wrong_decision_is_caught():
    code, said, _ = soak("--seconds", "60", "--plant", "wrong")
    assert code == 1
    assert "accept_mask" in said, said


@pytest.mark.process
def test_a_hang_is_caught():
    code, said, shown = soak("--seconds", "60", "--patience", "3", "--plant", "hang")
    assert code == 1
    assert "FAILED hang: not done after 3 s: " in said, said + shown
    assert "most recent call first" in shown


@pytest.mark.process
@pytest.mark.slow
def test_a_child_that_hangs_is_caught():
    code, said, shown = soak("--seconds", "60", "--patience", "6", "--plant", "hang-in-child")
    assert code == 1
    assert "a child of fork hangs" in said, said + shown
    assert "most recent call first" in shown


def test_what_a_long_run_never_did_is_told():
    done = Counter([*CASES, *OFTEN, "loader", "interrupt", "interrupted"])
    assert never_done(done, [], 60.0) == []
    for name, count in (("fork", "fork"), ("loader", "loader"), ("interrupt", "interrupted")):
        less = done - Counter([count])
        assert never_done(less, [], 60.0) == [f"{name} was never done in 60 s"]
        assert never_done(less, [name], 60.0) == never_done(less, [], 5.0) == []


FLAT = Sample(*[1000 * MIB] * 2, *[10_000] * 8)


def grown(name, by, noise=0):
    """Return thirty samples of which one grows evenly from the warm-up on."""
    return [
        FLAT._replace(**{name: getattr(FLAT, name) + int(by * max(0, n - 10) / 19) + n % 3 * noise})
        for n in range(30)
    ]


@pytest.mark.parametrize("name", Sample._fields)
def test_growth_above_its_limit_is_told(name):
    limit = getattr(LIMITS, name)
    assert leaks(grown(name, 2 * limit + 5))[0].startswith(f"{name} grew by")
    assert leaks(grown(name, limit // 2)) == []


def test_noise_is_no_growth():
    assert leaks(grown("rss", 0, noise=20 * MIB)) == []
    assert leaks(grown("rss", 2 * LIMITS.rss, noise=20 * MIB)) != []


def test_few_samples_tell_nothing():
    assert leaks(grown("files", 1000)[-5:]) == []
