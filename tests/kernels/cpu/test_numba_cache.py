"""Compiled kernels that one process cached are used by the next, and are the right ones.

Compiled code calls its parts by names that hold a number of the process that compiled it. A process
that loads the code of several must not be handed another dtype's part.
"""

import ast
import itertools
from pathlib import Path

import pytest

from rskernels import kernels

from ...support.kernel_cache import run_with_cache

OPERATIONS = ("target", "dense", "log_prob", "gradient")
DTYPES = ("float32", "float64", "bfloat16", "float16")
QUICK = ("log_prob", "gradient"), ("float64", "bfloat16")  # to compile

RUN = """
import torch
from rskernels.kernels import cpu, reference
from rskernels.law.decision import Law

def check(operation, name):
    dtype = getattr(torch, name)
    logits = torch.randn(3, 100, generator=torch.Generator().manual_seed(0)).to(dtype)
    targets = torch.tensor([0, 50, 99])
    law = Law(0.02, 1.0, 5)
    if operation in ("target", "dense"):
        form = targets if operation == "target" else None
        got, want = cpu.decide(logits, form, law), reference.decide(logits, form, law)
        assert torch.equal(got[0], want[0]), (operation, name)
        got, want = got[1], want[1]
    else:
        leaf = logits.double().requires_grad_()
        want = torch.log_softmax(leaf, -1).gather(-1, targets[:, None])[:, 0]
        got, totals = cpu.target_log_prob(logits, targets, 1.0, -100)
        if operation == "gradient":
            upstream = torch.ones_like(got)
            got = cpu.target_log_prob_backward(upstream, logits, targets, totals, 1.0, -100)
            assert got.dtype == dtype, (operation, name)
            want = torch.autograd.grad(want.sum(), leaf)[0]
    near = 1e-2 if got.dtype in (torch.bfloat16, torch.float16) else 1e-5
    assert ((got.double() - want.double()).abs() <= near).all(), (operation, name)

for operation, name in {order}:
    check(operation, name)

from rskernels.kernels.cpu.cache import made
for kernel in made():
    for _ in range(sum(kernel.stats.cache_misses.values())):
        print(kernel.__name__)
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("operations", "dtypes"),
    [QUICK, pytest.param(OPERATIONS, DTYPES, marks=pytest.mark.slow)],
    ids=["two", "all"],
)
def test_kernels_of_other_processes_are_the_right_ones(tmp_path, operations, dtypes):
    def compiled(pairs):
        code = RUN.replace("{order}", repr(list(pairs)))
        return run_with_cache(tmp_path, code).split()

    # Each compiles alone, so that all number their functions alike.
    for operation in operations:
        for dtype in dtypes:
            assert compiled([(operation, dtype)])
    assert not compiled(itertools.product(operations[::-1], dtypes))


def test_every_function_made_in_a_factory_is_named_apart():
    # Closures that share a name and argument types may be taken for each other.
    compiled = 0
    for path in Path(kernels.__path__[0]).glob("cpu/**/*.py"):
        for factory in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(factory, ast.FunctionDef):
                continue
            for inner in factory.body:
                if not isinstance(inner, ast.FunctionDef):
                    continue
                decorators = [ast.unparse(decorator) for decorator in inner.decorator_list]
                if any(text.startswith(("njit", "inner")) for text in decorators):
                    compiled += 1
                    assert any("named(" in text for text in decorators), f"{path}: {inner.name}"
    assert compiled > 3
