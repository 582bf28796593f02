"""Tabulate what the compiler makes of every Triton kernel, for GPUs that need not be present.

    python -m benchmarks.gpu.compile_ahead    # a minute or two

Writes ``benchmarks/results/kernels.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import machine
from benchmarks.common.results import RESULTS
from benchmarks.common.tables import table

SCRIPT = Path(__file__).parents[2] / "tests" / "kernels" / "gpu" / "compile_ahead.py"
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
FIELDS = (
    "kernel", "launch", "dtype", "threads", "registers", "spills", "shared", "load_bits", "code",
)  # fmt: skip

EXPLAINED = """\
Compiled as `rskernels/kernels/gpu/launch.py` launches them for aligned rows of 8,192 logits; no
GPU was needed. Each cell: registers a thread · bytes of registers spilled (on gfx942: registers
spilled) · bytes of shared memory a program · the narrowest load, in bits, that is needed to read
the logits (nothing where a launch reads none)."""


def compile_for(target: str) -> list[dict[str, Any]]:
    """Compile in a process of its own, into a cache of its own, and return what came of it."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    with tempfile.TemporaryDirectory() as cache:
        environment["TRITON_CACHE_DIR"] = cache
        command = [sys.executable, str(SCRIPT), target]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, encoding="utf-8"
        )
    if done.returncode:
        raise RuntimeError(f"{target}:\n{done.stderr}")
    return [{field: launch[field] for field in FIELDS} for launch in json.loads(done.stdout)]


def markdown(results: dict[str, Any]) -> str:
    """Return the report: a table a dtype, of the launches that every target compiled."""
    versions = ", ".join(f"{name} {value}" for name, value in results["versions"].items())
    parts = [
        "# Compiled ahead of time",
        f"{versions}.\n`{results['command']}`, {results['date']}.",
        EXPLAINED,
    ]
    targets = list(results["targets"])
    tables: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
    for target, launches in results["targets"].items():
        for launch in launches:
            rows = tables.setdefault(launch["dtype"], {})
            key = (launch["kernel"], launch["launch"])
            rows.setdefault(key, {})[target] = _cell(launch)
    for dtype, rows in tables.items():
        everywhere = {key: cells for key, cells in rows.items() if len(cells) == len(targets)}
        lines = [[*key, *(cells[t] for t in targets)] for key, cells in everywhere.items()]
        parts += [f"## {dtype}", table(("kernel", "launch", *targets), lines)]
    return "\n\n".join(parts) + "\n"


def _cell(launch: dict[str, Any]) -> str:
    numbers = (launch["registers"], launch["spills"], launch["shared"], launch["load_bits"] or "")
    return " · ".join(map(str, numbers)).removesuffix(" · ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "kernels.md")
    out = parser.parse_args().out
    results = {
        "date": machine.today(),
        "command": "python -m benchmarks.gpu.compile_ahead",
        "versions": machine.versions(),
        "targets": {target: compile_for(target) for target in TARGETS},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(markdown(results), encoding="utf-8")
    print(f"{out.name} written")


if __name__ == "__main__":
    main()
