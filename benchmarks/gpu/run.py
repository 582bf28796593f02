"""Test and measure the GPU kernels against torch, within eight minutes, and write the table.

    python -m benchmarks.gpu.run                        # the tests that need a GPU, every shape
    python -m benchmarks.gpu.run --device cpu --quick   # the measuring without a GPU

Needs rskernels installed with its extension and test dependencies, and no network. Writes
``benchmarks/results/gpu-NAME.json`` and ``.md``; on a CPU only where ``--out`` is given. Ends with
status 1 where a test fails or a decision is wrong. What the time did not allow is named.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import machine, results
from benchmarks.common.cases import Pool
from benchmarks.gpu import device_tests, public_packages
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.measure import GUESSES, Bench, Cpu, Device, measure_hidden
from benchmarks.gpu.report import Row, markdown
from benchmarks.gpu.shapes import Shape, shapes

MINUTES = 7.5  # of eight; the last step begun may run over
TEST_SECONDS = 150
HIDDEN = {"cuda": (4096, 2048, 128256), "cpu": (40, 16, 300)}  # rows, width, columns
LEFT_OUT = {"outcome": "left out", "summary": "", "failed": [], "seconds": 0.0}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a few small shapes")
    parser.add_argument("--skip-tests", action="store_true", help="measure only")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="begin no step after this")
    parser.add_argument("--out", type=Path, help="the JSON file; the table goes beside it")
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(f"no GPU: torch {torch.__version__} sees no CUDA or ROCm device; nothing measured")
        return 0
    budget = Budget(60 * arguments.minutes, GUESSES)
    is_tested = arguments.device == "cuda" and not arguments.skip_tests
    tests = device_tests.run(TEST_SECONDS) if is_tested else LEFT_OUT
    device = Device() if arguments.device == "cuda" else Cpu()
    header = {
        "date": machine.today(),
        "command": " ".join(["python -m benchmarks.gpu.run", *(argv or sys.argv[1:])]),
        "machine": device.describe(),
        "versions": machine.versions(),
        "copy_bandwidth": device.bandwidth(),
        "tests": tests,
    }
    out = arguments.out or _default_out(device)
    record = measure(device, shapes(arguments.quick), budget, header, out)
    for line in (tests["summary"], *record["failures"], *record["notes"]):
        print(line)
    if out is not None:
        print(f"{record['seconds']} s; {out.name} and its table written")
    return 1 if record["failures"] or tests["outcome"] not in ("passed", "left out") else 0


def measure(
    device: Device,
    requested: list[Shape],
    budget: Budget,
    header: dict[str, Any],
    out: Path | None,
) -> dict[str, Any]:
    """Measure shapes while the budget lasts; the results are written after each."""
    torch.manual_seed(0)
    pool = Pool([shape.case("accept_mask") for shape in requested], device.type)
    bench = Bench(device, pool, budget, [public_packages.liger()])
    bench.warm_up(requested)
    done: list[dict[str, Any]] = []
    hidden: dict[str, Any] = {}

    def record() -> dict[str, Any]:
        current = {
            **header,
            "seconds": round(budget.spent),
            "shapes": done,
            "hidden": hidden,
            "failures": bench.failures,
            "notes": [*bench.notes, *_left_out(bench, requested[len(done) :])],
        }
        if out is not None:
            results.write(current, markdown(current), out)
        return current

    for position, shape in enumerate(requested):
        if not budget.allows("shape"):
            break
        done.append(bench.measure(shape, later=len(requested) - position - 1))
        print(Row(done[-1], header["copy_bandwidth"]).line(), flush=True)
        record()
    package = public_packages.cut_cross_entropy()
    if package.log_prob is None:
        bench.notes.append(package.missing)
    elif not budget.allows("hidden"):
        bench.notes.append(f"No time to measure: {package.name}.")
    else:
        device.release()
        hidden.update(measure_hidden(device, package, HIDDEN[device.type]))
        bench.notes += [hidden["note"]] if "note" in hidden else []
    return record()


def _left_out(bench: Bench, unmeasured: list[Shape]) -> list[str]:
    lists = {
        "No time to measure": unmeasured,
        "No time to compile a torch form for": bench.uncompiled,
        "Measured in fewer rounds": bench.hurried,
    }
    return [f"{what}: {', '.join(map(str, them))}." for what, them in lists.items() if them]


def _default_out(device: Device) -> Path | None:
    if device.type == "cpu":
        return None
    slug = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(0).lower()).strip("-")
    return results.RESULTS / f"gpu-{slug}.json"


if __name__ == "__main__":
    sys.exit(main())
