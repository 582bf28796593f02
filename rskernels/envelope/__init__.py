"""The envelope constant M as state, learnt from log ratios, and ``estimate_M`` from logits."""

from rskernels.envelope.envelope import (
    Envelope,
    EnvelopeCounts,
    EnvelopeReport,
    EnvelopeViolation,
    NoFiniteM,
)
from rskernels.envelope.estimate import estimate_M

__all__ = [
    "Envelope",
    "EnvelopeCounts",
    "EnvelopeReport",
    "EnvelopeViolation",
    "NoFiniteM",
    "estimate_M",
]
