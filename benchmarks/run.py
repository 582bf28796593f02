"""Measure every CPU case against torch, alternating in one process, and write the table.

    python benchmarks/run.py            # the whole grid, about ten minutes on two cores
    python benchmarks/run.py --quick    # the cases with a required speed and a few more

Writes ``benchmarks/results/cpu.json`` and ``cpu.md``; of a part of the cases, ``cpu-part``.
Logits above 1 GiB get fewer rounds and no bfloat16-rounded forms.
"""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path
from typing import Any

import torch

import affinity
import baselines
import machine
import report
from agreement import check
from calls import COMPILED, call
from cases import BAR, BAR_ESTIMATE, FURTHER, GRID, QUICK, Case, Inputs, Pool, describe
from memory import extra_memory
from read_limit import READERS
from timing import Timing, alternate

RESULTS = Path(__file__).parent / "results"
SECONDS = 2.0  # of alternating rounds a case, where the calls are fast enough
BAR_SECONDS = 8.0
ROUNDS = (5, 100)
LONG_ROUNDS = (3, 100)  # where a call takes seconds
LONG = 1 << 30  # bytes of logits


def measure(case: Case, inputs: Inputs) -> dict[str, Any]:
    """Check a case, time ours with the fastest torch forms and the read limit, and take memory."""
    accepted = check(case, inputs)
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
    names += [f"compiled {name}" for name in (forms if case == BAR else COMPILED) if name in forms]
    names += [f"limit {name}" for name in READERS]
    if case.operation == "verify_mask":
        names.append("full pass")
    bound = {name: call(case, name, inputs) for name in names}
    seconds, rounds = BAR_SECONDS if is_bar else SECONDS, LONG_ROUNDS if is_long else ROUNDS
    times = alternate(bound, seconds, rounds)
    result = {**describe(case), "accepted": accepted, "ours": times["rskernels"]._asdict()}
    for kind in ("eager", "compiled", "limit", "full"):
        result[kind] = {
            name.partition(" ")[2]: timing._asdict()
            for name, timing in times.items()
            if name.startswith(kind)
        }
    for name, form in forms.items():
        # Slower forms keep the time of the first rounds.
        result["eager"].setdefault(name, first[name]._asdict())["is_exact"] = form.is_exact
    row = report.Row(result)
    chosen = {
        "ours": bound["rskernels"],
        "eager": eager[row.eager],
        "compiled": bound[f"compiled {row.compiled}"],
    }
    result["memory"] = {kind: extra_memory(function) for kind, function in chosen.items()}
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
    return f"python benchmarks/run.py{quick}{only}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name holds TEXT")
    parser.add_argument("--out", type=Path, help="the JSON file; the table goes beside it")
    arguments = parser.parse_args()
    affinity.bind()
    is_part = arguments.quick or arguments.only
    out = arguments.out or RESULTS / ("cpu-part.json" if is_part else "cpu.json")
    begin = time.perf_counter()
    header = {
        "kind": "cpu",
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
        print(report.line(measured[-1]), flush=True)
    results = {**header, "seconds": round(time.perf_counter() - begin), "cases": measured}
    report.write(results, out)
    print(f"{results['seconds']} s; {out.name} and its table written")


if __name__ == "__main__":
    main()
