"""The figures of the comparison."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rskernels._python.extras import train_extra
from rskernels.experiments.lm.analysis import (
    DISTINCT,
    KL,
    PASS,
    REWARD,
    START,
    TITLES,
    Measure,
    Runs,
)
from rskernels.experiments.lm.methods import family_of

LINES = {"nothing": ":", "exact": "-", "rival": "--", "gradient": "-."}
PALETTE = 128  # colours of a file


def draw_courses(tasks: Sequence[Runs], path: Path) -> None:
    """Draw the share of right answers after each round, or the mean reward where that is aimed at.

    Means over seeds.
    """
    figure, panels = _panels(len(tasks))
    for axes, runs in zip(panels, tasks, strict=True):
        graded = bool(runs.subject.enumerated)
        for key in runs.methods:
            if key == START:
                continue
            course = runs.course(key, "test_reward" if graded else "pass_at_1")
            if len(course):
                axes.plot(course.mean(0), marker=".", **_style(key, runs))
        axes.set(
            xlabel="rounds, of equal tokens", xticks=range(runs.subject.rounds + 1),
            title=f"{runs.subject.name}: {'mean reward' if graded else 'pass@1'}",
        )  # fmt: skip
    _finish(figure, panels, path)


def draw_trades(tasks: Sequence[Runs], path: Path) -> None:
    """Draw what was gained against the divergence from the start, and against diversity."""
    figure, panels = _panels(len(tasks), rows=2)
    for place, runs in enumerate(tasks):
        gain = REWARD if runs.subject.enumerated else PASS
        for axes, measure in ((panels[place], KL), (panels[place + len(tasks)], DISTINCT)):
            for key in runs.methods:
                _point(axes, runs, key, measure, gain)
            axes.set(xlabel=f"{measure.heading}{', nats' * (measure is KL)}", ylabel=gain.heading)
        panels[place].set_title(runs.subject.name)
    _finish(figure, panels, path)


def _point(axes: Any, runs: Runs, key: str, x: Measure, y: Measure) -> None:
    (across, wide), (up, high) = runs.mean(key, x), runs.mean(key, y)
    axes.errorbar(
        across, up, xerr=0.0 if math.isnan(wide) else wide, yerr=0.0 if math.isnan(high) else high,
        fmt={"exact": "o", "rival": "s", "gradient": "^"}.get(_family(key, runs), "x"),
        markersize=5, linewidth=1, color=_style(key, runs)["color"], label=TITLES[key],
    )  # fmt: skip


def _family(key: str, runs: Runs) -> str:
    return "nothing" if key == START else family_of(key, runs.subject.form)


def _style(key: str, runs: Runs) -> dict[str, Any]:
    names = list(TITLES)
    with train_extra():
        from matplotlib import colormaps
    colour = "black" if key == START else colormaps["tab20"](names.index(key) - 1)
    return {"color": colour, "linestyle": LINES[_family(key, runs)], "label": TITLES[key]}


def _panels(count: int, rows: int = 1) -> tuple[Any, Any]:
    with train_extra():
        from matplotlib.figure import Figure
    figure = Figure(figsize=(4.2 * count, 3.4 * rows + 1.4), layout="constrained")
    return figure, figure.subplots(rows, count, squeeze=False).flatten()


def _finish(figure: Any, panels: Any, path: Path) -> None:
    shown: dict[str, Any] = {}
    for axes in panels:
        axes.grid(alpha=0.3)
        handles, names = axes.get_legend_handles_labels()
        shown = {**dict(zip(names, handles, strict=True)), **shown}
    figure.legend(
        shown.values(), shown.keys(), fontsize="small", loc="outside lower center", ncols=4
    )
    with train_extra():
        from PIL import Image
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=80)
    # A palette: a third of the bytes, in a file that is kept under version control.
    Image.open(drawn).convert("RGB").quantize(PALETTE).save(path, optimize=True)
