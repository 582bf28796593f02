"""The figure of a selection: rewards before and after, and how much is kept of each prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rskernels.pipeline.store.write import atomic
from rskernels.rsft.say import say

BARS = 60
"""At most, of rewards."""


def draw(report: dict[str, Any], path: Path) -> bool:
    """Draw the figure as PNG, and return whether there is one: matplotlib may be missing."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        say("the report has no figure: matplotlib is not installed")
        return False
    figure = Figure(figsize=(10, 4), layout="constrained")
    rewards, prompts = figure.subplots(1, 2)
    _draw_rewards(rewards, report["rewards"])
    shares = np.array(report["prompts"]["acceptance_histogram"])
    edges = np.linspace(0.0, 1.0, len(shares) + 1)
    prompts.bar(edges[:-1], shares, width=1.0 / len(shares), align="edge", color="tab:green")
    prompts.set(xlabel="share of a prompt's answers that is kept", ylabel="prompts", xlim=(0, 1))
    for axes in (rewards, prompts):
        axes.grid(alpha=0.3)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return True


def _draw_rewards(axes: Any, rewards: list[list[float]]) -> None:
    """Draw the share of rows by reward, of all and of those kept."""
    if rewards:
        values, rows, kept = np.array(rewards).T
        if len(values) > BARS:
            edges = np.linspace(values.min(), values.max(), BARS + 1)
            rows, kept = (np.histogram(values, edges, weights=of)[0] for of in (rows, kept))
            values = (edges[1:] + edges[:-1]) / 2.0
        gaps = np.diff(values)
        width = 0.4 * (gaps.min() if len(gaps) else 1.0)
        beside = ((rows, -0.5, "all", "tab:gray"), (kept, 0.5, "kept", "tab:blue"))
        for of, side, label, color in beside:
            total = of.sum()
            if total:
                axes.bar(values + side * width, of / total, width=width, label=label, color=color)
        axes.legend()
        if len(values) <= 5:
            axes.set_xticks(values)
    axes.set(xlabel="reward", ylabel="share of rows")
