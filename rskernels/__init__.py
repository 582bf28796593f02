"""Rejection sampling as a fused, exact PyTorch operation."""

from rskernels.columns import ColumnOrder
from rskernels.envelope import Envelope, estimate_M
from rskernels.ops import (
    Acceptance,
    accept,
    accept_mask,
    bernoulli_mask,
    target_log_prob,
    verify,
    verify_mask,
)
from rskernels.random import philox4x32, uniforms

__version__ = "0.1.0"

__all__ = [
    "Acceptance",
    "ColumnOrder",
    "Envelope",
    "accept",
    "accept_mask",
    "bernoulli_mask",
    "estimate_M",
    "philox4x32",
    "target_log_prob",
    "uniforms",
    "verify",
    "verify_mask",
]
