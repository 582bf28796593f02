"""Speed and memory of ``rskernels select``, and the law of what it keeps.

    python -m benchmarks.select.run [--rows N] [--law N] [--folder FOLDER] [--seconds S]

Each measurement is a process of its own, on one core. The rows are generated.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import machine, tables
from benchmarks.select import law, rows
from benchmarks.select.kept import kept_in, options_of
from rskernels.pipeline import RayEngine

LEAST_RATE, MOST_MEMORY = 1e6, 1e9  # rows a second a core in the deciding pass, bytes
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "verifier, ids and groups in columns": (
        {"form": "verifier", "beta": 0.2}, {"id": "id", "group": "prompt_id"},
    ),
    "verifier, ids in a column, prompts hashed": (
        {"form": "verifier", "beta": 0.2}, {"id": "id"},
    ),
    "verifier, prompts hashed with a sample column": (
        {"form": "verifier", "beta": 0.2}, {"sample": "sample"},
    ),
    "verifier, prompts and completions hashed, equal rows counted": (
        {"form": "verifier", "beta": 0.2}, {},
    ),
    "bounded, ids in a column": (
        {"form": "bounded", "beta": 1.0, "bound": 6.0}, {"id": "id", "reward": "score"},
    ),
    "quantile, all answers to a prompt together": (
        {"form": "quantile", "beta": 0.5}, {"id": "id", "reward": "score"},
    ),
}  # fmt: skip
REQUIRED = tuple(name for name in CASES if name.startswith("verifier, ids") or "sample" in name)


def measure(case: str, path: Path, out: Path) -> dict[str, Any]:
    """Make one selection in this process, and return what it took."""
    import pyarrow as pa
    import torch

    from rskernels.pipeline import Columns, Rule, SelectConfig, select

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    rule, columns = CASES[case]
    begin, begin_cpu = time.perf_counter(), time.process_time()
    report = select([path], out, SelectConfig(Rule(**rule), Columns(**columns)))
    return {
        "rows": report["rows"],
        "kept": report["overall"]["accepted"],
        "deciding": report["deciding_seconds"],
        "deciding_cpu": report["deciding_cpu_seconds"],
        "writing": report["seconds"] - report["deciding_seconds"],
        "whole": time.perf_counter() - begin,
        "whole_cpu": time.process_time() - begin_cpu,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def in_a_process(case: str, path: Path, folder: Path) -> dict[str, Any]:
    """Measure in a process of its own, on one core."""
    out = folder / "selected"
    shutil.rmtree(out, ignore_errors=True)
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.select.run", "--case", case, str(path), str(out)],
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=True,
    )
    shutil.rmtree(out)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def speeds(count: int, folder: Path, seconds: float) -> str:
    """Return the measurements of all cases, as Markdown."""
    path = folder / "rows.parquet"
    if not path.exists():
        rows.write(path, count)
    lines, required = [], {}
    measured = kept_in(
        folder / "speeds.jsonl", CASES, lambda case: in_a_process(case, path, folder), seconds
    )
    for case in CASES:
        of = measured[case]
        # By processor seconds, as the other core may be busy and this one shared.
        rate = of["rows"] / of["deciding_cpu"]
        lines.append(
            [
                case, f"{of['rows']:,}", f"{of['kept']:,}", f"{rate / 1e6:.2f}",
                f"{of['deciding_cpu']:.1f}", f"{of['deciding']:.1f}", f"{of['whole_cpu']:.1f}",
                f"{of['whole']:.1f}", f"{of['memory'] / 2**20:.0f}",
            ]
        )  # fmt: skip
        if case in REQUIRED:
            required[f"million rows a second in the deciding pass, {case}"] = (
                rate / 1e6, LEAST_RATE / 1e6,
            )  # fmt: skip
        required[f"1 GB over its memory, {case}"] = (MOST_MEMORY / of["memory"], 1.0)
    headings = (
        "what", "rows", "kept", "million a second a core, deciding", "deciding, CPU s",
        "deciding, s", "whole, CPU s", "whole, s", "memory, MiB",
    )  # fmt: skip
    size = f"Parquet of {path.stat().st_size / count:.0f} bytes a row, 16 answers a prompt."
    alignment = (":--", *("--:",) * 8)
    return "\n\n".join(
        [size, tables.table(headings, lines, alignment), tables.requirements(required)]
    )


def main() -> None:
    parser = options_of(__doc__, 10_000_000)
    parser.add_argument("--law", type=int, default=1_000_000, help="proposals of the law's table")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        case, path, out = options.case
        print(json.dumps(measure(case, Path(path), Path(out))))
        return
    about, versions = machine.cpu(), machine.versions()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        parts = [
            "# rskernels select",
            "## Speed and memory",
            speeds(options.rows, folder, options.seconds),
        ]
        with RayEngine(2) as engine:
            of_law = kept_in(
                folder / "law.jsonl",
                law.RULES,
                lambda form: law.line(form, options.law, folder, engine),
                options.seconds,
            )
        of_few = kept_in(
            folder / "few.jsonl",
            [f"{form} {size}" for form in law.WITH_PILOT for size in law.SIZES],
            lambda case: law.line_of_few(
                case.split()[0], int(case.split()[1]), options.law, folder
            ),
            options.seconds,
        )
    headings = (
        "form", "kept", "p of chi-squared", "total variation", "same rows in every order",
        "same rows on Ray",
    )  # fmt: skip
    few = ("form", "pilot", "kept", "p of chi-squared", "from the tilted law")
    parts += [
        "## What is kept",
        f"{options.law:,} proposals of 200 answers, Zipf's law, rewards N(0, 1), beta {law.BETA}. "
        "The least p-value over the orders of a chi-squared test against the policy times "
        f"exp(reward/beta), which must be above {law.CHANCE}; the distance from it, least and most "
        "over the orders; and whether the same rows are kept as drawn, sorted by reward in 1, 3 "
        "and 8 files, and shuffled in 1, 3 and 8, by one process and by two workers of Ray. `rso` "
        "decides 64 answers a prompt, as published. The others have one group, and a pilot that is "
        "the policy's law itself.",
        tables.table(headings, [of_law[form] for form in law.RULES]),
        "A pilot of each prompt, of some answers: the p-value against the law that follows from "
        "these pilots, and the total variation of that law, of all prompts together, from the "
        "tilted one, which is what so small a pilot costs.",
        tables.table(few, list(of_few.values())),
        f"{about['processor']}, one core, pyarrow {versions['pyarrow']}, "
        f"torch {versions['torch']}, {machine.today()}. Deciding is reading the columns that are "
        "needed, hashing, deciding and the sums of the report; whole is all, with first passes, "
        "what is written and the report. CPU s are processor seconds, by which rates are taken.",
    ]
    text = "\n\n".join(parts) + "\n"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "select.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
