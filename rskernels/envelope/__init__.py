"""The envelope constant M: as state, learnt from log ratios, or estimated from logits.

``envelope`` decides by M and learns it, ``policies`` say how it follows from the ratios, ``report``
what it costs; ``estimate`` takes it from logits.
"""

from rskernels._core import NoFiniteM
from rskernels.envelope.envelope import Envelope
from rskernels.envelope.estimate import estimate_M
from rskernels.envelope.report import EnvelopeCounts, EnvelopeReport, EnvelopeViolation

__all__ = [
    "Envelope",
    "EnvelopeCounts",
    "EnvelopeReport",
    "EnvelopeViolation",
    "NoFiniteM",
    "estimate_M",
]
