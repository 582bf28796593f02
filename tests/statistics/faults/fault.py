"""What a planted fault is: changes of the source of each backend, and the check that finds it."""

from collections.abc import Callable
from typing import NamedTuple

Change = tuple[str, str, str]

LAW, REFERENCE = "law/philox.py", "kernels/reference/rows.py"
LANES, LANE_LAW = "kernels/cpu/lanemath.py", "kernels/cpu/law.py"
DECIDE, DENSE = "kernels/cpu/decide.py", "kernels/cpu/dense.py"
ROW, SOFTMAX = "kernels/cpu/turns.py", "kernels/cpu/softmax.py"
TRITON = "kernels/gpu/decide.py"

# What each backend makes of two words.
UNIFORM = {
    "reference": "return torch.where(w0 < SMALL_WORD, small, large)",
    "cpu": "return builder.fmul(builder.sitofp(integer, floats), scale)",
    "gpu": "return tl.where(small, u_small, u_large)",
}
SECOND_WORD = {
    "reference": "2 * w1 + 1",
    "cpu": "builder.or_(builder.shl(both, number(1)), number(1))",
    "gpu": "(w1.to(tl.int64) << 1) + 1",
}
# How each backend compares, and which row's uniform it takes, where the ratio is given.
COMPARISON = {
    "reference": "log_ratio - log_M >= u.double().log()",
    "cpu": "values - log_M, valid, words",
    "gpu": "log_w - log_m >= tl.log(u.to(tl.float64))",
}
ROW_IDS = {
    "reference": "row_offset + torch.arange(log_ratio.numel(), device=log_ratio.device)",
    "cpu": "row_words(row_offset + n, stream, seed)",
    "gpu": "_uniform(row_offset.to(tl.int64) + rows,",
}


class Fault(NamedTuple):
    """What is wrong, the check that finds it, and (file, text, replacement) for each backend."""

    name: str
    check: Callable[..., None]
    reference: tuple[Change, ...] = ()
    cpu: tuple[Change, ...] = ()
    gpu: tuple[Change, ...] = ()
    nightly: tuple[str, ...] = ()
    """Backends in which it takes seconds, and that are spared it in an ordinary run."""


def of_uniform(name, check, *, where=UNIFORM, nightly=(), **replacements):
    """Return the fault that replaces a text of the uniform law in several backends."""
    files = {"reference": LAW, "cpu": LANES, "gpu": TRITON}
    return _of(name, check, files, where, nightly, replacements)


def of_bernoulli(name, check, *, where=COMPARISON, nightly=(), **replacements):
    """Return the fault that replaces a text of the decision on given ratios."""
    files = {"reference": REFERENCE, "cpu": DECIDE, "gpu": TRITON}
    return _of(name, check, files, where, nightly, replacements)


def _of(name, check, files, where, nightly, replacements):
    changes = {at: ((files[at], where[at], new),) for at, new in replacements.items()}
    return Fault(name, check, **changes, nightly=nightly)
