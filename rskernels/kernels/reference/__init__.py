"""The definition of every operation, in float64 torch. Read ``rows`` first."""

from rskernels.kernels.reference import linear, speculative
from rskernels.kernels.reference.rows import (
    bernoulli,
    decide,
    decide_ratios,
    log_softmax,
    mask,
    natural_log,
    philox,
    target_log_prob,
)

__all__ = [
    "bernoulli",
    "decide",
    "decide_ratios",
    "linear",
    "log_softmax",
    "mask",
    "natural_log",
    "philox",
    "speculative",
    "target_log_prob",
]
