"""How rows are decided: a form of ``select.tilt``, or a rule in use elsewhere, and its numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from rskernels._python.integers import as_integer
from rskernels.envelope import Envelope
from rskernels.law.seeds import check_seed
from rskernels.ops.arguments import number_argument

NEEDS = {
    "verifier": ("beta",), "bounded": ("beta", "bound"), "quantile": ("beta",),
    "best_of": ("n",), "learnt": ("beta",), "top_k": ("k",), "threshold": ("least",),
    "soft_best_of_n": ("beta",), "rso": ("beta", "num"), "weights": ("beta",),
}  # fmt: skip
"""The forms, and the numbers that each needs."""
ALONE = ("verifier", "bounded", "threshold")
"""Forms that decide a row by itself: all is known before any row is read, so one pass is enough."""
WITH_PILOT = ("quantile", "best_of", "learnt")
"""Forms that need rewards of other answers to the prompt, from a pilot or a first pass."""
RANKED = ("top_k", "soft_best_of_n", "rso")
"""Forms that rank the rows of a prompt by id, where rewards are equal or by its draw."""
WITHOUT_M = ("top_k", "threshold", "soft_best_of_n", "rso", "weights")
WITHOUT_WEIGHTS = ("top_k", "threshold")
M_IS = {
    "verifier": "proved", "bounded": "given", "quantile": "proved", "best_of": "proved",
    "learnt": "learnt",
}  # fmt: skip
"""Where M comes from, in the words of ``select.TiltedSelection``; of other forms there is none."""
TILTED = "What is kept follows the policy times exp(reward/beta), prompt by prompt"
NOTES = {
    "verifier": f"{TILTED}: exactly.",
    "bounded": f"{TILTED}: exactly where no reward is above the bound.",
    "quantile": "What is kept follows the policy times exp(u/beta), u a reward's quantile among "
    "those of the pilot: exactly, for that u.",
    "best_of": "What is kept has the law of the best of n answers, by the pilot's quantiles.",
    "own quantile": "What is kept follows the rows that were given times exp(u/beta), u a reward's "
    "quantile among the answers to its prompt that are decided themselves: not the policy's.",
    "own best_of": "What is kept is weighted as the best of n answers would be by the quantiles of "
    "the answers to its prompt that are decided themselves: not the law of the policy's best of n.",
    "learnt": f"{TILTED}, as far as the M that was learnt holds.",
    "top_k": "The best of each prompt are kept: no law of the policy.",
    "threshold": "What is kept is the policy where the reward is enough.",
    "soft_best_of_n": "One answer of each prompt is kept; of n it is the tilted law but for order "
    "1/n.",
    "rso": "Algorithm 1 of RSO as published: M from the pool that it decides, equal answers once, "
    "dependent on the order of the rows; not the tilted law.",
    "weights": "Every answer of a reward above -infinity is kept, with the log of exp(reward/beta) "
    "over its mean in the prompt in the column log_weight; biased by that mean, as 1/its ESS.",
}
OF_THE_ROWS = (
    "The quantiles are those of the very rows that are decided, for want of a pilot: of a law that "
    "K answers a prompt stand for, not of the policy's. What is kept is off the policy's tilted "
    "law the more, the fewer answers a prompt has, and its mass above M is not known. A pilot of "
    "other answers mends it."
)
"""The warning where a form with a pilot has none."""


@dataclass(frozen=True)
class Rule:
    """How rows are decided.

    Attributes
    ----------
    form : str
        One of ``NEEDS``.
    beta, bound, n : float, float, int, optional
        As of ``select.tilt``.
    k, least, num : int, float, int, optional
        As of ``select.top_k``, ``threshold`` and ``rso``.
    envelope : str
        The policy of "learnt", as ``Envelope.parse`` reads it.
    seed : int
        64 bits.
    shared : bool
        Of "learnt": whether one M is learnt for all prompts, from all of the pilot, in place of one
        for each.

    Raises
    ------
    TypeError, ValueError
        If a number is missing, out of its range or not the form's.
    """

    form: str
    beta: float | None = None
    bound: float | None = None
    n: int | None = None
    k: int | None = None
    least: float | None = None
    num: int | None = None
    envelope: str = "max"
    seed: int = 0
    shared: bool = False

    def __post_init__(self) -> None:
        if self.form not in NEEDS:
            raise ValueError(f"form must be one of {', '.join(NEEDS)}, got {self.form!r}")
        for name in ("beta", "bound", "n", "k", "least", "num"):
            value = getattr(self, name)
            if (value is not None) != (name in NEEDS[self.form]):
                verb = "needs" if value is None else "takes no"
                raise ValueError(f"the form {self.form!r} {verb} {name}")
            if value is not None:
                _check(name, value, self.form)
        if self.form == "learnt":
            if Envelope.parse(self.envelope).policy == "leave_one_out":
                raise ValueError("envelope must not be leave_one_out, which learns as it decides")
        elif self.envelope != "max":
            raise ValueError(f"the form {self.form!r} takes no envelope, got {self.envelope!r}")
        if self.shared and self.form != "learnt":
            raise ValueError(f"the form {self.form!r} learns no M to share")
        check_seed(self.seed)

    @property
    def is_alone(self) -> bool:
        """Whether a row is decided by itself, not with all answers to its prompt."""
        return self.form in ALONE

    def to_dict(self) -> dict[str, Any]:
        """Return the rule for JSON."""
        return asdict(self)


def _check(name: str, value: Any, form: str) -> None:
    if name in ("n", "k", "num"):
        if as_integer(name, value) < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
        return
    number = number_argument(name, value, "a number")
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    if name == "beta" and not (number > 0.0 or (number == 0.0 and form == "verifier")):
        least = "at least 0" if form == "verifier" else "above 0"
        raise ValueError(f"beta must be {least} for the form {form!r}, got {number}")
