"""What one call of ``rejection_sample`` asks for, checked."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

from rskernels._python.integers import as_integer

MOST_SAMPLES = 2**63 - 1
OPTIONAL = ("batch_size", "max_proposals", "max_seconds")


def as_float(name: str, value: Any, accepted: str = "a float") -> float:
    """Return a real number as float64; TypeError for another type, ValueError beyond its range."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {accepted}, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        kind = type(value).__name__
        raise ValueError(f"{name} must fit float64, got a larger {kind}") from None


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
        for name, least in {
            "num_samples": 0,
            "pilot": 1,
            "batch_size": 1,
            "max_proposals": 1,
        }.items():
            self._check_count(name, least)
        if self.num_samples > MOST_SAMPLES:
            raise ValueError("num_samples must be below 2**63: no tensor holds more")
        for name in ("max_seconds", "min_acceptance"):
            self._check_positive(name)
        if self.min_acceptance > 1.0:
            raise ValueError(f"min_acceptance must be in (0, 1], got {self.min_acceptance}")

    def _check_count(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is None and name in OPTIONAL:
            return
        value = as_integer(name, value)
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
        # Python's, whose sums neither wrap nor turn into floats.
        object.__setattr__(self, name, value)

    def _check_positive(self, name: str) -> None:
        value = getattr(self, name)
        if value is None and name in OPTIONAL:
            return
        number = as_float(name, value)
        if not number > 0.0:
            raise ValueError(f"{name} must be above 0, got {value}")
        object.__setattr__(self, name, number)
