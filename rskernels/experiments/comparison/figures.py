"""The figures of a comparison, over the gradient samples and over the epochs."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rskernels._python.extras import train_extra
from rskernels.experiments.comparison.intervals import Result, mean_of

COLOURS = 256  # of a figure


def draw_accuracy(results: Sequence[Result], path: Path) -> None:
    """Draw accuracies against gradient samples: means, and a band of one standard error."""
    figure, panels = _panels(2)
    measures = {"balanced_accuracy": "balanced accuracy", "worst_accuracy": "worst class"}
    for axes, (measure, title) in zip(panels, measures.items(), strict=True):
        for r in results:
            style = "--" if r.is_baseline else "-"
            if r.courses:
                spent = mean_of(r.courses["gradient_samples"])
                _draw(axes, spent, r.courses[measure], r.title, style)
            elif not math.isnan(level := float(mean_of(r.measures[measure]))):
                axes.axhline(level, color="black", linestyle=":", label=r.title)
        axes.set(xlabel="gradient samples", title=title, ylim=(0, 1), xscale="log")
    _finish(figure, panels, path)


def draw_envelopes(results: Sequence[Result], path: Path) -> None:
    """Draw acceptance, M and excess mass over the epochs."""
    figure, panels = _panels(3)
    titles = {"acceptance": "acceptance", "M": "M", "delta": "δ̂, excess mass"}
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        for r in results:
            values = r.courses[measure]
            _draw(axes, np.arange(1, values.shape[1] + 1), values, r.title, "-")
        axes.set(xlabel="epoch", title=title)
        if measure == "M":
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1.02)
    _finish(figure, panels, path)


def _panels(count: int) -> tuple[Any, Any]:
    with train_extra():
        from matplotlib.figure import Figure
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    return figure, figure.subplots(1, count)


def _draw(axes: Any, x: np.ndarray, values: np.ndarray, name: str, style: str) -> None:
    """Draw the mean of ``[seeds, n]``."""
    values = values[~np.isnan(values).all(axis=1)]  # of the runs that did not fail
    mean = values.mean(axis=0)
    error = values.std(axis=0, ddof=min(1, len(values) - 1)) / math.sqrt(len(values))
    (line,) = axes.plot(x, mean, style, label=name)
    axes.fill_between(x, mean - error, mean + error, color=line.get_color(), alpha=0.15)


def _finish(figure: Any, panels: Any, path: Path) -> None:
    for axes in panels:
        axes.grid(alpha=0.3)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize="small", loc="outside lower center", ncols=4)
    with train_extra():
        from PIL import Image
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=80)
    # A palette: a third of the bytes, in a file that is kept under version control.
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(path, optimize=True)
