"""Tabulate what the compiler makes of every Triton kernel, for GPUs that need not be present.

    python -m benchmarks.gpu.compile_ahead    # about five minutes

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
from typing import Any, NamedTuple

from benchmarks.common import machine
from benchmarks.common.results import RESULTS
from benchmarks.common.tables import table
from benchmarks.gpu.linear import bound_tables, launch_tables

SCRIPTS = Path(__file__).parents[2] / "tests" / "kernels" / "gpu"
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
FIELDS = (
    "kernel", "launch", "dtype", "threads", "registers", "spills", "shared", "load_bits", "code",
    "loops",
)  # fmt: skip
LINEAR_FIELDS = ("kernel", "launch", "dtype", "registers", "spills", "shared", "products")

RESOURCES = """\
Compiled as `rskernels/kernels/gpu/launch.py` launches them for aligned rows of 16,384 logits; no
GPU was needed. Each cell: registers a thread · bytes of registers spilled (on gfx942: registers
spilled) · bytes of shared memory a program · the narrowest load, in bits, that is needed to read
the logits (nothing where a launch reads none)."""

COST = """\
Machine instructions a logit in the loops over a row, and how many barriers a trip meets: counted
in the same machine code, not timed. The dense form reads a row twice, the second time from a
cache, and both loops are counted. Behind the sign ≤ is the memory traffic, in TB/s, at which the
GPU would issue them if nothing ever waited: below the memory's own rate, which stands in the head,
instructions bind. A logit's traffic is what it is read as, and what is written for it: a byte of
the dense mask, with two float32 where all is told, or a gradient of the logit's size."""


class Card(NamedTuple):
    """A GPU, by its datasheet: what it issues, and what its memory gives."""

    name: str
    target: str
    units: int
    gigahertz: float
    lanes: int
    """Threads that a unit issues an instruction for, a cycle."""
    terabytes: float


CARDS = (
    Card("A100", "sm_80", 108, 1.41, 128, 2.04),
    Card("H100", "sm_90", 132, 1.755, 128, 3.35),
    Card("H200", "sm_90", 132, 1.755, 128, 4.8),
    Card("B200", "sm_100", 148, 1.85, 128, 8.0),
    Card("MI300X", "gfx942", 304, 2.1, 64, 5.3),
)
WRITTEN = {"dense mask": 1, "dense decide": 9, "gradient": None, "gradient at temperatures": None}
"""Bytes written a logit; None is the logit's own size."""
SIZES = {"bfloat16": 2, "float16": 2, "float32": 4}


def compile_for(target: str, script: str, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    """Compile in a process of its own, into a cache of its own, and return what came of it."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    with tempfile.TemporaryDirectory() as cache:
        environment["TRITON_CACHE_DIR"] = cache
        command = [sys.executable, str(SCRIPTS / script), target]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, encoding="utf-8"
        )
    if done.returncode:
        raise RuntimeError(f"{target}:\n{done.stderr}")
    return [{field: launch[field] for field in fields} for launch in json.loads(done.stdout)]


def markdown(results: dict[str, Any]) -> str:
    """Return the report: a table a dtype, of the launches that every target compiled."""
    versions = ", ".join(f"{name} {value}" for name, value in results["versions"].items())
    parts = [
        "# Compiled ahead of time",
        f"{versions}.\n`{results['command']}`, {results['date']}.",
        "## What a logit costs",
        COST,
        *_cost_tables(results["targets"]),
        "## What a launch takes",
        RESOURCES,
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
        parts += [f"### {dtype}", table(("kernel", "launch", *targets), lines)]
    if "linear" in results:
        parts += ["## From hidden states: the bound", *bound_tables()]
        parts += ["## From hidden states: the launches", *launch_tables(results["linear"])]
    return "\n\n".join(parts) + "\n"


def _cost_tables(targets: dict[str, list[dict[str, Any]]]) -> list[str]:
    cards = [card for card in CARDS if card.target in targets]
    head = [f"{card.name}, {card.terabytes:g} TB/s" for card in cards]
    parts = []
    for dtype, size in SIZES.items():
        found = {
            target: {each["launch"]: each for each in launches if each["dtype"] == dtype}
            for target, launches in targets.items()
        }
        names = [
            name
            for name, launch in next(iter(found.values()), {}).items()
            if launch["loops"] and "," not in name and all(name in each for each in found.values())
        ]
        lines = [
            [name, *(_bound(card, name, found[card.target][name], size) for card in cards)]
            for name in names
        ]
        if lines:
            parts.append(table((dtype, *head), lines))
    return parts


def _bound(card: Card, name: str, launch: dict[str, Any], size: int) -> str:
    """Return instructions a logit, barriers a trip and the bandwidth that they allow."""
    instructions = sum(loop["instructions"] / loop["logits"] for loop in launch["loops"])
    barriers = sum(loop["barriers"] for loop in launch["loops"])
    written = WRITTEN.get(name, 0)
    traffic = size + (size if written is None else written)
    logits = card.units * card.lanes * card.gigahertz * 1e9 / instructions
    return f"{instructions:.1f} · {barriers} · ≤ {logits * traffic / 1e12:.1f}"


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
        "targets": {target: compile_for(target, "compile_ahead.py", FIELDS) for target in TARGETS},
        "linear": {
            target: compile_for(target, "compile_linear.py", LINEAR_FIELDS) for target in TARGETS
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(markdown(results), encoding="utf-8")
    print(f"{out.name} written")


if __name__ == "__main__":
    main()
