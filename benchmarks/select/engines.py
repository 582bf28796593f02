"""The same selection by one process and by Ray on one and two workers.

    python -m benchmarks.select.engines [--rows N] [--law N] [--folder FOLDER] [--out FOLDER]

Workers are warm: each has made a small selection. What Ray is worth is a ratio of times of one
Ray, measured in turns.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import machine, tables
from benchmarks.common.results import RESULTS
from benchmarks.select import law, rows

WORKERS, TURNS = (1, 2), 3
LEAST_GAIN = 1.5
WARM_ROWS = 4 * rows.GROUP


def config_of(parts: bool) -> Any:
    """Return the selection: prompts hashed, ids in a column."""
    from rskernels.pipeline import Columns, Rule, SelectConfig

    return SelectConfig(Rule("verifier", beta=0.2), Columns(id="id"), parts=parts)


def timed(path: Path, out: Path, engine: Any, parts: bool) -> tuple[float, float]:
    """Return the seconds of a selection, and those of its pieces, one by one."""
    from rskernels.pipeline import select

    shutil.rmtree(out, ignore_errors=True)
    begin = time.perf_counter()
    report = select([path], out, config_of(parts), engine=engine, piece_size=rows.GROUP)
    return time.perf_counter() - begin, report["seconds"]


def speeds(count: int, folder: Path) -> str:
    """Return the times of both numbers of workers, as Markdown."""
    import ray

    from rskernels.pipeline import RayEngine

    path, small = folder / f"engines-{count}.parquet", folder / "small.parquet"
    for where, size in ((path, count), (small, WARM_ROWS)):
        if not where.exists():
            rows.write(where, size)
    begin = time.perf_counter()
    ray.init(num_cpus=sum(WORKERS), include_dashboard=False, log_to_driver=False, address="local")
    engines = {n: RayEngine(n) for n in WORKERS}
    for n, engine in engines.items():
        timed(small, folder / f"warm-{n}", engine, False)
    started = time.perf_counter() - begin
    seen: dict[tuple[bool, int], list[float]] = {(p, n): [] for p in (False, True) for n in WORKERS}
    for turn in range(TURNS):
        for parts, n in list(seen) if turn % 2 else list(seen)[::-1]:
            whole, pieces = timed(path, folder / f"on-{n}-{parts}", engines[n], parts)
            print(f"{n} workers: {whole:.2f} s, pieces {pieces:.2f} s, {parts}", file=sys.stderr)
            seen[parts, n].append(whole)
    names = [folder / f"on-{n}-False" / "accepted.parquet" for n in WORKERS]
    assert filecmp.cmp(*names, shallow=False)
    ray.shutdown()
    lines, required = [], {}
    for (parts, n), times in seen.items():
        middle, result = statistics.median(times), "a file a piece" if parts else "one file"
        spread = f"{min(times):.2f} to {max(times):.2f}"
        lines.append([result, str(n), f"{middle:.2f}", spread, f"{count / middle / 1e6:.2f}"])
        if n == WORKERS[0]:
            pairs = zip(times, seen[parts, WORKERS[1]], strict=True)
            gain = statistics.median(one / two for one, two in pairs)
            required[f"times faster on two workers, {result}"] = gain, LEAST_GAIN
    headings = ("result", "workers", "whole, s", "least and most", "million rows a second")
    return "\n\n".join(
        [
            f"{count:,} rows, a verifier, prompts hashed, pieces of {rows.GROUP:,} rows, "
            f"{TURNS} turns. Whole is from the first piece to the report. "
            f"Ray's start and the workers' imports, once a run, took {started:.0f} s more.",
            tables.table(headings, lines, (":--", "--:", "--:", "--:", "--:")),
            tables.requirements(required),
        ]
    )


def same(count: int, folder: Path) -> str:
    """Return whether Ray keeps what one process keeps, of every form and order."""
    from rskernels.pipeline import RayEngine

    lines = []
    with RayEngine(2) as engine:
        for form in law.RULES:
            begin = time.perf_counter()
            of_one = law.outcomes(form, count, folder)
            on_ray = law.outcomes(form, count, folder, engine)
            alike = all(np.array_equal(of_one[name].ids, on_ray[name].ids) for name in of_one)
            print(form, alike, f"{time.perf_counter() - begin:.1f} s", file=sys.stderr)
            kept = next(iter(on_ray.values())).kept
            lines.append([f"`{form}`", f"{kept:,}", "yes" if alike else "**no**"])
    return tables.table(("form", "kept", "the same rows on Ray, in every order"), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--law", type=int, default=1_000_000, help="proposals that are compared")
    parser.add_argument("--folder", type=Path, help="for the data; else one that is removed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", choices=("speeds", "same"), help="print one table, write none")
    options = parser.parse_args()
    about, versions = machine.cpu(), machine.versions()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.only == "speeds":
            print(speeds(options.rows, folder))
            return
        if options.only == "same":
            print(same(options.law, folder))
            return
        parts = [
            "# Engines of rskernels select",
            "## One worker of Ray, and two",
            speeds(options.rows, folder),
            "## One process, and Ray",
            f"{options.law:,} proposals of 200 answers, as drawn, sorted in 3 shards, and shuffled "
            "in 8; pieces of 262,144 rows, on two workers.",
            same(options.law, folder),
            f"{about['processor']}, {about['load_at_start']} load at the start, ray "
            f"{versions.get('ray', '')}, pyarrow {versions['pyarrow']}, {machine.today()}.",
        ]
    text = "\n\n".join(parts) + "\n"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "select_engines.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
