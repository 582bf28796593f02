"""What an envelope has seen, and what its M costs and biases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels._python.text import printable

# Heading, name: the columns of the printed table.
COLUMNS = (
    ("seen", "seen"),
    ("invalid", "invalid"),
    ("violations", "violations"),
    ("log M", "log_M"),
    ("δ̂", "delta"),
    ("acceptance", "expected_acceptance"),
    ("observed", "observed_acceptance"),
    ("ESS", "ess"),
    ("χ²", "chi_squared"),
    ("k̂", "pareto_k"),
)
SHOWN = 20
UNDECIDED = "undecided whether a finite M exists"
# The mean ratio is finite, hence the shape at most 1. A top this far above has no such law.
MOST_SHAPE = 2.0


class EnvelopeViolation(ValueError):
    """Rows of a batch had a ratio above the M that they met."""


class EnvelopeCounts(NamedTuple):
    """Rows an envelope has been shown, taken at one instant; each int64 ``[groups]``."""

    seen: Tensor
    """All rows."""
    violations: Tensor
    """Rows whose ratio was above the M in force when they came, where there was one above 0."""
    invalid: Tensor
    """Rows whose log ratio was NaN or +inf; they leave M as it is."""


# Tensors cannot be compared as one, nor hashed.
@dataclass(frozen=True, eq=False)
class EnvelopeReport:
    """Counts, bias and cost of an envelope, of each group and of all rows together.

    With w = p/q and M the constant in force when a row came:

    ``seen``, ``valid``, ``invalid``, ``decided``, ``violations``
        Rows: all; with a log ratio below +inf; the others; valid ones that met an M above 0, as
        masks take it; those of them with a ratio above that M.
    ``log_M``, ``max_log_ratio``
        log M now (None for all groups together) and the largest log ratio seen.
    ``delta``
        Excess mass δ̂ = Σ(w − M)₊ / Σw over the decided rows. It estimates δ, which bounds the
        total variation between the target and what was accepted if M was fixed in advance. It is
        no bound itself: it says nothing of ratios not seen. With ``on_violation="control"`` it is
        what the weights make up for.
    ``expected_acceptance``, ``observed_acceptance``
        Mean of min(1, w/M), and the share of accepted rows among those ``update`` has.
    ``ess``, ``chi_squared``
        Effective sample size (Σw)²/Σw² of importance weighting on the valid rows, and the χ² of
        the weights, n/ESS − 1.
    ``pareto_k``
        Shape of the largest ratios' generalised Pareto tail; :func:`meaning` says what follows.

    Attributes
    ----------
    policy, on_violation : str
        As the envelope was made.
    overall : dict
        A number a name; NaN where there is nothing to tell.
    groups : dict of str to Tensor
        ``[groups]`` a name, int64 for counts, else float64.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", JMLR 25, 2024.
    """

    policy: str
    on_violation: str
    overall: Mapping[str, float]
    groups: Mapping[str, Tensor]

    @property
    def meaning(self) -> str:
        """What the Pareto shape of all rows together says."""
        return meaning(self.overall["pareto_k"])

    def to_dict(self, *, groups: bool = True) -> dict[str, Any]:
        """Return numbers, strings and lists that JSON takes; None stands for NaN and infinities.

        Parameters
        ----------
        groups : bool
            Whether to include the lists with an entry a group.
        """
        overall = {name: _json(value) for name, value in self.overall.items()}
        record: dict[str, Any] = {
            "policy": self.policy,
            "on_violation": self.on_violation,
            "overall": {**overall, "meaning": self.meaning},
        }
        if groups:
            record["groups"] = {
                name: [_json(value) for value in values.tolist()]
                for name, values in self.groups.items()
            }
        return record

    def __str__(self) -> str:
        headings = ["group", *(printable(heading) for heading, _ in COLUMNS)]
        count = len(self.groups["seen"])
        rows = [["all", *(_show(self.overall[name]) for _, name in COLUMNS)]]
        if count > 1:
            for group in range(min(count, SHOWN)):
                values = (self.groups[name][group].item() for _, name in COLUMNS)
                rows.append([str(group), *map(_show, values)])
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in (headings, *rows)
        ]
        if count > SHOWN:
            lines.append(f"and {count - SHOWN} more groups")
        lines.append(f"policy {self.policy}, on violation {self.on_violation}; {self.meaning}")
        return printable("\n".join(lines))


def meaning(shape: float) -> str:
    """Say what a Pareto shape k̂ of the ratios means for M and for importance weights.

    A shape of 0 or more is no proof that M is infinite: of bounded ratios that hardly come near M
    it is the same. The mean ratio is finite, so that one far above 1 is no law of a tail.
    """
    if math.isnan(shape):
        return "too few ratios for a Pareto shape"
    known = f"k̂ = {shape:.2f}: "
    if shape < 0.0:
        return known + "the ratios look bounded, which suggests that a finite M exists"
    known += UNDECIDED
    if shape < 0.5:
        return known + "; if none does, weights of finite variance: ESS and χ² can be trusted"
    if shape < 0.7:
        return known + "; if none does, weights of infinite variance: ESS and χ² are optimistic"
    if shape < MOST_SHAPE:
        return known + "; if none does, weighted means converge too slowly to be of use"
    return known + "; too few ratios come near the largest to tell its law"


def make_report(
    policy: str, on_violation: str, groups: Mapping[str, Any], overall: Mapping[str, Any]
) -> EnvelopeReport:
    """Make a report of what the core tells, arrays by name."""
    by_group = {name: torch.from_numpy(values) for name, values in groups.items()}
    total = {name: values[0].item() for name, values in overall.items()}
    log_M = by_group["log_M"]
    total["log_M"] = log_M[0].item() if len(log_M) == 1 else math.nan
    return EnvelopeReport(policy, on_violation, total, by_group)


def _json(value: float) -> float | int | None:
    return value if math.isfinite(value) else None


def _show(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "–" if math.isnan(value) else f"{value:.4g}"
