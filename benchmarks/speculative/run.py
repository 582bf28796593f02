"""Measure speculative steps, alternating in one process, and write a table.

    python -m benchmarks.speculative.run       # about two minutes on two cores

Writes ``benchmarks/results/speculative.json`` and ``speculative.md``.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from benchmarks.common import affinity, machine, results
from benchmarks.common.tables import number, requirements, speed, table
from benchmarks.common.timing import alternate
from benchmarks.speculative import steps

SECONDS, ROUNDS = 15.0, (3, 30)
LEAST = {"eager": 4.0, "transformers": 3.0}  # times as fast, with a near draft
EXPLAINED = f"""\
Medians of alternating rounds in one process, all threads, float32 logits: {steps.R} requests of
{steps.K} draft tokens, a vocabulary of {steps.V:,}. *Eager* takes the same step by torch's
operators on the whole batch; *transformers* is its `_speculative_sampling`, which takes one request
at a time, {steps.R} of them. Both are given the filtered logits by `topk` or `sort` where a case
names a filter. *Accepted*: draft tokens of {steps.K} on average, by token and by block, in the one
step that is measured, of {steps.R} requests: too few to tell the two methods apart."""


def measure() -> list[dict[str, Any]]:
    """Return what was measured of each case."""
    measured = []
    for name, case in steps.CASES.items():
        step = steps.draw(**case)
        calls = steps.calls(step)
        accepted = {
            method: calls[method]().accepted.double().mean().item() for method in ("token", "block")
        }
        times = alternate(calls, SECONDS, ROUNDS)
        seconds = {form: timing.median for form, timing in times.items()}
        measured.append({"case": name, "accepted": accepted, "seconds": seconds})
        print(measured[-1], flush=True)
    return measured


def markdown(record: dict[str, Any]) -> str:
    """Return the whole report."""
    machine_line = ", ".join(f"{name} {value}" for name, value in record["machine"].items())
    versions = ", ".join(f"{name} {value}" for name, value in record["versions"].items())
    lines = []
    for case in record["cases"]:
        seconds, accepted = case["seconds"], case["accepted"]
        others = [
            speed(seconds[form] / seconds["token"]) if form in seconds else ""
            for form in ("eager", "transformers")
        ]
        lines.append([
            case["case"], number(1e3 * seconds["token"]), *others,
            number(1e3 * seconds["block"]),
            f"{accepted['token']:.2f}, {accepted['block']:.2f}",
        ])  # fmt: skip
    name, seconds = record["cases"][0]["case"], record["cases"][0]["seconds"]
    bars = requirements({
        f"{name}: × {form}": (seconds[form] / seconds["token"], least)
        for form, least in LEAST.items()
    })  # fmt: skip
    heads = ["case", "token, ms", "× eager", "× transformers", "block, ms", "accepted"]
    return "\n\n".join([
        "# Speculative steps: CPU",
        f"{machine_line}.\n{versions}.\n`{record['command']}`, {record['date']}, "
        f"{record['seconds']} s.",
        EXPLAINED,
        table(heads, lines, (":--", *("--:",) * 5)),
        bars,
    ]) + "\n"  # fmt: skip


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    affinity.bind()
    begin = time.perf_counter()
    measured = measure()
    record = {
        "date": machine.today(),
        "command": "python -m benchmarks.speculative.run",
        "machine": machine.cpu(),
        "versions": machine.versions(),
        "seconds": round(time.perf_counter() - begin),
        "cases": measured,
    }
    out = results.RESULTS / "speculative.json"
    results.write(record, markdown(record), out)
    print(f"{record['seconds']} s; {out.name} and its table written")


if __name__ == "__main__":
    main()
