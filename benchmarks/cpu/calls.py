"""The calls of a case, by name.

``rskernels``, ``full pass``, ``eager FORM``, ``compiled FORM`` and ``limit READER``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from benchmarks.common import baselines
from benchmarks.common.cases import Case, Inputs
from benchmarks.cpu import read_limit


def names(case: Case) -> list[str]:
    """Return every call that computes a case in float32, and the reads that bound it."""
    exact = [name for name, form in baselines.eager(case).items() if form.is_exact]
    return [
        "rskernels",
        *(f"eager {name}" for name in exact),
        *(f"compiled {name}" for name in exact if name in baselines.COMPILED),
        *(f"limit {name}" for name in read_limit.READERS),
    ]


def call(case: Case, name: str, inputs: Inputs) -> Callable[[], Any]:
    """Return a call with its inputs bound."""
    kind, _, form = name.partition(" ")
    if kind == "limit":
        return functools.partial(read_limit.READERS[form], inputs.logits)
    if kind == "eager":
        function = baselines.eager(case)[form].function
    elif kind == "full":
        function = baselines.full(case)
    elif kind == "compiled":
        function = baselines.compiled(case, form)
    else:
        function = baselines.ours(case)
    return functools.partial(function, *inputs)
