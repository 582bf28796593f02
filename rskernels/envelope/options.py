"""What an envelope is made with: a policy, a number of groups, and what violations lead to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from rskernels._python.integers import as_integer
from rskernels.envelope.policies import Policy

REACTIONS = ("cap", "raise", "thin", "control")


@dataclass(frozen=True)
class Options:
    """The options of an envelope, checked.

    Raises
    ------
    TypeError, ValueError
        If the number of groups or the reaction is none that an envelope takes.
    """

    policy: Policy
    groups: int
    on_violation: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", as_integer("groups", self.groups))
        if self.groups < 1:
            raise ValueError(f"groups must be at least 1, got {self.groups}")
        # No address space holds so many, which the core's vectors would say in their own words.
        if self.groups >= 2**48:
            raise ValueError(f"groups must be below 2**48, got {self.groups}")
        if self.on_violation not in REACTIONS:
            raise ValueError(
                f"on_violation must be one of {', '.join(REACTIONS)}, got {self.on_violation!r}"
            )
        # Not NumPy's str, which a state dict could not hold.
        object.__setattr__(self, "on_violation", str(self.on_violation))

    def to_dict(self) -> dict[str, Any]:
        """Return them as a state dict holds them: flat, None for what the policy does not take."""
        numbers = self.policy.numbers
        return {
            "policy": self.policy.name,
            "level": numbers.get("level"),
            "groups": self.groups,
            "half_life": numbers.get("half_life"),
            "M": numbers.get("M"),
            "rate": numbers.get("rate"),
            "confidence": numbers.get("confidence"),
            "on_violation": self.on_violation,
        }

    def check_equal(self, other: Mapping[str, Any]) -> None:
        """Raise TypeError or ValueError unless another's `to_dict` has the same options."""
        for name, value in other.items():
            if name in ("policy", "on_violation"):
                fits, kind = isinstance(value, str), "a str"
            elif name == "groups":
                fits = isinstance(value, Integral) and not isinstance(value, bool)
                kind = "an int"
            else:
                fits = value is None or (isinstance(value, Real) and not isinstance(value, bool))
                kind = "a float or None"
            # Of other types values may not be compared.
            if not fits:
                raise TypeError(f"state[{name!r}] must be {kind}, got {type(value).__name__}")
        ours = self.to_dict()
        if dict(other) != ours:
            raise ValueError(f"the envelopes differ: this one is {ours}, the other {dict(other)}")
