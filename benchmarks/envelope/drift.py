"""How M follows ratios whose scale drifts: the figure of the envelope's report."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from rskernels import Envelope

# Ratios whose scale moves by a factor of 10 over the rows.
DRIFT_ROWS = 100_000
DRIFT_BATCH = 1000
HALF_LIFE = 2000
RATE = 0.3


def draw_drift(path: Path) -> None:
    """Draw how "decayed" follows a drift up and down again, and how "budget" holds its rate."""
    from matplotlib.figure import Figure

    generator = np.random.default_rng(0)
    up = np.linspace(0.0, math.log(10.0), DRIFT_ROWS)
    scale = np.concatenate((up, up[::-1])).reshape(-1, DRIFT_BATCH)
    decayed = Envelope("decayed", half_life=HALF_LIFE)
    budget = Envelope("budget", rate=RATE, half_life=HALF_LIFE)
    still = Envelope("budget", rate=RATE)
    pilot = np.log(generator.random(DRIFT_BATCH))
    for envelope in (decayed, budget, still):
        envelope.update(pilot)
    course = []
    for tops in scale:
        log_ratio = np.log(generator.random(DRIFT_BATCH)) + tops
        chances = [
            np.minimum(1.0, np.exp(log_ratio - envelope.log_M().item())).mean()
            for envelope in (budget, still)
        ]
        course.append((tops[-1], decayed.log_M().item(), *chances))
        for envelope in (decayed, budget, still):
            envelope.update(log_ratio)
    top, followed, held, lost = np.array(course).T
    rows = DRIFT_BATCH / 1000 * np.arange(1, len(course) + 1)
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(rows, np.exp(top), label="largest ratio possible")
    left.plot(rows, np.exp(followed), label=f"M, decayed, half-life {HALF_LIFE}")
    left.set(yscale="log", ylabel="ratio")
    right.axhspan(0.9 * RATE, 1.1 * RATE, alpha=0.15, label="±10 %")
    right.plot(rows, held, label=f"budget {RATE:g}, half-life {HALF_LIFE}")
    right.plot(rows, lost, label=f"budget {RATE:g}, never forgets")
    right.set(ylabel="acceptance of the next batch", ylim=(0, 1))
    for axes in (left, right):
        axes.set_xlabel("thousand rows")
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
