"""Which shapes the GPU run measures, in the order of what matters, and its calls on each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.common import baselines
from benchmarks.common.cases import DTYPES, Case, Inputs, Pool

ROWS = (4096, 512, 256, 128, 64, 32, 16, 1)
COLUMNS = (151936, 128256, 32000)
ACCEPTANCES = (0.001, 0.01, 0.1, 0.5)
FULL = "accept_mask"  # reads every logit


class Shape(NamedTuple):
    """Logits ``[rows, columns]`` of a dtype."""

    rows: int
    columns: int
    dtype: str

    @property
    def logits_bytes(self) -> int:
        return self.rows * self.columns * DTYPES[self.dtype].itemsize

    def case(self, operation: str, acceptance: float = 0.5) -> Case:
        return Case(operation, self.rows, self.columns, self.dtype, acceptance)

    def __str__(self) -> str:
        return f"[{self.rows}, {self.columns}] {self.dtype}"


LARGE = Shape(8192, 151936, "bfloat16")
QUICK = [Shape(64, 1000, "bfloat16"), Shape(3, 1000, "bfloat16")]


def shapes(is_quick: bool) -> list[Shape]:
    """Return the shapes, those first that are to be measured if time runs out."""
    if is_quick:
        return QUICK
    grid = [
        Shape(rows, columns, dtype)
        for columns in COLUMNS
        for rows in ROWS
        for dtype in ("bfloat16", "float32")
    ]
    return [LARGE, *grid]


def lazy_name(acceptance: float) -> str:
    return f"verify_mask {100 * acceptance:g} %"


def calls_of(shape: Shape, pool: Pool) -> dict[str, tuple[Case, Inputs]]:
    """Return rskernels' calls by name: full passes, and verify_mask at every acceptance."""
    accept, half = shape.case(FULL), shape.case("verify_mask")
    verify = pool.inputs(half)
    calls = {FULL: (accept, pool.inputs(accept)), "verify": (shape.case("verify"), verify)}
    for acceptance in ACCEPTANCES:
        # Ratios are inverse to densities, so that one draw serves every acceptance.
        scaled = verify._replace(density=verify.density * (half.acceptance / acceptance))
        calls[lazy_name(acceptance)] = (shape.case("verify_mask", acceptance), scaled)
    return calls


def bind(case: Case, inputs: Inputs) -> Callable[[], Any]:
    """Return a call of rskernels."""
    return functools.partial(baselines.ours(case), *inputs)
