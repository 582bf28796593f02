"""Speed of Envelope.update against the read limit and NumPy, and the figure of a drifting stream.

python benchmarks/envelope.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch

import machine
from read_limit import READERS
from rskernels import Envelope
from timing import Timing, alternate

ROWS = 10_000_000
GROUPS = 10_000
M = 2.0

# The bars: at least this share of the read limit, times NumPy, and rows a second.
LIMIT_SHARE = 0.4
NUMPY_TIMES = 5.0
QUANTILE_ROWS = 20e6
GROUPED_ROWS = 100e6

# The drift: ratios whose scale moves by a factor of 10 over the rows.
DRIFT_ROWS = 100_000
DRIFT_BATCH = 1000
HALF_LIFE = 2000
RATE = 0.3


def numpy_statistics(log_ratio: np.ndarray, log_M: float) -> tuple[float, ...]:
    """Return what ``update`` keeps, as a good user would write it."""
    valid = log_ratio[log_ratio < np.inf]
    w = np.exp(valid)
    excess = np.maximum(w - np.float32(math.exp(log_M)), 0)
    return (
        float(valid.max()),
        len(valid),
        int((valid > log_M).sum()),
        float(excess.sum(dtype=np.float64)),
        float(w.sum(dtype=np.float64)),
        float(np.square(w).sum(dtype=np.float64)),
    )


def measure() -> dict[str, Timing]:
    generator = torch.Generator().manual_seed(0)
    log_ratio = torch.randn(ROWS, generator=generator)
    ids = torch.randint(GROUPS, (ROWS,), generator=generator)
    matrix, array = log_ratio.view(1000, -1), log_ratio.numpy()
    envelopes = {
        "max": Envelope(),
        "fixed": Envelope("fixed", M=M),
        "quantile": Envelope("quantile", level=0.9),
        "budget": Envelope("budget", rate=0.5),
        "decayed": Envelope("decayed", half_life=1e6),
    }
    calls = {name: (lambda read=read: read(matrix)) for name, read in READERS.items()}
    calls["numpy"] = lambda: numpy_statistics(array, 3.0)
    for name, envelope in envelopes.items():
        calls[name] = lambda envelope=envelope: envelope.update(log_ratio)
    for policy, options in (("max", {}), ("quantile", {"level": 0.9})):
        grouped = Envelope(policy, groups=GROUPS, **options)
        calls[f"{policy}, {GROUPS} groups"] = lambda grouped=grouped: grouped.update(log_ratio, ids)
    return alternate(calls, 60.0, (5, 30))


def table(timings: dict[str, Timing]) -> str:
    limit = min(timings[name].median for name in READERS)
    lines = [
        "| update of 10⁷ float32 log ratios | ms | million rows a second | of the read limit "
        "| × NumPy |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, timing in timings.items():
        rate = ROWS / timing.median / 1e6
        times = timings["numpy"].median / timing.median
        lines.append(
            f"| {name} | {1e3 * timing.median:.2f} | {rate:,.0f} "
            f"| {limit / timing.median:.2f} | {times:.1f} |"
        )
    return "\n".join(lines)


def bars(timings: dict[str, Timing]) -> dict[str, tuple[float, float]]:
    """Return what was measured and what is wanted, by name."""
    limit = min(timings[name].median for name in READERS)
    largest = timings["max"].median
    return {
        "max, of the read limit": (limit / largest, LIMIT_SHARE),
        "max, times NumPy": (timings["numpy"].median / largest, NUMPY_TIMES),
        "quantile, rows a second": (ROWS / timings["quantile"].median, QUANTILE_ROWS),
        f"max with {GROUPS} groups, rows a second": (
            ROWS / timings[f"max, {GROUPS} groups"].median,
            GROUPED_ROWS,
        ),
    }


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    timings = measure()
    met = bars(timings)
    lines = [f"{name}: {got:.3g}, wanted {wanted:.3g}" for name, (got, wanted) in met.items()]
    record = {
        "machine": machine.cpu(),
        "versions": machine.versions(),
        "date": machine.today(),
        "seconds": {name: timing._asdict() for name, timing in timings.items()},
        "bars": {name: {"got": got, "wanted": wanted} for name, (got, wanted) in met.items()},
    }
    (out / "envelope.json").write_text(json.dumps(record, indent=1) + "\n")
    text = f"{table(timings)}\n\n" + "\n".join(f"- {line}" for line in lines)
    (out / "envelope.md").write_text(
        f"{text}\n\n{machine.cpu()['processor']}, {machine.cpu()['threads']} threads, "
        f"{machine.today()}. Medians of alternating rounds; the read limit is the row maximum of "
        "the same array. A quarter of the rows are above the M of `fixed`.\n\n"
        "![M and acceptance while the ratios' scale moves by a factor of 10](envelope-drift.png)\n"
    )
    draw_drift(out / "envelope-drift.png")
    print(text)


if __name__ == "__main__":
    main()
