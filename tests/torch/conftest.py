"""Fixtures of the torch tests: layouts of one tensor, and compilers that start afresh."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

LAYOUTS = [
    "contiguous", "sliced", "transposed", "expanded", "expanded-classes", "no-rows", "one-row",
]  # fmt: skip


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return request.param


def _inputs(layout="contiguous", dtype=torch.float32):
    """Return logits of a layout and int64 targets."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 6, 11, generator=generator).to(dtype)
    logits = {
        "contiguous": lambda: logits,
        "sliced": lambda: logits[:, :-1, 2:9],
        "transposed": lambda: logits.transpose(0, 2),
        "expanded": lambda: logits[:1].expand(3, -1, -1),
        "expanded-classes": lambda: logits[..., :1].expand(-1, -1, 5),
        "no-rows": lambda: logits[:, :0],
        "one-row": lambda: logits[0, 0],
    }[layout]()
    targets = torch.arange(logits.shape[:-1].numel()).view(logits.shape[:-1]) % logits.shape[-1]
    return logits, targets


@pytest.fixture
def draw_inputs():
    return _inputs


@pytest.fixture
def counted():
    """Compile a function in one graph and return it with the counter of its compilations."""

    def count(function, backend="aot_eager", **how):
        counter = CompileCounterWithBackend(backend)
        return torch.compile(function, fullgraph=True, backend=counter, **how), counter

    # Nothing is left of what was compiled before.
    torch._dynamo.reset()
    yield count
    torch._dynamo.reset()


@pytest.fixture
def compiled(counted):
    """Compile a function in one graph."""
    return lambda function, **how: counted(function, **how)[0]
