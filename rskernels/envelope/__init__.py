"""The envelope constant M: as state, learnt from log ratios, or estimated from logits.

``envelope`` decides by M and learns it by ``options`` and ``policies``, ``control`` weighs and
``thinning`` takes back what a larger ratio biases, ``report`` says what M costs; ``estimate`` takes
it from logits. ``state`` and ``storage`` keep what was seen: ``rows`` are checked, and those of a
``device`` wait there in sums of ``units``.
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
