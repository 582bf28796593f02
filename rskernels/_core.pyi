"""The C++ core. Its public face is :mod:`rskernels.envelope`."""

from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]
_Layout = tuple[int, int, int, int]
_DType = Literal["float32", "float64", "bfloat16", "float16"]
_Policy = Literal["max", "quantile"]

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
    @property
    def ignored(self) -> int: ...
    def quantile(self, level: float) -> float: ...

class _State(TypedDict):
    seen: _Ints
    violations: _Ints
    invalid: _Ints
    max_log_ratio: _Floats
    unit: _Floats
    bin_start: _Ints
    bin_edge: _Floats
    bin_count: _Floats

class Envelope:
    def __init__(
        self, policy: _Policy, level: float, groups: int, half_life: float | None
    ) -> None: ...
    def update(self, log_ratio: _Floats, group_ids: _Ints | None = None) -> None: ...
    def merge(self, other: Envelope) -> None: ...
    def log_M(self, group_ids: _Ints | None = None) -> _Floats: ...
    def counts(self) -> tuple[_Ints, _Ints, _Ints]: ...
    def state(self) -> _State: ...
    def restore(self, arrays: _State) -> None: ...

def target_log_ratios(
    logits: MatrixView,
    targets: _Ints,
    p_hat: _Floats,
    *,
    ignore_index: int,
    temperature: float,
    log_space: bool,
    with_histogram: bool,
    threads: int,
) -> RatioSummary: ...
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
