"""How M follows from the log ratios: one frozen dataclass a policy, which checks its own numbers.

``Envelope("quantile", level=0.9)`` and ``Envelope.parse("quantile:0.9")`` make a ``Quantile``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from numbers import Real
from typing import Any, ClassVar

# What a text may be, where `parse_spec` refuses another.
TEXTS = (
    "'max', 'leave_one_out', 'tail', 'fixed:M', 'decayed:HALF_LIFE', 'budget:RATE' with RATE in "
    "(0, 1] or 'quantile:LEVEL' with LEVEL in (0, 1]"
)


@dataclass(frozen=True)
class Policy:
    """How M follows from the log ratios; its numbers are the fields of the subclass.

    Raises
    ------
    TypeError, ValueError
        By every subclass, if a number is no number or lies outside of what is accepted.
    """

    name: ClassVar[str]
    parameter: ClassVar[str | None] = None
    """The number that the policy's text carries after the colon."""

    @property
    def text(self) -> str:
        """The policy as `parse_spec` reads it; other numbers than the parameter are left out."""
        if self.parameter is None:
            return self.name
        return f"{self.name}:{getattr(self, self.parameter)!r}".removesuffix(".0")

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers that are not None, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def _check(self, name: str, interval: str, contains: Callable[[float], bool]) -> None:
        """Make a field a float, and raise unless it lies in the interval."""
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, Real):
            kind = type(value).__name__
            raise TypeError(f"{name} must be a float in {interval}, got {kind}")
        if not contains(number := _as_float(value)):
            raise ValueError(f"{name} must be in {interval}, got {value}")
        object.__setattr__(self, name, number)

    def _check_half_life(self, value: float | None) -> None:
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"half_life must be a float, got {type(value).__name__}")
        if not 1.0 <= (number := _as_float(value)) < math.inf:
            raise ValueError(f"half_life must be finite and at least 1 sample, got {value}")
        object.__setattr__(self, "half_life", number)


@dataclass(frozen=True)
class Fixed(Policy):
    """M is given. Nothing is learnt; violations and bias are reported."""

    name: ClassVar[str] = "fixed"
    parameter: ClassVar[str | None] = "M"
    M: float
    """Positive and finite."""

    def __post_init__(self) -> None:
        self._check("M", "(0, inf)", lambda M: 0.0 < M < math.inf)


@dataclass(frozen=True)
class Max(Policy):
    """M is the largest ratio seen (empirical supremum, Caffo, Booth & Davison 2002).

    Where the true supremum is finite M rises to it, and the accepted law tends to the target; a
    fresh ratio of the same continuous law exceeds the largest of n with probability 1 / (n + 1).

    References
    ----------
    Caffo, Booth & Davison, "Empirical supremum rejection sampling", Biometrika 89, 2002.
    """

    name: ClassVar[str] = "max"


@dataclass(frozen=True)
class LeaveOneOut(Policy):
    """M of a row is the largest ratio of the history and of the *other* rows of its batch.

    Of the same group, from ``log_M(groups, log_ratio=...)``: no row decides its own M, and none
    need wait for a pilot but the only row of a first batch. A batch's largest ratio is a violation
    where it is above the history.
    """

    name: ClassVar[str] = "leave_one_out"


@dataclass(frozen=True)
class Decayed(Policy):
    """A maximum that forgets: M halves with every half-life, and is at least the newest ratio.

    A ratio at age t exceeds M by a factor of at most 2^(t / half_life); an outlier of 2^k times
    the others is forgotten after k half-lives.
    """

    name: ClassVar[str] = "decayed"
    parameter: ClassVar[str | None] = "half_life"
    half_life: float
    """In valid samples; at least 1."""

    def __post_init__(self) -> None:
        self._check_half_life(self.half_life)


@dataclass(frozen=True)
class Quantile(Policy):
    """M is a quantile of the ratios seen, from a histogram of log ratios with bins of 1/256.

    At least the ratio of rank ``ceil(level * n)`` and less than 0.4 % above it; the rank has no
    error but for the samples of that one bin (DDSketch, Masson, Rim & Lee 2019). About a share
    ``1 - level`` of the rows violates the envelope, by design.

    References
    ----------
    Masson, Rim & Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
    guarantees", PVLDB 12, 2019. David & Nagaraja, "Order Statistics", 2003.
    """

    name: ClassVar[str] = "quantile"
    parameter: ClassVar[str | None] = "level"
    level: float
    """In (0, 1]."""
    half_life: float | None = None
    """A valid sample weighs half as much after this many further valid samples of its group; None
    forgets nothing."""
    confidence: float | None = None
    """M is the order statistic that is at least the true quantile with this probability, whatever
    the continuous law (David & Nagaraja 2003); below the n where ``1 - level**n`` reaches it, the
    largest ratio, which is above with that lower probability."""

    def __post_init__(self) -> None:
        self._check("level", "(0, 1]", lambda level: 0.0 < level <= 1.0)
        self._check_half_life(self.half_life)
        if self.confidence is None:
            return
        if self.half_life is not None or self.level == 1.0:
            raise ValueError(
                "confidence is for 'quantile' with a level below 1 and without half_life: a bound "
                "that holds for any distribution needs the rank of every sample"
            )
        self._check("confidence", "(0, 1)", lambda confidence: 0.0 < confidence < 1.0)


@dataclass(frozen=True)
class Budget(Policy):
    """M is 1/c with E[min(1, c·w)] = rate over the ratios seen.

    Of all rules of that acceptance the one closest to p in every f-divergence (Verine et al.
    2024). The histogram keeps the mean ratio of each bin, so only the bin that holds M adds an
    error, below 1e-5. Where fewer than ``rate`` of the ratios are above 0, M is the smallest of
    those.

    References
    ----------
    Verine, Pydi, Negrevergne & Chevaleyre, "Optimal budgeted rejection sampling for generative
    models", AISTATS 2024.
    """

    name: ClassVar[str] = "budget"
    parameter: ClassVar[str | None] = "rate"
    rate: float
    """The acceptance wanted, in (0, 1]."""
    half_life: float | None = None
    """With it older ratios are forgotten as by ``Quantile``, and an integral controller, driven by
    the mean of min(1, w/M), holds the rate while the ratios drift."""

    def __post_init__(self) -> None:
        self._check("rate", "(0, 1]", lambda rate: 0.0 < rate <= 1.0)
        self._check_half_life(self.half_life)


@dataclass(frozen=True)
class Tail(Policy):
    """M is an upper bound of the end of a generalised Pareto law of the largest ratios.

    The upper end of the 95 % interval for that end, from the largest ``ceil(3 √S)`` of S ratios
    (S / 5 below 226; at most 4,095), so the supremum is above M with probability 2.5 % where that
    law holds (Coles 2001). Where one positive ratio fills the whole of that tail, as with a p that
    is a multiple of q, it is M. NaN below 25 ratios, and with fewer than five above the tail's
    threshold otherwise. Where its shape is not negative or not known to be, ``NoFiniteM``; NaN if
    another group has an M.

    References
    ----------
    Coles, "An Introduction to Statistical Modeling of Extreme Values", 2001.
    """

    name: ClassVar[str] = "tail"


POLICIES: dict[str, type[Policy]] = {
    policy.name: policy for policy in (Fixed, Max, LeaveOneOut, Decayed, Quantile, Budget, Tail)
}

FORGETTING = tuple(
    name
    for name, policy in POLICIES.items()
    if any(field.name == "half_life" for field in fields(policy))
)
# What is said of a number that a policy lacks.
_ACCEPTED = {
    "M": "in (0, inf)",
    "half_life": "of at least 1 sample",
    "level": "in (0, 1]",
    "rate": "in (0, 1]",
}


def make_policy(name: str, **numbers: float | None) -> Policy:
    """Return the policy of this name; numbers that are None are left out.

    Raises
    ------
    TypeError, ValueError
        If there is no such policy, if it lacks a number or has no use for one, or if a number is
        not what the policy accepts.
    """
    check_name(name)
    policy = POLICIES[name]
    present = {number: value for number, value in numbers.items() if value is not None}
    accepted = {field.name: field for field in fields(policy)}
    for number, value in present.items():
        if number not in accepted:
            raise ValueError(
                f"{number} is for {_owners(number)} only, got {number}={value} with {name!r}"
                + (": a maximum does not decay" if number == "half_life" and name == "max" else "")
            )
    for number, field in accepted.items():
        if field.default is MISSING and number not in present:
            raise ValueError(f"{name!r} needs a {number} {_ACCEPTED[number]}, got none")
    return policy(**present)


def check_name(name: str) -> None:
    """Raise ValueError if there is no policy of this name."""
    if not isinstance(name, str) or name not in POLICIES:
        raise ValueError(
            f"policy must be one of {', '.join(POLICIES)}, got {name!r}; Envelope.parse reads "
            "'quantile:LEVEL' and the like"
        )


def parse_spec(text: str) -> tuple[str, dict[str, float]]:
    """Return the policy of a text such as ``quantile:0.9``, and its parameter by name.

    Raises
    ------
    TypeError, ValueError
        If it is no such text.
    """
    if not isinstance(text, str):
        raise TypeError(f"an envelope is a str, {TEXTS}; got {type(text).__name__}")
    name, separator, number = text.partition(":")
    parameter = POLICIES[name].parameter if name in POLICIES else None
    try:
        # The half-life of "decayed" may be given apart.
        missing = parameter is not None and not separator and name != "decayed"
        if name not in POLICIES or missing or (separator and parameter is None):
            raise ValueError
        return name, {parameter: float(number)} if parameter is not None and separator else {}
    except ValueError:
        raise ValueError(f"an envelope is {TEXTS}, got {text!r}") from None


def _as_float(value: Any) -> float:
    """Return a number as a float, infinity for an int that is beyond them."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _owners(number: str) -> str:
    """Return the names of the policies that take a number, those that need it last."""
    owners = [
        (field.default is MISSING, repr(name))
        for name, policy in POLICIES.items()
        for field in fields(policy)
        if field.name == number
    ]
    *others, last = (name for _, name in sorted(owners, key=lambda owner: owner[0]))
    return f"{', '.join(others)} and {last}" if others else last
