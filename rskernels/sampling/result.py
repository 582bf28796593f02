"""What ``rejection_sample`` returns: draws, weights, and how it came to them."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from rskernels._python.text import printable
from rskernels.envelope import Envelope
from rskernels.envelope.report import UNDECIDED, meaning


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
    delta: float
    """Excess mass δ̂ = Σ(w − M)₊ / Σw of the ratios that the envelope has seen, where those above M
    were left as they are; else 0. It estimates δ, which bounds the total variation between the
    target and what was returned if M was fixed in advance. It is no bound itself: it says nothing
    of ratios not seen."""
    pareto_k: float
    """k̂, the shape of the largest ratios' tail; NaN of too few ratios. Below 0 suggests a finite
    M."""
    is_unbounded: bool
    """Whether the largest ratios look as if no finite M bounds p/q, of which a warning tells. False
    proves nothing, and is all that is said of the policies "quantile" and "budget"."""
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

    @property
    def bias(self) -> str:
        """What is known of the distance between the target and what was returned."""
        if self.envelope.on_violation == "control":
            text = "weighted draws follow the target for any M"
        else:
            text = f"excess mass {self.delta:.3g} among the ratios seen, no bound on TV"
        return f"{text}; {self._tail}"

    @property
    def _tail(self) -> str:
        """What the largest ratios say of a finite M."""
        if self.is_unbounded:
            return f"k̂ = {self.pareto_k:.2f}: no finite M seems to bound p/q"
        if self.pareto_k < 0.0:
            return meaning(self.pareto_k)
        if math.isnan(self.pareto_k):
            return f"{meaning(self.pareto_k)}, {UNDECIDED}"
        return f"k̂ = {self.pareto_k:.2f}: {UNDECIDED}"

    def __str__(self) -> str:
        return printable(
            f"{self.stopped}: {self.drawn:,} draws ({self.pilot:,} pilot) in {self.seconds:.3g} s, "
            f"log M {self.log_M:.6g}, {self.violations:,} violations, {self.invalid:,} invalid, "
            f"{self.thinned:,} thinned, {self.bias}"
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
