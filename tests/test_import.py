"""What ``import rskernels`` loads, and how long it and the first call take."""

import json

import pytest

from .support.processes import run_python

# Seconds of processor time, the least of several processes: the tests beside it only add to them.
IMPORT_LIMIT = 0.15
FIRST_CALL_LIMIT = 1.0

LAZY = ("numba", "llvmlite", "triton", "sklearn", "matplotlib", "typer", "rich", "scipy")

LOADED = """
import json, sys, torch
before = set(sys.modules)
import rskernels
print(json.dumps(sorted(set(sys.modules) - before)))
"""

TIMES = """
import gc, json, os, torch

def now():
    return sum(os.times()[:4])

targets = torch.tensor([0, 1, 2, 3])
logits = torch.zeros(4, 1000)
# Of what torch has made: it falls due at any import that follows.
gc.collect()
start = now()
import rskernels
imported = now()
rskernels.accept_mask(logits, 0.5, 1.0, targets=targets, seed=1)
called = now()
rskernels.accept_mask(logits, 0.5, 1.0, seed=1)
rskernels.bernoulli_mask(logits, seed=1)
rskernels.target_log_prob(logits.requires_grad_(), targets).sum().backward()
every = now()
print(json.dumps([imported - start, called - imported, every - imported]))
"""


@pytest.mark.process
def test_import_leaves_compilers_and_tools_alone():
    loaded = json.loads(run_python(LOADED))
    assert "rskernels.ops" in loaded
    assert [name for name in loaded if name.partition(".")[0] in LAZY] == []


@pytest.mark.process
def test_import_and_first_call_are_quick():
    run_python(TIMES)  # warms the cache of compiled kernels
    runs = [json.loads(run_python(TIMES)) for _ in range(3)]
    imports, first, every = map(min, zip(*runs, strict=True))
    assert imports <= IMPORT_LIMIT, f"import took {imports:.3f} s"
    assert first <= FIRST_CALL_LIMIT, f"the first call took {first:.3f} s"
    assert every <= FIRST_CALL_LIMIT, f"the first calls of all operations took {every:.3f} s"


def test_public_names_exist_and_are_documented():
    import rskernels

    for name in rskernels.__all__:
        assert getattr(rskernels, name).__doc__, name
    assert rskernels.__version__
