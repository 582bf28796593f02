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
from rskernels.kernels.reference.sequences import accept_prefix, decide_sequences

__all__ = [
    "accept_prefix",
    "bernoulli",
    "decide",
    "decide_ratios",
    "decide_sequences",
    "linear",
    "log_softmax",
    "mask",
    "natural_log",
    "philox",
    "speculative",
    "target_log_prob",
]
