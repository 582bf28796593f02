"""The table of two trees: seconds in both, their ratio, and what to look at first."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.base.turns import Comparison, geometric_mean
from benchmarks.common.tables import table
from benchmarks.common.thresholds import BASE_RATIO

HEADINGS = ("case", "base ms", "ms", "ratio", "quartiles", "rounds", "same bits")
ALIGNMENT = (":--", "--:", "--:", "--:", "--:", "--:", ":--")


def markdown(comparisons: Sequence[Comparison], failures: Sequence[str]) -> str:
    """Return the table, the slowest case first, and a line that sums it up."""
    ordered = sorted(comparisons, key=lambda case: case.ratio, reverse=True)
    parts = []
    if ordered:
        parts += [table(HEADINGS, [_cells(case) for case in ordered], ALIGNMENT), _summary(ordered)]
    if failures:
        parts.append("Not measured:\n\n" + "\n".join(f"- {failure}" for failure in failures))
    return "\n\n".join(parts) + "\n"


def _cells(case: Comparison) -> list[str]:
    low, high = case.quartiles
    ratio = f"{case.ratio:.3f}"
    return [
        case.name,
        f"{1e3 * statistics.median(case.old):.4g}",
        f"{1e3 * statistics.median(case.new):.4g}",
        f"**{ratio}**" if case.ratio > BASE_RATIO else ratio,
        f"{low:.3f}–{high:.3f}",
        str(len(case.new)),
        "yes" if case.same else "**no**",
    ]


def _summary(ordered: Sequence[Comparison]) -> str:
    """Say how the trees compare; the first case is the slowest."""
    mean = geometric_mean([case.ratio for case in ordered])
    slower = sum(case.ratio > BASE_RATIO for case in ordered)
    other = sum(not case.same for case in ordered)
    return (
        f"{len(ordered)} cases: geometric mean {mean:.3f}, worst {ordered[0].ratio:.3f} "
        f"({ordered[0].name}), {slower} above {BASE_RATIO}, {other} with other bits."
    )
