"""What the project requires of its speed: every number that a measurement is judged by."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.common.cases import (
    BAR,
    BAR_ESTIMATE,
    BAR_SMALL,
    DENSE,
    DENSE_SMALL,
    LAZY_SHAPES,
    Case,
)


class Required(NamedTuple):
    """The least of a measure of a CPU case; ``measure`` is a property of the report's row."""

    case: Case
    measure: str
    least: float


# How many times faster than its own full pass verify_mask is, by the share accepted: it leaves rows
# early, and costs at most 5 % where it cannot.
LAZY_SPEED = {0.001: 9.0, 0.01: 5.0, 0.1: 1.3, 0.5: 1 / 1.05, 1.0: 1 / 1.05}

CPU = [
    Required(BAR, "over_torch", 2.0),
    Required(BAR, "over_eager", 8.0),
    Required(BAR, "share", 0.6),
    Required(BAR, "over_compiled", 2.2),
    Required(Case("accept_mask", 2048, 32000, "bfloat16"), "share", 0.4),
    *(Required(case, "over_eager", 8.0) for case in DENSE),
    *(Required(case, "over_compiled", 12.0) for case in DENSE),
    *(Required(case, "over_eager", 1.0) for case in DENSE_SMALL),
    *(
        Required(Case("verify_mask", *shape, acceptance=share), "over_full", least)
        for shape in LAZY_SHAPES
        for share, least in LAZY_SPEED.items()
    ),
    Required(BAR_ESTIMATE, "share", 0.45),
    Required(BAR_SMALL, "over_eager", 1.0),
]
# The most extra memory of these cases, as a share of the logits.
CPU_MEMORY = 0.01
CPU_MEMORY_CASES = (BAR, BAR_ESTIMATE)

# accept_mask on the largest shape, of the bandwidth of a copy on the device.
GPU_COPY_SHARE = 0.85

# Envelope.update of float32 log ratios: of the read limit, times NumPy, and rows a second.
ENVELOPE_LIMIT_SHARE = 0.4
ENVELOPE_NUMPY_TIMES = 5.0
ENVELOPE_QUANTILE_ROWS = 20e6
ENVELOPE_GROUPED_ROWS = 100e6

# rejection_sample: times sbi's draws a second, and of torch's proposals a second.
SBI_TIMES = 10.0
TORCH_SHARE = 0.25

# Seconds of this tree over those of an earlier revision.
BASE_RATIO = 1.03
