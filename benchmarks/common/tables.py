"""Markdown: tables, and numbers as they stand in them."""

from __future__ import annotations

import math
from collections.abc import Sequence

MIB = 2**20


def table(
    headings: Sequence[str], lines: Sequence[Sequence[str]], alignment: Sequence[str] | None = None
) -> str:
    marks = alignment or (":--",) * len(headings)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, marks, *lines))


def number(value: float) -> str:
    if math.isnan(value):
        return ""
    if value >= 100.0:
        return f"{value:.0f}"
    return f"{value:.3f}" if value < 0.1 else f"{value:.3g}"


def speed(ratio: float) -> str:
    """Return how many times faster, bold where it is slower."""
    if math.isnan(ratio):
        return ""
    text = f"{ratio:.1f}" if ratio >= 9.95 else f"{ratio:.2f}"
    return f"**{text}**" if ratio < 1.0 else text


def verdict(holds: bool) -> str:
    return "met" if holds else "**not met**"


def requirements(measured: dict[str, tuple[float, float]]) -> str:
    """Return a list of what was measured and the least that is accepted, by name."""
    return "\n".join(
        f"- {name}: {value:.3g}, at least {least:.3g} required: {verdict(value >= least)}"
        for name, (value, least) in measured.items()
    )
