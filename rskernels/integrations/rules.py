"""Rules for rollouts, read from a text in the configuration of an RL framework."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rskernels.envelope import Envelope
from rskernels.law.sequences import STATISTICS

TOKEN, PREFIX, SEQUENCE = "token", "prefix", "sequence"

_UNITS: dict[str, tuple[str, str | None]] = {
    **{f"seq_{statistic}_bernoulli": (SEQUENCE, statistic) for statistic in STATISTICS},
    "token_bernoulli": (TOKEN, None),
    "prefix_bernoulli": (PREFIX, None),
}
RULES = tuple(_UNITS)
"""The names of rules."""
# The ratios of these are at most 1, so that M = 1 covers them; the others need an M of their own.
_BOUNDED = ("seq_mean_k2_bernoulli", "seq_mean_k3_bernoulli", "seq_sum_k2_bernoulli")
_POLICIES = ("budget", "quantile", "decayed")
_TEXTS = (
    "a number M above 0, 'budget=RATE' with RATE in (0, 1], 'quantile=LEVEL' with LEVEL in (0, 1], "
    "'decayed=HALF_LIFE' with HALF_LIFE of at least 1, 'max' or 'tail'"
)


@dataclass(frozen=True)
class Rule:
    """What is decided by one draw, by which ratio, and by which M."""

    name: str
    """One of ``RULES``."""
    policy: str
    """As ``Envelope.parse`` reads it, such as ``"fixed:2.0"`` or ``"budget:0.5"``."""

    @property
    def unit(self) -> str:
        """What a draw decides: a ``"sequence"``, a ``"token"``, or a ``"prefix"``."""
        return _UNITS[self.name][0]

    @property
    def statistic(self) -> str | None:
        """The statistic of a sequence, as ``accept_sequences`` takes it."""
        return _UNITS[self.name][1]

    @property
    def is_fixed(self) -> bool:
        """Whether M is given, so that nothing is learnt."""
        return self.policy.startswith("fixed:")

    @property
    def label(self) -> str:
        """Name and M, for the names of metrics, without the words "max" and "min".

        Of a metric with such a word in its name verl takes the largest, or least, of batches in the
        place of the mean.
        """
        text = f"{self.name}_{self.policy.removeprefix('fixed:').replace(':', '=')}"
        return text.replace("max", "largest")

    @classmethod
    def parse(cls, text: str, policy: str | float | None = None) -> Rule:
        """Read ``NAME``, ``NAME:M`` or ``NAME:POLICY=NUMBER``.

        Parameters
        ----------
        text : str
            Such as ``"seq_sum_bernoulli:2"`` or ``"token_bernoulli:budget=0.5"``. Names are
            ``seq_STATISTIC_bernoulli`` with a statistic of ``accept_sequences``,
            ``token_bernoulli`` and ``prefix_bernoulli``.
        policy : str or float, optional
            What would stand behind the colon, if it is given apart.

        Raises
        ------
        TypeError, ValueError
            If there is no such rule, or its M is missing, given twice or not accepted.
        """
        if not isinstance(text, str):
            raise TypeError(f"a rule is a str such as 'seq_sum_bernoulli:2', got {text!r}")
        name, colon, inner = (part.strip() for part in text.partition(":"))
        if name not in _UNITS:
            raise ValueError(f"a rule is one of {', '.join(RULES)}, got {name!r}")
        if colon and policy is not None:
            raise ValueError(f"rule {text!r} says its M, and so does {policy!r}: give one of them")
        return cls(name, _policy(name, inner if colon else policy))


def _policy(name: str, given: str | float | None) -> str:
    """Return a policy as an envelope reads it."""
    if given is None:
        if name in _BOUNDED or name == "prefix_bernoulli":
            return "fixed:1.0"
        raise ValueError(f"{name} needs an M: {_TEXTS}")
    if isinstance(given, bool) or not isinstance(given, (str, int, float)):
        raise TypeError(f"M of {name} must be {_TEXTS}; got {type(given).__name__}")
    refused = ValueError(f"M of {name} must be {_TEXTS}; got {given!r}")
    text = str(given).strip()
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        if not 0.0 < number < math.inf:
            raise refused
        return f"fixed:{number!r}"
    policy, equals, value = (part.strip() for part in text.partition("="))
    if policy not in (("max", "tail") if not equals else _POLICIES):
        raise refused
    if name == "prefix_bernoulli":
        raise ValueError(f"{name} takes a number M above 0 alone, got {given!r}")
    text = f"{policy}:{value}" if equals else policy
    try:
        Envelope.parse(text)
    except ValueError:
        raise refused from None
    return text
