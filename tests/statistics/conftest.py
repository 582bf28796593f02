"""What the statistical tests share: whom they ask, how much of it, and the seeds of a run.

Seeds are fixed; another RSKERNELS_TEST_SEED in the environment gives every test fresh ones.
"""

import hashlib
import os

import pytest
import torch

from ..support.backends import backend_of
from .public import Public

ON_GPU = torch.cuda.is_available()
RUN_SEED = int(os.environ.get("RSKERNELS_TEST_SEED", "0"))

KINDS = [
    "reference",
    "cpu",
    pytest.param(
        "interpreted",
        marks=[
            pytest.mark.triton,
            pytest.mark.skipif(ON_GPU, reason="Triton runs on the GPU"),
        ],
    ),
    pytest.param(
        "gpu",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not ON_GPU, reason="needs a CUDA or ROCm device"),
        ],
    ),
    pytest.param("reference-full", marks=pytest.mark.slow),
]


@pytest.fixture(name="backend_of")
def _backend_of():
    return backend_of


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def subject(kind):
    """Who decides: a backend's module, or the public functions where they reach that backend."""
    if kind in ("cpu", "gpu"):
        return Public(backend_of(kind))
    return backend_of("gpu" if kind == "interpreted" else "reference")


@pytest.fixture
def size(kind):
    """Choose how much is drawn: the float64 reference and the interpreter are slow."""

    def choose(full, *, reference, interpreted):
        return {"reference": reference, "interpreted": interpreted}.get(kind, full)

    return choose


@pytest.fixture
def seed(request):
    """The test's own seed, the same for every backend; of 62 bits, so that others lie near it."""
    name = f"{RUN_SEED} {request.path.name} {request.node.originalname}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 2


@pytest.fixture(autouse=True)
def _draws_with_the_runs_seed(request):
    """Refuse a test of a statistic whose draws a nightly run could not renew."""
    if request.path.name.startswith("test_t") and "seed" not in request.fixturenames:
        pytest.fail("a test of a statistic takes its draws from the `seed` fixture")
