"""The same selection by one process and by Ray on one and two workers.

    python -m benchmarks.select.engines [--rows N] [--folder FOLDER] [--seconds S]

Workers are warm: each has made a small selection. What Ray is worth is a ratio of times of one
Ray, measured in turns.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import statistics
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.common import machine, tables
from benchmarks.select import rows
from benchmarks.select.kept import kept_in, options_of

WORKERS, TURNS = (1, 2), 3
LEAST_GAIN = 1.5
CASES = {
    f"{name} {n}": (parts, n)
    for parts, name in ((False, "one file"), (True, "parts"))
    for n in WORKERS
}
"""Whether what is kept stays in parts, and how many workers."""
WARM_ROWS = 8 * rows.GROUP


def config_of(parts: bool) -> Any:
    """Return the selection: prompts hashed, ids in a column."""
    from rskernels.pipeline import Columns, Rule, SelectConfig

    return SelectConfig(Rule("verifier", beta=0.2), Columns(id="id"), parts=parts)


def timed(
    path: Path, out: Path, engine: Any, parts: bool, size: int | None = None
) -> tuple[float, float]:
    """Return the seconds of a selection, and those of its pieces, one by one."""
    from rskernels.pipeline import select

    shutil.rmtree(out, ignore_errors=True)
    begin = time.perf_counter()
    report = select([path], out, config_of(parts), engine=engine, piece_size=size)
    return time.perf_counter() - begin, report["seconds"]


class Turns:
    """One Ray and its warm workers, that make the same selections again and again."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder
        self.engines: dict[int, Any] = {}
        self.started, self.load = 0.0, os.getloadavg()[0]

    def __call__(self, turn: str) -> dict[str, Any]:
        """Return the seconds of each selection, by ``CASES``."""
        if not self.engines:
            self._start()
        seen = {}
        for case in list(CASES)[:: 1 if int(turn) % 2 else -1]:
            parts, n = CASES[case]
            seen[case], pieces = timed(
                self.path, self.folder / case.replace(" ", "-"), self.engines[n], parts
            )
            print(f"{case}: {seen[case]:.2f} s, pieces {pieces:.2f} s", file=sys.stderr)
        names = [self.folder / f"one-file-{n}" / "accepted.parquet" for n in WORKERS]
        assert filecmp.cmp(*names, shallow=False)
        return {"started": self.started, "load": self.load, **seen}

    def _start(self) -> None:
        import ray

        from rskernels.pipeline import RayEngine

        small = self.folder / "small.parquet"
        if not small.exists():
            rows.write(small, WARM_ROWS)
        begin = time.perf_counter()
        ray.init(
            num_cpus=sum(WORKERS), include_dashboard=False, log_to_driver=False, address="local"
        )
        self.engines = {n: RayEngine(n) for n in WORKERS}
        for n, engine in self.engines.items():
            timed(small, self.folder / f"warm-{n}", engine, False, rows.GROUP)
        self.started = time.perf_counter() - begin


def speeds(count: int, folder: Path, seconds: float) -> str:
    """Return the times of both numbers of workers, as Markdown."""
    path = folder / "rows.parquet"
    if not path.exists():
        rows.write(path, count)
    turns = map(str, range(TURNS))
    made = kept_in(folder / "engines.jsonl", turns, Turns(path, folder), seconds)
    lines, required = [], {}
    for case, (parts, n) in CASES.items():
        times = [turn[case] for turn in made.values()]
        middle, result = statistics.median(times), "a file a piece" if parts else "one file"
        spread = f"{min(times):.2f} to {max(times):.2f}"
        lines.append([result, str(n), f"{middle:.2f}", spread, f"{count / middle / 1e6:.2f}"])
        if n == WORKERS[1]:
            alone = case[: -len(str(n))] + str(WORKERS[0])
            gain = statistics.median(turn[alone] / turn[case] for turn in made.values())
            required[f"times faster on two workers, {result}"] = gain, LEAST_GAIN
    started, load = (max(turn[name] for turn in made.values()) for name in ("started", "load"))
    where = "in memory" if folder.resolve().is_relative_to("/dev/shm") else "on a disk"
    headings = ("result", "workers", "whole, s", "least and most", "million rows a second")
    return "\n\n".join(
        [
            f"{count:,} rows {where}, a verifier, prompts hashed, {TURNS} turns. Whole is from the "
            "first piece to the report. Ray's start and the workers' imports, once a run, took "
            f"{started:.0f} s more. The load was {load:.1f} before they started, if not less.",
            tables.table(headings, lines, (":--", "--:", "--:", "--:", "--:")),
            tables.requirements(required),
        ]
    )


def main() -> None:
    options = options_of(__doc__, 10_000_000).parse_args()
    about, versions = machine.cpu(), machine.versions()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        parts = [
            "# Engines of rskernels select",
            "## One worker of Ray, and two",
            speeds(options.rows, folder, options.seconds),
            f"{about['processor']}, ray "
            f"{metadata.version('ray')}, pyarrow {versions['pyarrow']}, {machine.today()}.",
        ]
    text = "\n\n".join(parts) + "\n"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "select_engines.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
