"""Rejection sampling as a fused, exact PyTorch operation."""

from rskernels.envelope import Envelope, estimate_M
from rskernels.law import philox4x32, uniforms
from rskernels.ops import (
    Acceptance,
    ColumnOrder,
    LinearLogits,
    SequenceAcceptance,
    SpeculativeResult,
    accept,
    accept_mask,
    accept_prefix,
    accept_sequences,
    accepted_mean,
    bernoulli,
    bernoulli_mask,
    masked_mean,
    speculative_sample,
    target_log_prob,
    verify,
    verify_mask,
)
from rskernels.sampling import RejectionError, RejectionResult, rejection_sample

__version__ = "0.1.0"

__all__ = [
    "Acceptance",
    "ColumnOrder",
    "Envelope",
    "LinearLogits",
    "RejectionError",
    "RejectionResult",
    "SequenceAcceptance",
    "SpeculativeResult",
    "accept",
    "accept_mask",
    "accept_prefix",
    "accept_sequences",
    "accepted_mean",
    "bernoulli",
    "bernoulli_mask",
    "estimate_M",
    "masked_mean",
    "philox4x32",
    "rejection_sample",
    "speculative_sample",
    "target_log_prob",
    "uniforms",
    "verify",
    "verify_mask",
]
