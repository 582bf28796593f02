"""The envelope constant M while sampling: given or an envelope's, and what a larger ratio does."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from torch import Tensor

from rskernels.envelope import Envelope, EnvelopeViolation
from rskernels.sampling.options import as_float
from rskernels.sampling.tail import is_unbounded

# Policies whose M a single ratio moves or none does, so that it is the same however rows are cut.
STEPWISE = ("fixed", "max")
# Policies that are meant to truncate: ratios above their M are no sign of a fault.
TRUNCATING = ("quantile", "budget")


class BoundReport(NamedTuple):
    """What the M of one call has cost, by the names of :class:`RejectionReport`."""

    max_log_ratio: float
    violations: int
    invalid: int
    delta: float
    pareto_k: float
    is_unbounded: bool


class ProvedLogM(float):
    """A log M that is known to bound every ratio, so that no tail speaks against it."""


class _Counts(NamedTuple):
    """Rows of an envelope, by its whole life."""

    violations: int
    invalid: int


class Bound:
    """The M in force, and the ratios that it was decided by.

    With "thin" M never falls, and a ratio above a fixed M raises it, for good where the envelope is
    used again.

    Parameters
    ----------
    log_M, on_violation
        As in :func:`rskernels.rejection_sample`, with its errors.
    """

    def __init__(self, log_M: float | Envelope | None, on_violation: str | None) -> None:
        self._is_proved = isinstance(log_M, ProvedLogM)
        self._shift = 0.0
        self._before = _Counts(violations=0, invalid=0)
        if isinstance(log_M, Envelope):
            if on_violation is not None:
                raise ValueError(
                    f"the envelope says on_violation={log_M.on_violation!r}, "
                    f"got {on_violation!r} besides"
                )
            if log_M.groups != 1:
                raise ValueError(f"one target needs an envelope of one group, got {log_M.groups}")
            self.envelope = log_M
            self._before = self._counts()
        elif log_M is None:
            self.envelope = Envelope("max", on_violation=on_violation or "thin")
        else:
            # Its ratios are taken relative to log_M, whose exponential may not fit float64.
            self._shift = _number(log_M)
            self.envelope = Envelope("fixed", M=1.0, on_violation=on_violation or "thin")
        self.on_violation = self.envelope.on_violation
        self.thins = self.on_violation == "thin"
        self.weighs = self.on_violation == "control"
        # An M that never moves is asked for once.
        self._is_fixed = self.envelope.policy == "fixed"
        self._fixed = self._envelope_log_M() if self._is_fixed else math.nan
        self._is_stepwise = self.envelope.policy in STEPWISE
        self._floor = -math.inf
        if self._is_fixed and self.thins:
            # A ratio that an earlier call met is known to be above M.
            self._floor = self.envelope.tallies()["max_log_ratio"].item() + self._shift

    @property
    def is_exact(self) -> bool:
        """Whether no ratio above M is left unmended in what is returned."""
        return self.on_violation in ("raise", "control") or (self.thins and self._is_stepwise)

    def log_M(self) -> float:
        """Return log M; NaN or -inf where there is none yet."""
        value = self._fixed if self._is_fixed else self._envelope_log_M()
        return max(value, self._floor) if self.thins and not math.isnan(value) else value

    @property
    def has_M(self) -> bool:
        """Whether there is an M to decide by."""
        return self._is_fixed or self.log_M() > -math.inf

    def _envelope_log_M(self) -> float:
        return self.envelope.log_M().item() + self._shift

    def for_rows(self, log_ratio: Tensor) -> float | Tensor:
        """Return the log M by which rows are decided: a number, or one for each."""
        if self.envelope.policy != "leave_one_out":
            log_M = self.log_M()
            if self.thins:
                self._floor = log_M
            return log_M
        return self.envelope.log_M(log_ratio=log_ratio)

    def constant_rows(self, log_ratio: Tensor, log_M: float | Tensor) -> int:
        """Return how many of the rows M stays the same for: up to the first that raises it."""
        moves = self._is_stepwise and not (self._is_fixed and not self.thins)
        if not moves or isinstance(log_M, Tensor):
            return len(log_ratio)
        top = log_ratio.max().item()
        # NaN and +inf hide the largest ratio; they move nothing themselves.
        if not top < math.inf:
            log_ratio = log_ratio.where(log_ratio < math.inf, -math.inf)
            top = log_ratio.max().item()
        if not top > log_M:
            return len(log_ratio)
        return _first_above(log_ratio, log_M) + 1

    def learn(self, log_ratio: Tensor) -> None:
        """Take in pilot rows, which are never decided."""
        # Of "leave_one_out" a pilot's own largest ratio counts as above M.
        with suppress(EnvelopeViolation):
            self.envelope.update(log_ratio)
        self._before = self._before._replace(violations=self._counts().violations)

    def update(self, log_ratio: Tensor, accepted: Tensor, log_M: float | Tensor, row: int) -> None:
        """Take in rows that were decided, of which the first has id ``row``."""
        relative = log_ratio - self._shift if self._shift else log_ratio
        try:
            self.envelope.update(relative, accepted=accepted)
        except EnvelopeViolation:
            finite = log_ratio.double().where(log_ratio < math.inf, -math.inf)
            above = finite - log_M
            worst = int(above.argmax())
            at = finite[worst] - above[worst]
            raise EnvelopeViolation(
                f"proposal {row + worst} has the log ratio {finite[worst].item():.9g}, above "
                f"log M = {at.item():.9g}, and on_violation is 'raise'; a larger M is needed"
            ) from None
        if self.thins:
            last = log_ratio[-1].item() if self._is_fixed else self.log_M()
            if self._floor < last < math.inf:
                self._floor = last

    @property
    def is_given(self) -> bool:
        """Whether M was chosen before any ratio was seen, and no ratio has raised it."""
        return self._is_fixed and not self.log_M() > self._fixed

    def report(self) -> BoundReport:
        """Return what M has cost since the first decided row, in the target's own units."""
        tallies = self.envelope.tallies()
        has_decided = tallies["decided"].item() > 0
        # A fixed M that has not risen may have been exceeded in an earlier call.
        is_mended = self.is_exact and not (self.is_given and not self.weighs)
        delta = 0.0 if is_mended or not has_decided else tallies["delta"].item()
        shape = self.envelope.report().overall["pareto_k"]
        is_bounding = self.envelope.policy not in TRUNCATING and not self._is_proved
        return BoundReport(
            max_log_ratio=tallies["max_log_ratio"].item() + self._shift,
            violations=int(tallies["violations"].item()) - self._before.violations,
            invalid=int(tallies["invalid"].item()) - self._before.invalid,
            delta=delta,
            pareto_k=shape,
            is_unbounded=is_bounding and is_unbounded(self.envelope, shape),
        )

    def _counts(self) -> _Counts:
        # A report would fit a tail too, in a good part of a millisecond.
        tallies = self.envelope.tallies()
        return _Counts(int(tallies["violations"].item()), int(tallies["invalid"].item()))


def _first_above(log_ratio: Tensor, log_M: float) -> int:
    if log_ratio.is_cpu:
        # Several times as fast as torch's; an array, since a number would be rounded to float32.
        return int((log_ratio.numpy() > np.full(1, log_M)).argmax())
    return int((log_ratio.double() > log_M).nonzero()[0].item())


def _number(log_M: float) -> float:
    number = as_float("log_M", log_M, "a float, an Envelope or None")
    if not math.isfinite(number):
        raise ValueError(f"log_M must be finite, got {log_M}")
    return number
