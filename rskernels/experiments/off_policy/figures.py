"""The figures of the study."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rskernels._python.extras import train_extra

STYLES = {
    "no correction": ("black", "-"),
    "TIS, token, cap 2": ("tab:brown", "--"),
    "TIS, sequence, cap 3": ("tab:orange", "--"),
    "mask, token, 0.5 to 2": ("tab:olive", ":"),
    "mask, sequence, to 3, weighted": ("tab:pink", ":"),
    "PPO clip, 0.2": ("tab:gray", "-."),
    "importance weights, self-normalised": ("tab:blue", "--"),
    "prefix rejection, M 1": ("tab:cyan", "-"),
    "rejection, M max": ("tab:red", "-"),
    "rejection, M budget:0.5": ("tab:purple", "-"),
    "control, M budget:0.5": ("tab:green", "-"),
    "half at random, TIS, token, cap 2": ("tab:brown", ":"),
}
"""What is drawn, of all that is in the tables."""
COLOURS = 128  # of a figure


def draw_enumerated(pieces: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw bias and spread over the distance of the policies, a row of panels a reward."""
    rewards = list(dict.fromkeys(p["reward"] for p in pieces))
    figure, grid = _panels(len(rewards), 4)
    titles = {
        "bias": "bias of the gradient",
        "sd": "its standard deviation",
        "sd_equal_tokens": "at equal gradient tokens",
        "rmse": "root of mean squared error",
    }
    for panels, reward in zip(grid, rewards, strict=True):
        # The pair of noise is none of the ages, and stands in the table alone.
        chosen = [p for p in pieces if p["reward"] == reward and "noise" not in p["pair"]]
        distance = [p["divergence"] for p in chosen]
        for axes, (measure, title) in zip(panels, titles.items(), strict=True):
            for name, (colour, line) in STYLES.items():
                rows = [r for p in chosen for r in p["rows"] if r["name"] == name]
                if not rows:
                    continue
                values = [r.get(measure, np.nan) for r in rows]
                axes.plot(distance, values, line, color=colour, label=name, marker=".")
            fresh = [p["fresh"][measure] for p in chosen]
            if measure != "bias":
                axes.plot(distance, fresh, color="gold", linewidth=4, zorder=0, label="fresh")
            axes.set(xlabel="KL(new‖old), nats", title=f"{reward}: {title}", xscale="log")
            if measure == "bias":
                axes.set_ylim(-0.05, 2.6)
            else:
                axes.set_yscale("log")
    _finish(figure, grid, path)


def draw_trained(pieces: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the return against steps and against gradient tokens, a column of panels an age."""
    ages = sorted({p["age"] for p in pieces if p["age"]})
    figure, grid = _panels(2, len(ages))
    for number, age in enumerate(ages):
        for piece in pieces:
            if piece["age"] not in (0, age) or (piece["age"] and piece["name"] not in STYLES):
                continue
            returns = np.array(piece["returns"]).mean(0)
            tokens = np.array(piece["tokens"]).mean(0) / 1000.0
            colour, line = STYLES[piece["name"]] if piece["age"] else ("gold", "-")
            style = {"color": colour, "label": piece["name"] if piece["age"] else "fresh"}
            grid[0][number].plot(_smooth(returns), line, **style)
            grid[1][number].plot(tokens, _smooth(returns), line, **style)
        grid[0][number].set(xlabel="steps", title=f"return, rollouts {age} updates old")
        grid[1][number].set(xlabel="thousand gradient tokens", title=f"return, {age} updates old")
    _finish(figure, grid, path)


def _smooth(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the running mean over nine steps, fewer at the ends."""
    window = np.ones(min(9, len(values)))
    counts = np.convolve(np.ones_like(values), window, "same")
    smoothed: np.ndarray[Any, Any] = np.convolve(values, window, "same") / counts
    return smoothed


def _panels(rows: int, columns: int) -> tuple[Any, Any]:
    with train_extra():
        from matplotlib.figure import Figure
    figure = Figure(figsize=(3.6 * columns, 3.4 * rows + 1.0), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _finish(figure: Any, grid: Any, path: Path) -> None:
    for axes in grid.flat:
        axes.grid(alpha=0.3)
    handles, names = grid.flat[-1].get_legend_handles_labels()
    figure.legend(handles, names, fontsize="small", loc="outside lower center", ncols=4)
    with train_extra():
        from PIL import Image
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=80)
    # A palette: a third of the bytes, in a file that is kept under version control.
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(path, optimize=True)
