"""The C++ core. Its public face is :mod:`rskernels.envelope`."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]
_Layout = tuple[int, int, int, int]
_DType = Literal["float32", "float64", "bfloat16", "float16"]
_Policy = Literal["max", "quantile", "fixed", "leave_one_out", "decayed", "budget", "tail"]
_Reaction = Literal["cap", "raise", "thin", "control"]

TALLY_COUNTS: tuple[str, ...]
"""The columns of a state that count rows, an int64 a group."""
TALLY_SUMS: dict[str, int]
"""The columns that are sums over rows, a float64 a group, by the power of 2^exponent that is their
unit; the exponent is that of the group's largest ratio."""

class MatrixView:
    """Memory as a matrix; ``layout`` is (inner_rows, outer, inner and column stride)."""

    def __init__(
        self, data: int, dtype: _DType, rows: int, columns: int, layout: _Layout
    ) -> None: ...

class RatioSummary:
    @property
    def max_log_ratio(self) -> float: ...
    @property
    def valid(self) -> int: ...
    @property
    def invalid(self) -> int: ...
    def quantile(self, level: float) -> float: ...

class NoFiniteM(ValueError):
    """The ratios seen exclude a finite M, or do not exclude an infinite one; by ``tail`` alone."""

class Batch:
    """Log ratios, and group ids where not 0, as memory that the caller keeps alive."""

    def __init__(
        self,
        log_ratio: int,
        dtype: _DType,
        count: int,
        group_ids: int = 0,
        ids_are_int32: bool = False,
    ) -> None: ...

class Envelope:
    """A policy, with its numbers by name, over so many groups."""

    def __init__(
        self, policy: _Policy, groups: int, on_violation: _Reaction, **numbers: float
    ) -> None: ...
    def update(self, batch: Batch, threads: int) -> int: ...
    def observe(self, accepted: NDArray[np.bool_], batch: Batch) -> None: ...
    def merge(self, other: Envelope) -> None: ...
    def log_M(self, batch: Batch | None = None) -> _Floats: ...
    def tail_capacities(self) -> tuple[int, int]: ...
    def tallies(self) -> dict[str, _Ints | _Floats]: ...
    def report(self) -> tuple[dict[str, _Ints | _Floats], dict[str, _Ints | _Floats]]: ...
    def state(self) -> dict[str, _Ints | _Floats]: ...
    def restore(
        self,
        arrays: dict[str, _Ints | _Floats],
        parts: list[dict[str, _Ints | _Floats]] | None = None,
    ) -> None: ...
    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(data: bytes) -> Envelope: ...
    def options(self) -> tuple[_Policy, int, _Reaction, dict[str, float]]: ...

def dense_log_ratios(
    logits: MatrixView,
    p_hat: MatrixView,
    *,
    temperature: float,
    log_space: bool,
    with_histogram: bool,
    threads: int,
) -> RatioSummary: ...
def upper_edge(log_ratio: float) -> float: ...
