"""What sampling by rejection returns, when it gives up, and what it shows on the way."""

from __future__ import annotations

import math
import time
import warnings
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from rskernels.envelope import Envelope

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# Proposals that the smallest acceptance turns into this many acceptances are enough to judge by:
# none, or 4 standard deviations fewer, come about with probability 1e-7 and 3e-5 at that rate.
JUDGED = 16.0
DEVIATIONS = 4.0
# Seconds after which a slow run says so once, if as many again would not do.
PATIENCE = 10.0


class RejectionError(RuntimeError):
    """Too few draws were accepted within the limits."""


class RejectionReport(NamedTuple):
    """How :func:`rskernels.rejection_sample` came to its draws."""

    stopped: str
    """"complete", or the limit that ended it: "max_proposals", "max_seconds", "min_acceptance"."""
    log_M: float
    """log M at the end; draws thinned are as if decided by it."""
    max_log_ratio: float
    """The largest log ratio that was met, by the envelope's whole life if it was given one."""
    violations: int
    """Proposals of a ratio above the M of the envelope when they came (above the M given, where it
    was a number)."""
    invalid: int
    """Proposals and pilot draws whose log ratio was NaN or +inf; they are rejected."""
    tv_bound: float
    """Bound on the total variation between the target and what was returned, from the ratios that
    the envelope has seen: the excess mass δ̂ where ratios above M were left as they are, else 0;
    for "control", of the weighted draws."""
    thinned: int
    """Acceptances taken back because M rose."""
    pilot: int
    """Draws that only went into M."""
    drawn: int
    """Draws in all: pilot, proposals, and the rest of the last batch."""
    seconds: float
    """Wall time."""
    envelope: Envelope
    """What the ratios went into, for a report or another call. Where M was given as a number, it
    holds ratios relative to that M, as one of a fixed M of 1."""

    def __str__(self) -> str:
        return (
            f"{self.stopped}: {self.drawn:,} draws ({self.pilot:,} pilot) in {self.seconds:.3g} s, "
            f"log M {self.log_M:.6g}, {self.violations:,} violations, {self.invalid:,} invalid, "
            f"{self.thinned:,} thinned, TV ≤ {self.tv_bound:.3g}"
        )


class RejectionResult(NamedTuple):
    """Accepted draws in the order of their proposal."""

    samples: Tensor
    """``[num_samples, *event]``, dtype and device of the proposal's draws; fewer only with
    ``return_partial``."""
    log_weights: Tensor
    """float32 or float64 ``[num_samples]``: log max(w, M)/M with ``on_violation="control"``, by
    which the draws must be weighted; else one 0, expanded."""
    acceptance_rate: float
    """Draws returned by proposals used; NaN without proposals."""
    proposals: int
    """Proposals up to the one that gave the last draw, pilot draws apart."""
    report: RejectionReport
    """What happened, and what bias is left."""


class Limits:
    """When to give up."""

    def __init__(
        self,
        num_samples: int,
        max_proposals: int | None,
        max_seconds: float | None,
        min_acceptance: float,
    ) -> None:
        self._begin = time.perf_counter()
        self._num_samples = num_samples
        self._max_proposals = max_proposals
        self._max_seconds = max_seconds
        self._min_acceptance = min_acceptance
        self._is_patient = True

    @property
    def seconds(self) -> float:
        """Return the time since the beginning."""
        return time.perf_counter() - self._begin

    def left(self, drawn: int) -> int | None:
        """Return how many proposals may still be drawn."""
        return None if self._max_proposals is None else self._max_proposals - drawn

    def reached(self, drawn: int, decided: int, accepted: int) -> str | None:
        """Return the limit that has been reached; ``decided`` of the ``drawn`` count for a rate."""
        left = self.left(drawn)
        if left is not None and left <= 0:
            return "max_proposals"
        if self._max_seconds is not None and self.seconds >= self._max_seconds:
            return "max_seconds"
        expected = decided * self._min_acceptance
        if expected >= JUDGED and accepted <= expected - DEVIATIONS * math.sqrt(expected):
            return "min_acceptance"
        return None

    def warn_if_slow(self, accepted: int, decided: int, log_M: float, *, callers: int) -> None:
        """Warn once where a long time has brought less than half of the draws.

        The warning names who called the outermost of so many ``callers``.
        """
        if not self._is_patient or self.seconds < PATIENCE or 2 * accepted >= self._num_samples:
            return
        self._is_patient = False
        warnings.warn(
            f"rejection_sample has {accepted:,} of {self._num_samples:,} draws after "
            f"{self.seconds:.0f} s: acceptance rate {_rate(accepted, decided)} at "
            f"log M = {log_M:.6g}; max_seconds and max_proposals limit it",
            stacklevel=callers + 1,
        )

    def say(self, stopped: str) -> str:
        """Return a limit as the caller gave it."""
        limit = {
            "max_proposals": self._max_proposals,
            "max_seconds": self._max_seconds,
            "min_acceptance": self._min_acceptance,
        }[stopped]
        return f"{stopped}={limit}"


def failure(limit: str, wanted: int, accepted: int, decided: int, report: RejectionReport) -> str:
    """Say why there are too few draws."""
    text = (
        f"rejection_sample stopped at {limit} with {accepted:,} of {wanted:,} draws: "
        f"acceptance rate {_rate(accepted, decided)} over {decided:,} proposals at "
        f"log M = {report.log_M:.6g} ({report.pilot:,} pilot draws, {report.seconds:.3g} s)"
    )
    if report.invalid == report.pilot + decided:
        return f"{text}; every log ratio was NaN or +inf"
    if report.invalid:
        text += f"; {report.invalid:,} log ratios were NaN or +inf"
    if report.max_log_ratio == -math.inf:
        return f"{text}; the target's log density was -inf at every other proposal"
    if math.isnan(report.log_M):
        return f"{text}; the envelope's policy has found no M in these ratios"
    return (
        f"{text}; the largest log ratio was {report.max_log_ratio:.6g}. A smaller M that still "
        "bounds p/q, a proposal closer to the target, or wider limits are needed"
    )


def _rate(accepted: int, decided: int) -> str:
    return f"{accepted / decided:.3g}" if decided else "unknown"


class Bar:
    """A progress bar on stderr, by rich; nothing where it is off."""

    def __init__(self, num_samples: int, *, on: bool) -> None:
        self._progress: Progress | None = None
        if not on:
            return
        try:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError(
                "progress=True needs rich, which is not installed: pip install rich",
                name=missing.name,
            ) from missing
        self._progress = Progress(
            BarColumn(),
            TextColumn("{task.completed:,}/{task.total:,} draws"),
            TextColumn("acceptance {task.fields[rate]}"),
            TextColumn("log M {task.fields[log_M]:.4g}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task: TaskID = self._progress.add_task(
            "draws", total=num_samples, rate="–", log_M=math.nan
        )

    def show(self, accepted: int, decided: int, log_M: float) -> None:
        """Show how far it is."""
        if self._progress is not None:
            self._progress.update(
                self._task, completed=accepted, rate=_rate(accepted, decided), log_M=log_M
            )

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()
