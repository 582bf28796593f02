"""Measure every CPU case against torch, alternating in one process, and write the table.

    python -m benchmarks.cpu.run            # the whole grid, about ten minutes on two cores
    python -m benchmarks.cpu.run --quick    # the cases with a required speed and a few more

Writes ``benchmarks/results/cpu.json`` and ``cpu.md``; of a part of the cases, ``cpu-part``.
Logits above 1 GiB get fewer rounds and no bfloat16-rounded forms.
"""

from __future__ import annotations

import argparse
import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import affinity, baselines, machine, results
from benchmarks.common.agreement import check
from benchmarks.common.cases import BAR, BAR_ESTIMATE, FURTHER, GRID, QUICK, Case, Inputs, Pool
from benchmarks.common.timing import Timing, alternate
from benchmarks.cpu.calls import call
from benchmarks.cpu.memory import extra_memory
from benchmarks.cpu.read_limit import READERS
from benchmarks.cpu.report import Row, markdown

SECONDS = 2.0  # of alternating rounds a case, where the calls are fast enough
BAR_SECONDS = 8.0
ROUNDS = (5, 100)
LONG_ROUNDS = (3, 100)  # where a call takes seconds
LONG = 1 << 30  # bytes of logits


def measure(case: Case, inputs: Inputs) -> dict[str, Any]:
    """Check a case, time ours with the fastest torch forms and the read limit, and take memory."""
    check(case, inputs)
    call(case, "rskernels", inputs)()
    affinity.bind_workers()
    is_bar = case in (BAR, BAR_ESTIMATE) or case.operation == "verify_mask"
    is_long = case.logits_bytes > LONG
    forms = {
        name: form for name, form in baselines.eager(case).items() if form.is_exact or not is_long
    }
    eager = {name: call(case, f"eager {name}", inputs) for name in forms}
    first = alternate(eager, SECONDS / 4, (1 if is_long else 2, 5))
    names = ["rskernels", *_fastest(forms, first)]
    compiled = forms if case == BAR else baselines.COMPILED
    names += [f"compiled {name}" for name in compiled if name in forms]
    names += [f"limit {name}" for name in READERS]
    if case.operation == "verify_mask":
        names.append("full pass")
    bound = {name: call(case, name, inputs) for name in names}
    seconds, rounds = BAR_SECONDS if is_bar else SECONDS, LONG_ROUNDS if is_long else ROUNDS
    times = alternate(bound, seconds, rounds)
    medians = {name: timing.median for name, timing in times.items()}
    ours = times["rskernels"]
    result: dict[str, Any] = {
        **asdict(case),
        "ours": {"median": ours.median, "low": ours.low, "high": ours.high},
        "eager": {},
        "rounded": {},
    }
    for name, form in forms.items():
        # Slower forms keep the time of the first rounds.
        median = medians.get(f"eager {name}", first[name].median)
        result["eager" if form.is_exact else "rounded"][name] = median
    for kind in ("compiled", "limit", "full"):
        result[kind] = {
            name.partition(" ")[2]: median
            for name, median in medians.items()
            if name.startswith(kind)
        }
    fastest = eager[Row(result).eager]
    result["memory"] = {"ours": extra_memory(bound["rskernels"]), "eager": extra_memory(fastest)}
    return result


def _fastest(forms: dict[str, baselines.Form], times: dict[str, Timing]) -> list[str]:
    """Return the fastest eager form that is exact, and the fastest that is not."""
    fastest = []
    for is_exact in (True, False):
        names = [name for name, form in forms.items() if form.is_exact == is_exact]
        if names:
            fastest.append(f"eager {min(names, key=lambda name: times[name].median)}")
    return fastest


def select(arguments: argparse.Namespace) -> list[Case]:
    cases = QUICK if arguments.quick else [*FURTHER, *GRID]
    return [case for case in cases if arguments.only in str(case)]


def _command(arguments: argparse.Namespace) -> str:
    quick = " --quick" if arguments.quick else ""
    only = f" --only {shlex.quote(arguments.only)}" if arguments.only else ""
    return f"python -m benchmarks.cpu.run{quick}{only}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name holds TEXT")
    parser.add_argument("--out", type=Path, help="the JSON file; the table goes beside it")
    arguments = parser.parse_args()
    affinity.bind()
    is_part = arguments.quick or arguments.only
    out = arguments.out or results.RESULTS / ("cpu-part.json" if is_part else "cpu.json")
    begin = time.perf_counter()
    header = {
        "date": machine.today(),
        "command": _command(arguments),
        "machine": machine.cpu(),
        "versions": machine.versions(),
    }
    torch.manual_seed(0)
    cases = select(arguments)
    pool = Pool(cases)
    measured = []
    for case in cases:
        measured.append(measure(case, pool.inputs(case)))
        print(Row(measured[-1]).line(), flush=True)
    record = {**header, "seconds": round(time.perf_counter() - begin), "cases": measured}
    results.write(record, markdown(record), out)
    print(f"{record['seconds']} s; {out.name} and its table written")


if __name__ == "__main__":
    main()
