"""What one call of ``rejection_sample`` asks for, checked."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from rskernels.ops.arguments import integer_argument


@dataclass(frozen=True)
class SamplingOptions:
    """How many draws, and how far to go for them; see :func:`rskernels.rejection_sample`.

    Raises
    ------
    TypeError, ValueError
        If one is of another type or out of range.
    """

    num_samples: int
    pilot: int
    batch_size: int | None
    max_proposals: int | None
    max_seconds: float | None
    min_acceptance: float
    return_partial: bool

    def __post_init__(self) -> None:
        _check_count("num_samples", self.num_samples, 0)
        _check_count("pilot", self.pilot, 1)
        if self.batch_size is not None:
            _check_count("batch_size", self.batch_size, 1)
        if self.max_proposals is not None:
            _check_count("max_proposals", self.max_proposals, 1)
        if self.max_seconds is not None:
            _check_positive("max_seconds", self.max_seconds)
        _check_positive("min_acceptance", self.min_acceptance)
        if self.min_acceptance > 1.0:
            raise ValueError(f"min_acceptance must be in (0, 1], got {self.min_acceptance}")


def _check_count(name: str, value: int, least: int) -> None:
    if integer_argument(name, value) < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _check_positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a float, got {type(value).__name__}")
    if not value > 0.0:
        raise ValueError(f"{name} must be above 0, got {value}")
