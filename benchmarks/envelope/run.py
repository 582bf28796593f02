"""Speed of Envelope.update against the read limit and NumPy, and the figure of a drifting stream.

python -m benchmarks.envelope.run [--out FOLDER]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import machine, tables
from benchmarks.common.results import RESULTS
from benchmarks.common.thresholds import (
    ENVELOPE_GROUPED_ROWS,
    ENVELOPE_LIMIT_SHARE,
    ENVELOPE_NUMPY_TIMES,
    ENVELOPE_QUANTILE_ROWS,
)
from benchmarks.common.timing import Timing, alternate
from benchmarks.cpu.read_limit import READERS
from benchmarks.envelope.drift import draw_drift
from rskernels import Envelope

ROWS = 10_000_000
GROUPS = 10_000
M = 2.0
SECONDS = 60.0


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
    return alternate(calls, SECONDS, (5, 30))


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


def requirements(timings: dict[str, Timing]) -> dict[str, tuple[float, float]]:
    """Return what was measured and the least that is required, by name."""
    limit = min(timings[name].median for name in READERS)
    largest = timings["max"].median
    return {
        "max, of the read limit": (limit / largest, ENVELOPE_LIMIT_SHARE),
        "max, times NumPy": (timings["numpy"].median / largest, ENVELOPE_NUMPY_TIMES),
        "quantile, rows a second": (ROWS / timings["quantile"].median, ENVELOPE_QUANTILE_ROWS),
        f"max with {GROUPS} groups, rows a second": (
            ROWS / timings[f"max, {GROUPS} groups"].median,
            ENVELOPE_GROUPED_ROWS,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    timings = measure()
    text = f"{table(timings)}\n\n{tables.requirements(requirements(timings))}"
    about, versions = machine.cpu(), machine.versions()
    (out / "envelope.md").write_text(
        f"{text}\n\n{about['processor']}, {about['threads']} threads, torch {versions['torch']}, "
        f"{machine.today()}. Medians of alternating rounds; the read limit is the row maximum of "
        "the same array. A quarter of the rows are above the M of `fixed`.\n\n"
        "![M and acceptance while the ratios' scale moves by a factor of 10](envelope-drift.png)\n",
        encoding="utf-8",
    )
    draw_drift(out / "envelope-drift.png")
    print(text)


if __name__ == "__main__":
    main()
