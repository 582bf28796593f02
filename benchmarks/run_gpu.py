"""Measure every GPU case against torch, correctness first, and write the table.

    python benchmarks/run_gpu.py                        # all cases, at most eight minutes
    python benchmarks/run_gpu.py --device cpu --quick   # the same path without a GPU

Needs rskernels installed with its extension, and no network. Writes
``benchmarks/results/gpu-NAME.json`` and ``.md``; on a CPU only where ``--out`` is given.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import baselines
import machine
import report
from agreement import check
from calls import COMPILED, call
from cases import Case, Inputs, Pool, describe
from timing import Timing, alternate

RESULTS = Path(__file__).parent / "results"
MINUTES = 7.5
ROWS = (1, 16, 32, 64, 128, 256, 512, 4096, 8192)
COLUMNS = (128256, 151936, 32000)
WARMUP, REPEAT = 5, 40  # milliseconds, see triton.testing.do_bench
QUANTILES = (0.5, 0.25, 0.75)
COPY_BYTES = 1 << 31


def cases(is_quick: bool) -> list[Case]:
    """Return what is measured; what matters most comes first, in case time runs out."""
    if is_quick:
        operations, sizes = ("accept_mask", "verify_mask"), ((1, 32000), (64, 1000))
        return [Case(operation, *size, "bfloat16") for operation in operations for size in sizes]
    return [
        Case(operation, rows, columns, dtype)
        for operation in ("accept_mask", "verify_mask")
        for dtype in ("bfloat16", "float32")
        for columns in COLUMNS
        for rows in ROWS
    ]


class Device:
    """How calls are timed, and memory and bandwidth measured, on a GPU."""

    type = "cuda"

    def time(self, call: Callable[[], Any]) -> Timing:
        from triton.testing import do_bench

        values = do_bench(call, warmup=WARMUP, rep=REPEAT, quantiles=list(QUANTILES))
        median, low, high = (value * 1e-3 for value in values)
        return Timing(median, low, high, max(1, int(REPEAT * 1e-3 / median)))

    def memory(self, call: Callable[[], Any]) -> int | None:
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def bandwidth(self) -> float:
        source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=self.type).random_()
        target = torch.empty_like(source)
        return 2 * COPY_BYTES / self.time(lambda: target.copy_(source)).median

    def describe(self) -> dict[str, str | int]:
        return machine.gpu()


class Cpu(Device):
    """Stands in for a GPU, so that this file can be tested without one."""

    type = "cpu"

    def time(self, call: Callable[[], Any]) -> Timing:
        return alternate({"": call}, 0.1, (2, 5))[""]

    def memory(self, call: Callable[[], Any]) -> int | None:
        return None

    def bandwidth(self) -> float:
        source = torch.ones(1 << 22)
        target = torch.empty_like(source)
        return 2 * source.nbytes / self.time(lambda: target.copy_(source)).median

    def describe(self) -> dict[str, str | int]:
        return machine.cpu()


def measure(case: Case, inputs: Inputs, device: Device, compiled: list[str]) -> dict[str, Any]:
    """Check a case, then time it and its baselines; ``compiled`` names the forms to compile."""
    accepted = check(case, inputs)
    forms = baselines.eager(case)
    names = ["rskernels", *(f"eager {name}" for name in forms)]
    names += [f"compiled {name}" for name in compiled]
    times, extra, failed = {}, {}, []
    for name in names:
        bound = call(case, name, inputs)
        try:
            times[name] = device.time(bound)
            extra[name] = device.memory(bound)
        except torch.OutOfMemoryError:
            failed.append(f"{case}: {name} ran out of memory")
    result: dict[str, Any] = {
        **describe(case),
        "accepted": accepted,
        "ours": times.pop("rskernels")._asdict(),
        "eager": {},
        "compiled": {},
        "notes": failed,
    }
    for name, timing in times.items():
        kind, _, form = name.partition(" ")
        result[kind][form] = {**timing._asdict(), "is_exact": forms[form].is_exact}
    fastest = report.Row(result).eager
    result["memory"] = {"ours": extra["rskernels"], "eager": extra.get(f"eager {fastest}")}
    return result


def forms_to_compile(case: Case, done: list[dict[str, Any]]) -> list[str]:
    """Return both forms for accept_mask, and the one that won there for verify_mask."""
    for result in done:
        shape = (result["rows"], result["columns"], result["dtype"])
        if shape == (case.rows, case.columns, case.dtype) and result["compiled"]:
            return [report.Row(result).compiled]
    return list(COMPILED)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a few small cases")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="begin no case after this")
    parser.add_argument("--out", type=Path, help="the JSON file; the table goes beside it")
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(f"no GPU: torch {torch.__version__} sees no CUDA or ROCm device; nothing measured")
        return
    begin = time.perf_counter()
    device = Device() if arguments.device == "cuda" else Cpu()
    header = {
        "kind": "gpu",
        "date": machine.today(),
        "command": "python benchmarks/run_gpu.py" + (" --quick" if arguments.quick else ""),
        "machine": device.describe(),
        "versions": machine.versions(),
        "copy_bandwidth": device.bandwidth(),
    }
    torch.manual_seed(0)
    selected = cases(arguments.quick)
    pool = Pool(selected, device.type)
    done: list[dict[str, Any]] = []
    out = arguments.out or _default_out(device)
    for case in selected:
        if time.perf_counter() - begin > 60 * arguments.minutes:
            break
        result = measure(case, pool.inputs(case), device, forms_to_compile(case, done))
        done.append(result)
        print(report.line(result, header["copy_bandwidth"]), flush=True)
        notes = [note for result in done for note in result["notes"]]
        if len(done) < len(selected):
            notes.append("Not measured: " + ", ".join(map(str, selected[len(done) :])))
        if out is not None:
            # After every case, so that an interrupted run leaves what it has.
            seconds = round(time.perf_counter() - begin)
            report.write({**header, "seconds": seconds, "notes": notes, "cases": done}, out)


def _default_out(device: Device) -> Path | None:
    if device.type == "cpu":
        return None
    slug = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(0).lower()).strip("-")
    return RESULTS / f"gpu-{slug}.json"


if __name__ == "__main__":
    main()
