"""The figures of the study."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rskernels._python.extras import train_extra
from rskernels.experiments.seconds.analysis import (
    LEVELS,
    Course,
    Outcome,
    course_of,
)
from rskernels.experiments.seconds.costs import Costs
from rskernels.experiments.seconds.methods import METHODS
from rskernels.experiments.seconds.model import WANTED, Ideal, speed_up

COLOURS = {
    "plain": "black",
    "accept-0.3": "tab:red",
    "accept-0.5": "tab:purple",
    "selective": "tab:blue",
    "oversample": "tab:green",
    "weights": "tab:olive",
}
LINES = {"step": "-", "kept": "--", "fresh": ":", "bf16": "-."}
PALETTE = 128  # colours of a file


def draw_courses(pieces: Sequence[dict[str, Any]], every: int, costs: Costs, path: Path) -> None:
    """Draw the mean accuracy against steps and against seconds."""
    figure, (left, right) = _panels(2)
    for method, entry in METHODS.items():
        runs = [course_of(p, every) for p in pieces if p["method"] == method]
        if not runs:
            continue
        mean = np.mean([run.accuracy for run in runs], axis=0)
        for number, (form, name) in enumerate(entry.forms.items()):
            style: dict[str, Any] = {
                "color": _colour(method),
                "linestyle": LINES[form],
                "label": name,
            }
            style["linewidth"] = 1.0 if "back" in method or "losses" in method else 1.8
            seconds = np.mean([run.seconds(form, costs) for run in runs], axis=0)
            right.plot(seconds, mean, **style)
            if not number:
                left.plot(_steps(runs[0]), mean, **style)
    left.set(xlabel="steps", title="Accuracy, by gradient steps of one size")
    right.set(xlabel="seconds, scoring included", title="The same, by seconds")
    for axes in (left, right):
        axes.set_ylim(0.6, None)
    _finish(figure, (right, left), path, columns=3)


def _steps(run: Course) -> Any:
    return run.counts["steps"]


def draw_speed(results: Sequence[Outcome], path: Path) -> None:
    """Draw each form's speed-up with its interval, at each level."""
    figure, (axes,) = _panels(1, width=8.0, height=0.32 * len(results) + 1.2)
    places = np.arange(len(results))[::-1]
    for shift, (level, marker) in zip(
        (0.22, 0.0, -0.22), zip(LEVELS, "ovs", strict=True), strict=True
    ):
        ratios = [result.speed_up[level] for result in results]
        means = np.array([r.mean for r in ratios])
        ends = [means - [r.low for r in ratios], [r.high for r in ratios] - means]
        axes.errorbar(
            means, places + shift, xerr=np.nan_to_num(np.abs(ends)), fmt=marker, markersize=4,
            linewidth=1, label=f"to {level:.0%} of plain training's accuracy",
        )  # fmt: skip
    axes.set_yticks(places, [result.name for result in results])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.axvline(WANTED, color="gray", linestyle="--", linewidth=1)
    axes.set(xlabel="times as fast as plain training", xscale="log")
    ticks = [0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    _finish(figure, (axes,), path, columns=3)


def draw_model(
    results: Sequence[Outcome], networks: Mapping[str, tuple[int, int, Costs]], path: Path
) -> None:
    """Draw the ratio of steps that each form needs, and the speed-up over a network's size.

    Parameters
    ----------
    results : sequence of Outcome
        Whose ratios at the last level are taken.
    networks : mapping
        Parameters, batch and costs of each.
    path : Path
        Of the file.
    """
    figure, (left, right) = _panels(2)
    rates = np.linspace(0.1, 1.0, 91)
    ideal = Ideal()
    forms = {"fresh": "fresh", "bf16": "bf16 at half a forward", "kept": "forward kept"}
    forms["step"] = "cached"
    for form, name in forms.items():
        needed = [ideal.needed(form, rate) for rate in rates]
        left.plot(rates, needed, LINES[form], color="black", label=name)
    chosen = [r for r in results if r.method.startswith("accept") and not r.method.endswith("back")]
    for result in chosen:
        rate = float(result.method.split("-")[1])
        ratio = result.steps[LEVELS[-1]]
        ends = [[ratio.mean - ratio.low], [ratio.high - ratio.mean]]
        if result.form != "kept":
            left.errorbar(
                rate, ratio.mean, yerr=np.nan_to_num(ends), fmt="o",
                color=_colour(result.method), markersize=4,
            )  # fmt: skip
        sizes = sorted(
            (parameters, batch, costs)
            for name, (parameters, batch, costs) in networks.items()
            if name.startswith("MLP")
        )
        ups = [speed_up(result.form, rate, ratio.mean, batch, c) for _, batch, c in sizes]
        right.plot(
            [s[0] for s in sizes], ups, LINES[result.form],
            color=_colour(result.method), marker=".", label=result.name,
        )  # fmt: skip
    left.set(
        xlabel="share accepted", ylim=(1.0, 4.0),
        title=f"Steps saved that make it {WANTED} times as fast",
        ylabel="plain training's steps over the method's",
    )  # fmt: skip
    right.axhline(WANTED, color="gray", linestyle="--", linewidth=1)
    right.axhline(1.0, color="black", linewidth=1)
    right.set(
        xlabel="parameters", xscale="log", title="Speed-up by measured costs, at the R measured"
    )
    left.legend(fontsize="small")
    _finish(figure, (right, left), path, columns=4)


def _colour(method: str) -> str:
    return next(colour for start, colour in COLOURS.items() if method.startswith(start))


def _panels(count: int, width: float = 5.6, height: float = 4.4) -> tuple[Any, Any]:
    with train_extra():
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width * count, height + 0.8), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _finish(figure: Any, panels: Sequence[Any], path: Path, columns: int) -> None:
    for axes in panels:
        axes.grid(alpha=0.3)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize="small", loc="outside lower center", ncols=columns)
    with train_extra():
        from PIL import Image
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=80)
    # A palette: a third of the bytes, in a file that is kept under version control.
    Image.open(drawn).convert("RGB").quantize(PALETTE).save(path, optimize=True)
