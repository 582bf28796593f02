"""What ``rejection_sample`` returns: draws, weights, and how it came to them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from rskernels.envelope import Envelope
from rskernels.law.text import printable


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
    """Estimate, from the ratios that the envelope has seen, of a bound on the total variation
    between the target and what was returned: the excess mass δ̂ where ratios above M were left as
    they are, else 0; for "control", of the weighted draws. Ratios not seen may be above a learnt
    M."""
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
        return printable(
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
