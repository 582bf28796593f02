"""Faults planted in copies of the kernels, each of which a statistical check must find.

The unchanged copy passes every check at the size that finds the fault.
"""

import inspect
from functools import partial

import pytest

from ..laws import test_t9_fresh_ratio as t9
from .decision_faults import DECISION
from .mutants import plant
from .uniform_faults import ROWS, UNIFORM_LAW

FAULTS = [*UNIFORM_LAW, *ROWS, *DECISION]
BACKENDS = ("reference", "cpu", "gpu")
PLANTED = [(fault, backend) for fault in FAULTS for backend in BACKENDS if getattr(fault, backend)]


def at_night(backend, is_nightly, *values, name):
    """Return a test's parameters, which only the nightly run takes where ``is_nightly``."""
    marks = pytest.mark.slow if is_nightly else ()
    return pytest.param(backend, *values, marks=marks, id=f"{backend}-{name}")


@pytest.fixture
def copy(tmp_path, monkeypatch, backend_of):
    """Return a backend of a copy of the kernels with changes planted."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(backend, changes=()):
        return backend_of(backend, plant(tmp_path, changes))

    return make


@pytest.mark.parametrize(
    ("backend", "fault"),
    [
        at_night(backend, backend in fault.nightly, fault, name=fault.name)
        for fault, backend in PLANTED
    ],
)
def test_a_planted_fault_is_found(copy, seed, backend, fault):
    mutant = copy(backend, getattr(fault, backend))
    with pytest.raises(AssertionError, match=r"^(T\d|ends)"):
        fault.check(mutant, seed)


@pytest.mark.parametrize(
    ("backend", "is_nightly"),
    [
        at_night(backend, is_nightly, is_nightly, name="nightly" if is_nightly else "always")
        for backend in BACKENDS
        for is_nightly in (False, True)
    ],
)
def test_the_unchanged_copy_passes(copy, seed, backend, is_nightly):
    unchanged = copy(backend)
    assert unchanged.kernels.__name__.startswith("mutant")
    checks = [
        fault.check
        for fault, planted in PLANTED
        if planted == backend and (backend in fault.nightly) == is_nightly
    ]
    for check in dict.fromkeys(checks):
        check(unchanged, seed)


def test_m_of_the_batch_that_it_decides_is_found(backend_of, seed):
    source = inspect.getsource(t9.accept_by_pilot)
    seen = "envelope.update(pilot, ids[:, None].expand_as(pilot))"
    assert source.count(seen) == 1
    names = dict(vars(t9))
    exec(source.replace(seen, seen.replace("pilot", "batch")), names)
    check = partial(t9.check_law_of_batches, backend_of("cpu"), seed)
    check()
    with pytest.raises(AssertionError, match=r"^T9"):
        check(accept=names["accept_by_pilot"])


def test_a_text_that_is_not_there_once_is_refused(tmp_path):
    for text in ("no such text", "torch"):
        with pytest.raises(ValueError, match="times, not once"):
            plant(tmp_path, [("law/philox.py", text, "")])
