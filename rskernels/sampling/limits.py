"""When a run of the sampler warns that it is slow, when it gives up, and what it says then."""

from __future__ import annotations

import inspect
import math
import time
import warnings
from dataclasses import dataclass

from rskernels.sampling.options import SamplingOptions
from rskernels.sampling.result import RejectionReport

# Proposals that the smallest acceptance turns into this many acceptances are enough to judge by:
# none, or 4 standard deviations fewer, come about with probability 1e-7 and 3e-5 at that rate.
JUDGED = 16.0
DEVIATIONS = 4.0
# Seconds after which a slow run says so once, if as many again would not do.
PATIENCE = 10.0


@dataclass
class SamplingCounts:
    """Draws of the proposal so far, by what became of them."""

    accepted: int = 0
    """Kept: those that a larger M took back are not among them."""
    decided: int = 0
    """Proposals accepted or rejected."""
    thinned: int = 0
    """Acceptances taken back."""
    pilot: int = 0
    """Draws that only went into M."""
    drawn: int = 0
    """All, with the rest of the last batch."""

    @property
    def used(self) -> int:
        """Pilot draws and proposals: those that ``max_proposals`` limits."""
        return self.pilot + self.decided

    @property
    def rate(self) -> float:
        """The acceptance rate; NaN before the first decision."""
        return self.accepted / self.decided if self.decided else math.nan

    def rate_text(self) -> str:
        """Return the acceptance rate for a message."""
        return f"{self.rate:.3g}" if self.decided else "unknown"


class Limits:
    """When to give up; the time begins as this is made."""

    def __init__(self, options: SamplingOptions) -> None:
        self._begin = time.perf_counter()
        self._options = options
        self._is_patient = True

    @property
    def seconds(self) -> float:
        """Return the time since the beginning."""
        return time.perf_counter() - self._begin

    def left(self, used: int) -> int | None:
        """Return how many proposals may still be drawn after so many; None without a limit."""
        most = self._options.max_proposals
        return None if most is None else most - used

    def reached(self, used: int, judged: int, accepted: int) -> str | None:
        """Return the limit that has been reached; the rate is ``accepted`` of ``judged``."""
        left, max_seconds = self.left(used), self._options.max_seconds
        if left is not None and left <= 0:
            return "max_proposals"
        if max_seconds is not None and self.seconds >= max_seconds:
            return "max_seconds"
        expected = judged * self._options.min_acceptance
        if expected >= JUDGED and accepted <= expected - DEVIATIONS * math.sqrt(expected):
            return "min_acceptance"
        return None

    def warn_if_slow(self, counts: SamplingCounts, log_M: float) -> None:
        """Warn once where a long time has brought less than half of the draws."""
        num_samples = self._options.num_samples
        if not self._is_patient or self.seconds < PATIENCE or 2 * counts.accepted >= num_samples:
            return
        self._is_patient = False
        warnings.warn(
            f"rejection_sample has {counts.accepted:,} of {num_samples:,} draws after "
            f"{self.seconds:.0f} s: acceptance rate {counts.rate_text()} at "
            f"log M = {log_M:.6g}; max_seconds and max_proposals limit it",
            stacklevel=_stack_level_outside(),
        )

    def failure(self, counts: SamplingCounts, report: RejectionReport) -> str:
        """Say why there are too few draws."""
        limit = f"{report.stopped}={getattr(self._options, report.stopped)}"
        text = (
            f"rejection_sample stopped at {limit} with {counts.accepted:,} of "
            f"{self._options.num_samples:,} draws: "
            f"acceptance rate {counts.rate_text()} over {counts.decided:,} proposals at "
            f"log M = {report.log_M:.6g} ({report.pilot:,} pilot draws, {report.seconds:.3g} s)"
        )
        if report.invalid == counts.used:
            return f"{text}; every log ratio was NaN or +inf"
        if report.invalid:
            text += f"; {report.invalid:,} log ratios were NaN or +inf"
        if report.max_log_ratio == -math.inf:
            return f"{text}; the target's log density was -inf at every other proposal"
        if math.isnan(report.log_M):
            return f"{text}; the envelope's policy has found no M in these ratios"
        if report.is_unbounded:
            return f"{text}; {unbounded(report)}"
        return (
            f"{text}; the largest log ratio was {report.max_log_ratio:.6g}. A smaller M that still "
            "bounds p/q, a proposal closer to the target, or wider limits are needed"
        )


def warn_of_no_finite_M(report: RejectionReport) -> None:
    """Warn that the ratios seem to have no largest, so that no M bounds them."""
    warnings.warn(f"rejection_sample: {unbounded(report)}", stacklevel=_stack_level_outside())


def unbounded(report: RejectionReport) -> str:
    """Say what follows for draws of ratios that seem to have no largest."""
    if report.envelope.on_violation == "control":
        effect = "no weights make up for the ratios not seen, and weighted means may be far off"
    else:
        effect = (
            "the draws follow the target only where log p - log q is at most log M = "
            f"{report.log_M:.6g}"
        )
    return (
        "no finite M seems to bound p/q, whose largest values have the Pareto shape "
        f"k̂ = {report.pareto_k:.2f}, below 0 where one does: {effect}. Take a proposal whose tails "
        "are no lighter than the target's"
    )


def _stack_level_outside() -> int:
    """Return the ``stacklevel`` that names the first caller outside of this package.

    It is for a warning in the function that calls this one, however deep that is.
    """
    package = __name__.partition(".")[0]
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level
