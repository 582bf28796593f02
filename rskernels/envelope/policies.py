"""What an envelope may be told: the policy of M, its parameter, and what violations lead to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

POLICIES = ("fixed", "max", "leave_one_out", "decayed", "quantile", "budget", "tail")
REACTIONS = ("cap", "raise", "thin", "control")

# The parameter that a policy's text carries after the colon, as `Envelope.parse` reads it.
PARAMETERS = {"fixed": "M", "decayed": "half_life", "quantile": "level", "budget": "rate"}
TEXTS = (
    "'max', 'leave_one_out', 'tail', 'fixed:M', 'decayed:HALF_LIFE', 'budget:RATE' with RATE in "
    "(0, 1] or 'quantile:LEVEL' with LEVEL in (0, 1]"
)
FORGETTING = ("quantile", "budget", "decayed")


class Options(NamedTuple):
    """The options of an envelope, checked; None where the policy takes none."""

    policy: str
    level: float | None
    groups: int
    half_life: float | None
    M: float | None
    rate: float | None
    confidence: float | None
    on_violation: str

    def spec(self) -> str:
        """Return the policy as `Envelope.parse` reads it."""
        name = PARAMETERS.get(self.policy)
        if name is None:
            return self.policy
        return f"{self.policy}:{float(getattr(self, name))!r}".removesuffix(".0")


def check_options(
    policy: str,
    level: float | None,
    groups: int,
    half_life: float | None,
    M: float | None,
    rate: float | None,
    confidence: float | None,
    on_violation: str,
) -> Options:
    """Return the options, or raise TypeError or ValueError that says what is accepted."""
    if policy not in POLICIES:
        raise ValueError(
            f"policy must be one of {', '.join(POLICIES)}, got {policy!r}; Envelope.parse reads "
            "'quantile:LEVEL' and the like"
        )
    if isinstance(groups, bool) or not isinstance(groups, int):
        raise TypeError(f"groups must be an int, got {type(groups).__name__}")
    if groups < 1:
        raise ValueError(f"groups must be at least 1, got {groups}")
    # No address space holds so many, which the core's vectors would say in their own words.
    if groups >= 2**48:
        raise ValueError(f"groups must be below 2**48, got {groups}")
    if on_violation not in REACTIONS:
        raise ValueError(
            f"on_violation must be one of {', '.join(REACTIONS)}, got {on_violation!r}"
        )
    level = _own_number("level", level, policy, "quantile", "(0, 1]")
    rate = _own_number("rate", rate, policy, "budget", "(0, 1]")
    M = _own_number("M", M, policy, "fixed", "(0, inf)")
    if half_life is not None:
        half_life = _number("half_life", half_life)
        if policy not in FORGETTING:
            raise ValueError(
                f"half_life is for 'quantile', 'budget' and 'decayed' only, got "
                f"half_life={half_life} with {policy!r}"
                + (": a maximum does not decay" if policy == "max" else "")
            )
        if not 1.0 <= half_life < math.inf:
            raise ValueError(f"half_life must be finite and at least 1 sample, got {half_life}")
    elif policy == "decayed":
        raise ValueError("'decayed' needs a half_life of at least 1 sample, got none")
    if confidence is not None:
        confidence = _number("confidence", confidence)
        if policy != "quantile" or half_life is not None or level == 1.0:
            raise ValueError(
                "confidence is for 'quantile' with a level below 1 and without half_life: a bound "
                "that holds for any distribution needs the rank of every sample"
            )
        if not 0.0 < confidence < 1.0:
            raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    return Options(policy, level, groups, half_life, M, rate, confidence, on_violation)


def check_types(options: Mapping[str, Any]) -> None:
    """Raise TypeError if stored options have types whose values cannot be compared."""
    for name, value in options.items():
        if name in ("policy", "on_violation"):
            fits, kind = isinstance(value, str), "a str"
        elif name == "groups":
            fits, kind = isinstance(value, Integral) and not isinstance(value, bool), "an int"
        else:
            fits = value is None or (isinstance(value, Real) and not isinstance(value, bool))
            kind = "a float or None"
        if not fits:
            raise TypeError(f"state[{name!r}] must be {kind}, got {type(value).__name__}")


def parse_spec(text: str) -> tuple[str, dict[str, float]]:
    """Return the policy of a text such as ``quantile:0.9``, and its parameter by name."""
    if not isinstance(text, str):
        raise TypeError(f"an envelope is a str, {TEXTS}; got {type(text).__name__}")
    policy, separator, number = text.partition(":")
    name = PARAMETERS.get(policy)
    try:
        # The half-life of "decayed" may be given apart.
        missing = name is not None and not separator and policy != "decayed"
        if policy not in POLICIES or missing or (separator and name is None):
            raise ValueError
        return policy, {name: float(number)} if name is not None and separator else {}
    except ValueError:
        raise ValueError(f"an envelope is {TEXTS}, got {text!r}") from None


def _own_number(
    name: str, value: float | None, policy: str, owner: str, interval: str
) -> float | None:
    """Check a number that one policy needs and no other takes."""
    if policy != owner:
        if value is not None:
            raise ValueError(f"{name} is for {owner!r} only, got {name}={value} with {policy!r}")
        return None
    if value is None:
        raise ValueError(f"{owner!r} needs a {name} in {interval}, got none")
    number = _number(name, value, f" in {interval}")
    if not (0.0 < number <= 1.0 or (interval == "(0, inf)" and 0.0 < number < math.inf)):
        raise ValueError(f"{name} must be in {interval}, got {value}")
    return number


def _number(name: str, value: float, where: str = "") -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a float{where}, got {type(value).__name__}")
    return float(value)
