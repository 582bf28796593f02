"""The forms of a tilt: the log weight log w of each row, and the constant M that bounds it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from rskernels._python.integers import as_integer
from rskernels.envelope import Envelope
from rskernels.ops.arguments import number_argument
from rskernels.select.pilot import Pilot, Standing
from rskernels.select.rows import Rows

FORMS = ("verifier", "bounded", "quantile", "best_of", "learnt")
PROVED, GIVEN, LEARNT, NONE = "proved", "given", "learnt", "none"


class Weighted(NamedTuple):
    """Rows as they are decided: accepted with probability min(1, w/M)."""

    log_ratio: Tensor
    """float64 ``[N]``: log w - log M; NaN of a row that is invalid or has no M."""
    invalid: Tensor
    """bool ``[N]``: rows whose reward the form does not take."""
    M_is: str
    """``PROVED``, ``GIVEN``, ``LEARNT`` or, of a rule without M, ``NONE``."""
    base: tuple[Tensor, Rows] | None = None
    """Log weights of a pilot, and its rows, which stand for the untilted law. None: the rows
    that are decided stand for it."""
    has_weights: bool = True
    """False where ``log_ratio`` is no weight, and only its NaNs tell which rows have no reward."""


class Options(NamedTuple):
    """What a form needs, beside rewards and beta."""

    bound: float | None
    n: int | None
    envelope: Envelope | None
    pilot: Pilot | None


def check_options(form: str, beta: float | None, given: Mapping[str, object]) -> float:
    """Return beta, or 0 where the form has none.

    Raises
    ------
    TypeError, ValueError
        If a form is unknown, beta is out of its range, or an option is missing or not the form's.
    """
    needs = {
        "verifier": (), "bounded": ("bound",), "quantile": ("pilot",),
        "best_of": ("n", "pilot"), "learnt": ("envelope",),
    }  # fmt: skip
    if form not in needs:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    for name, value in given.items():
        if (value is not None) != (name in needs[form]):
            verb = "needs" if name in needs[form] else "takes no"
            raise ValueError(f"the form {form!r} {verb} {name}")
    if form == "best_of":
        if beta is not None:
            raise ValueError(f"the form 'best_of' has n in place of beta, got beta={beta}")
        return 0.0
    number = number_argument("beta", beta, "a number")
    if not (0.0 < number < math.inf or (form == "verifier" and number == 0.0)):
        least = "at least 0" if form == "verifier" else "above 0"
        raise ValueError(f"beta must be finite and {least} for the form {form!r}, got {number}")
    return number


def weigh(
    form: str, rewards: Tensor, groups: Tensor | None, beta: float, options: Options
) -> Weighted:
    """Return the weights that a form gives to rows, each a function of its row alone.

    Parameters
    ----------
    form, beta
        As ``check_options`` let pass.
    rewards : Tensor
        float64 ``[N]``.
    groups : Tensor or None
        int64 ``[N]``: which prompt each row answers. Needed where each has its own M or pilot.
    options : Options
        What the form needs.
    """
    if form == "verifier":
        return _verifier(rewards, beta)
    invalid = ~(rewards < math.inf)
    if form == "bounded":
        assert options.bound is not None
        bound = number_argument("bound", options.bound, "a number")
        if not math.isfinite(bound):
            raise ValueError(f"bound must be finite, got {bound}")
        log_ratio = (rewards - bound) / beta
        invalid |= ~(log_ratio < math.inf)
        return Weighted(torch.where(invalid, math.nan, log_ratio), invalid, GIVEN)
    if form == "learnt":
        assert options.envelope is not None
        return _learnt(rewards, groups, beta, options.envelope, invalid)
    pilot = options.pilot
    assert pilot is not None
    if groups is None:
        groups = torch.zeros_like(rewards, dtype=torch.int64)
    standing, own = pilot.standing(rewards, groups), pilot.own()
    if form == "quantile":
        log_ratio, of_pilot = (_of_quantile(each, beta) for each in (standing, own))
    else:
        n = as_integer("n", options.n)
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        log_ratio, of_pilot = (of_best(each, n) for each in (standing, own))
    return Weighted(log_ratio, invalid, PROVED, (of_pilot, pilot.rows()))


def _verifier(rewards: Tensor, beta: float) -> Weighted:
    is_right, is_wrong = rewards == 1.0, rewards == 0.0
    invalid = ~(is_right | is_wrong)
    of_wrong = -1.0 / beta if beta > 0.0 else -math.inf
    log_ratio = torch.where(is_right, 0.0, torch.full_like(rewards, of_wrong))
    return Weighted(torch.where(invalid, math.nan, log_ratio), invalid, PROVED)


def _learnt(
    rewards: Tensor, groups: Tensor | None, beta: float, envelope: Envelope, invalid: Tensor
) -> Weighted:
    if not isinstance(envelope, Envelope):
        raise TypeError(f"envelope must be an Envelope, got {type(envelope).__name__}")
    if envelope.policy == "leave_one_out":
        raise ValueError(
            "envelope must not learn from the rows that it decides, as 'leave_one_out' does; "
            "update another policy with the rewards / beta of a pilot"
        )
    device = rewards.device
    log_M = envelope.log_M(groups) if envelope.groups > 1 else envelope.log_M(device=device)
    log_M = torch.where(log_M > -math.inf, log_M, math.nan)
    log_w = rewards / beta
    invalid = invalid | ~(log_w < math.inf)
    log_ratio = torch.where(invalid, math.nan, log_w - log_M)
    is_fixed = envelope.policy == "fixed"
    return Weighted(log_ratio, invalid, GIVEN if is_fixed else LEARNT)


def _of_quantile(standing: Standing, beta: float) -> Tensor:
    """Return (u - 1)/beta, u the mid-rank."""
    return ((standing.below + standing.up_to) / 2.0 - 1.0) / beta


def of_best(standing: Standing, n: int) -> Tensor:
    """Return the log of the mean of u^(n-1) over the quantiles u of rewards that are equal.

    With a = F(r-) and b = F(r) it is (b^n - a^n) / (n (b - a)), and b^(n-1) where a = b.
    """
    a, b = standing
    rest = a / b
    of_one = (n - 1) * b.log() if n > 1 else torch.zeros_like(b)
    of_ties = (-(n * rest.log()).expm1()).log() - math.log(n) - (1.0 - rest).log()
    mean = torch.where(a < b, of_one + of_ties, of_one)
    return torch.where(b.isnan(), math.nan, mean.clamp(max=0.0))
