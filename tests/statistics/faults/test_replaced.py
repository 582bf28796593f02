"""What a fault replaces is there: also of faults that only the nightly run plants."""

import importlib

import pytest

from ..speculative.test_faults import FAULTS as SPECULATIVE
from .test_mutations import BACKENDS, FAULTS


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_every_fault_replaces_is_there(backend):
    replaced = {target for fault in (*FAULTS, *SPECULATIVE) for target in getattr(fault, backend)}
    for target in sorted(replaced):
        module, _, function = target.rpartition(".")
        assert hasattr(importlib.import_module(f"rskernels.{module}"), function), target
