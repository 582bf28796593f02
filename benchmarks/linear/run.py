"""Measure decisions and losses from hidden states, alternating in one process, and write a table.

    python -m benchmarks.linear.run            # about five minutes on two cores
    python -m benchmarks.linear.run --only loss

Writes ``benchmarks/results/linear.json`` and ``linear.md``; of a part, ``linear-part``.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from benchmarks.common import affinity, machine, results
from benchmarks.common.timing import alternate
from benchmarks.cpu.memory import extra_memory
from benchmarks.linear import decisions, losses, step
from benchmarks.linear.report import markdown

DTYPES = (torch.float32, torch.bfloat16)
SECONDS, ROUNDS = 20.0, (3, 30)
STEPS = 12


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def measure(calls: dict[str, Any]) -> dict[str, Any]:
    """Return the median seconds of each form, and by how many bytes it raises memory."""
    times = alternate(calls, SECONDS, ROUNDS)
    return {
        "seconds": {name: timing.median for name, timing in times.items()},
        "memory": {name: extra_memory(call) for name, call in calls.items()},
    }


def measure_decisions() -> list[dict[str, Any]]:
    measured = []
    for dtype in DTYPES:
        inputs = decisions.draw(dtype)
        for accepted in decisions.ACCEPTED:
            of = {"what": "decision", "dtype": name_of(dtype), "accepted": accepted}
            measured.append({**of, **measure(decisions.calls(inputs, accepted))})
            print(measured[-1], flush=True)
    return measured


def measure_losses() -> list[dict[str, Any]]:
    measured = []
    for dtype in DTYPES:
        of = {"what": "loss", "dtype": name_of(dtype)}
        measured.append({**of, **measure(losses.calls(losses.draw(dtype)))})
        print(measured[-1], flush=True)
    return measured


def measure_step() -> list[dict[str, Any]]:
    return [measure_steps(case) for case in step.CASES]


def measure_steps(case: step.Case) -> dict[str, Any]:
    steps = {name: step.make(name, case) for name in step.LOSSES}
    curves: dict[str, list[float]] = {name: [] for name in steps}

    def call(name: str) -> Any:
        return lambda: curves[name].append(steps[name].take())

    times = alternate({name: call(name) for name in steps}, 60.0, (STEPS, STEPS))
    memory = {name: extra_memory(call(name)) for name in steps}
    length = min(map(len, curves.values()))
    return {
        "what": "step",
        "is_checkpointed": case.is_checkpointed,
        "parameters": next(iter(steps.values())).parameters,
        "seconds": {name: timing.median for name, timing in times.items()},
        "memory": memory,
        "curves": {name: curve[:length] for name, curve in curves.items()},
    }


PARTS = {"decision": measure_decisions, "loss": measure_losses, "step": measure_step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS)
    arguments = parser.parse_args()
    affinity.bind()
    begin, measured = time.perf_counter(), []
    for name, part in PARTS.items():
        if arguments.only in (None, name):
            measured += part()
    only = f" --only {arguments.only}" if arguments.only else ""
    record = {
        "date": machine.today(),
        "command": f"python -m benchmarks.linear.run{only}",
        "machine": machine.cpu(),
        "versions": machine.versions(),
        "seconds": round(time.perf_counter() - begin),
        "cases": measured,
    }
    out = results.RESULTS / ("linear-part.json" if only else "linear.json")
    results.write(record, markdown(record), out)
    print(f"{record['seconds']} s; {out.name} and its table written")


if __name__ == "__main__":
    main()
