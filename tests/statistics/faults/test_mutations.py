"""Faults planted in copies of the kernels, each of which a statistical check must find.

The unchanged copy passes every check at the size that finds the fault.
"""

from functools import partial

import pytest

from ..laws import test_t9_fresh_ratio as t9
from . import in_reference
from .decision_faults import DECISION
from .fault import NONE
from .linear_faults import LINEAR
from .mutants import plant
from .sequence_faults import SEQUENCES
from .uniform_faults import ROWS, UNIFORM_LAW

FAULTS = [*UNIFORM_LAW, *ROWS, *DECISION, *LINEAR, *SEQUENCES]
BACKENDS = ("reference", "cpu", "gpu")
PLANTED = [(fault, backend) for fault in FAULTS for backend in BACKENDS if getattr(fault, backend)]
CHECKS = {  # of the unchanged copy, by backend and whether they are for the nightly run only
    (backend, is_nightly): dict.fromkeys(
        fault.check
        for fault, planted in PLANTED
        if planted == backend and (backend in fault.nightly) == is_nightly
    )
    for backend in BACKENDS
    for is_nightly in (False, True)
}


def at_night(backend, is_nightly, *values, name):
    """Return a test's parameters, which only the nightly run takes where ``is_nightly``."""
    marks = pytest.mark.slow if is_nightly else ()
    return pytest.param(backend, *values, marks=marks, id=f"{backend}-{name}")


@pytest.fixture
def copy(tmp_path, monkeypatch, backend_of):
    """Return a backend of a copy of the kernels with changes planted."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(backend, faults=NONE):
        return backend_of(backend, plant(tmp_path, faults))

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
        for (backend, is_nightly), checks in CHECKS.items()
        if checks
    ],
)
def test_the_unchanged_copy_passes(copy, seed, backend, is_nightly):
    """It is compiled for float32 only, as every copy is; the laws of ``laws`` see all dtypes."""
    unchanged = copy(backend)
    assert unchanged.kernels.__name__.startswith("mutant")
    for check in CHECKS[backend, is_nightly]:
        check(unchanged, seed)


def test_m_of_the_batch_that_it_decides_is_found(backend_of, seed):
    def accept_by_itself(subject, pilot, batch, seed):
        return t9.accept_by_pilot(subject, batch, batch, seed)

    check = partial(t9.check_law_of_batches, backend_of("cpu"), seed)
    check()
    with pytest.raises(AssertionError, match=r"^T9"):
        check(accept=accept_by_itself)


def test_what_is_not_there_is_not_replaced(copy):
    for target in ("law.philox.no_function", "law.no_module.zero"):
        with pytest.raises(ValueError, match=r"there is no module|has no"):
            copy("reference", {target: in_reference.zero})
