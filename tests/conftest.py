"""What every test has: backends, poisoned memory and threads as before. Helpers are in support/."""

import os
import signal
from pathlib import Path

import pytest

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # The workers share the cores; torch reads this when it is loaded.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // workers)))

import torch

if not torch.cuda.is_available():
    # Triton reads this when its kernels are defined; they then run in NumPy on CPU tensors.
    os.environ["TRITON_INTERPRET"] = "1"

from .support.backends import backend_of
from .support.interpreter.arithmetic import accumulate_dots, fuse_multiply_add, round_bfloat16
from .support.interpreter.speed import speed_up
from .support.interpreter.together import run_together
from .support.memory import poisoned

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # In the background of a shell Ctrl-C is ignored, which tests send.
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / "build" / "numba"))
# It keeps calls of operators by the places of their arguments, which another tree's may not share.
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR", str(Path(__file__).parents[1] / "build" / "inductor")
)


def pytest_configure(config):
    # NumPy, which then runs the Triton kernels, tells of every infinite ratio and empty row.
    config.addinivalue_line("filterwarnings", "ignore::RuntimeWarning:triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        if speed_up():
            run_together()
        fuse_multiply_add()
        accumulate_dots()
        round_bfloat16()


LONGEST = ("test_compile_ahead.py", "test_compile_linear.py", "test_mutations.py")


def pytest_collection_modifyitems(items):
    # What takes longest begins first, so that no worker is left with it at the end.
    items.sort(key=_is_short)


def _is_short(item):
    return item.path.name not in LONGEST, "benchmarks" not in item.path.parts


@pytest.fixture(autouse=True, scope="session")
def poisoned_memory():
    """Fill fresh memory, so that an element which no kernel wrote is seen."""
    with poisoned():
        yield


@pytest.fixture
def threads():
    """Set torch's thread count for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


TRITON = pytest.param("gpu", marks=pytest.mark.triton)


@pytest.fixture(params=["reference", "cpu", TRITON])
def backend(request):
    """Every backend: for what holds of the definition too."""
    return backend_of(request.param)


@pytest.fixture(params=["cpu", TRITON])
def kernel(request):
    """The backends that are compared with the reference."""
    return backend_of(request.param)


@pytest.fixture
def cpu():
    return backend_of("cpu")


@pytest.fixture(params=[TRITON])
def gpu(request):
    return backend_of(request.param)
