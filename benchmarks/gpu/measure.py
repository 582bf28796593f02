"""Check and time one shape on a GPU: rskernels, torch eager and compiled, public packages."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import Any

import torch

import rskernels
from benchmarks.common import agreement, baselines, machine
from benchmarks.common.baselines import COMPILED
from benchmarks.common.cases import Case, Inputs, Pool
from benchmarks.common.timing import Timing, alternate
from benchmarks.gpu import public_packages
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.public_packages import Package
from benchmarks.gpu.shapes import FULL, Shape, bind, calls_of

WARMUP, REPEAT, SHORT_REPEAT = 5, 40, 10  # milliseconds, see triton.testing.do_bench
QUANTILES = (0.5, 0.25, 0.75)
COPY_BYTES = 1 << 31
CHECKED_ROWS = 32  # of a public package's log q

# Seconds that a step takes until one has been seen to end.
GUESSES = {"shape": 2.0, "compile": 5.0, "hidden": 45.0}


class Device:
    """How calls are timed, and memory and bandwidth measured, on a GPU."""

    type = "cuda"
    repeat = REPEAT

    def time(self, call: Callable[[], Any]) -> Timing:
        from triton.testing import do_bench

        values = do_bench(call, warmup=WARMUP, rep=self.repeat, quantiles=list(QUANTILES))
        median, low, high = (value * 1e-3 for value in values)
        return Timing(median, low, high, max(1, int(self.repeat * 1e-3 / median)))

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

    def release(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()


class Cpu(Device):
    """Stands in for a GPU, so that the harness can be tested without one."""

    type = "cpu"

    def time(self, call: Callable[[], Any]) -> Timing:
        return alternate({"": call}, 0.05, (2, 3))[""]

    def memory(self, call: Callable[[], Any]) -> int | None:
        return None

    def bandwidth(self) -> float:
        source = torch.ones(1 << 22)
        target = torch.empty_like(source)
        return 2 * source.nbytes / self.time(lambda: target.copy_(source)).median

    def describe(self) -> dict[str, str | int]:
        return machine.cpu()

    def release(self) -> None:
        gc.collect()


class Bench:
    """Measures shapes one after another, within a budget.

    Every shape's own times and eager ones come first; what is left after keeping for those of all
    later shapes goes to compiled forms. Both of those are compiled for a dtype's first shape, and
    the faster one for its others.
    """

    def __init__(self, device: Device, pool: Pool, budget: Budget, packages: list[Package]):
        self.device, self.pool, self.budget = device, pool, budget
        self.packages = packages
        self.notes = [package.missing for package in packages if package.log_prob is None]
        self.uncompiled: list[Shape] = []
        self.hurried: list[Shape] = []  # measured in fewer rounds
        self.failures: list[str] = []
        self._compiled: dict[str, str] = {}  # the faster compiled form, by dtype

    def warm_up(self, shapes: list[Shape]) -> None:
        """Compile the kernels before any time is taken, on a dtype's fewest and most rows."""
        for dtype in {shape.dtype for shape in shapes}:
            smallest = min(shape.columns for shape in shapes if shape.dtype == dtype)
            those = [s for s in shapes if (s.dtype, s.columns) == (dtype, smallest)]
            for shape in {min(those), max(those)}:
                for case, inputs in calls_of(shape, self.pool).values():
                    bind(case, inputs)()

    def measure(self, shape: Shape, later: int) -> dict[str, Any]:
        """Check and time a shape, ``later`` shapes being still to come."""
        is_late = not self.budget.allows("shape", shape=later)
        self.device.repeat = SHORT_REPEAT if is_late else REPEAT
        if is_late:
            self.hurried.append(shape)
        with self.budget.step("shape"):
            calls = calls_of(shape, self.pool)
            self._check(calls)
            result: dict[str, Any] = {
                "rows": shape.rows,
                "columns": shape.columns,
                "dtype": shape.dtype,
                "ours": {},
                "eager": {},
                "compiled": {},
                "public": {},
            }
            for name, (case, inputs) in calls.items():
                self._time(result["ours"], shape, name, bind(case, inputs))
            # torch's time depends on neither the acceptance nor the direction of the ratio.
            case, inputs = calls["verify_mask 50 %"]
            for name, form in baselines.eager(case).items():
                if form.is_exact:
                    call = functools.partial(form.function, *inputs)
                    self._time(result["eager"], shape, name, call)
            for package in self._usable(inputs):
                form = functools.partial(public_packages.mask_form(package), *inputs)
                self._time(result["public"], shape, package.name, form)
            result["memory"] = self._memory(result, calls)
        self._compile(shape, case, inputs, result, later)
        return result

    def _check(self, calls: dict[str, tuple[Case, Inputs]]) -> None:
        for name, (case, inputs) in calls.items():
            if name == "verify":
                continue
            try:
                agreement.check(case, inputs)
                if case.operation == "verify_mask":
                    _check_lazy(case, inputs)
            except AssertionError as error:
                self.failures.append(str(error))

    def _time(self, into: dict[str, Any], shape: Shape, name: str, call: Callable[[], Any]) -> None:
        try:
            into[name] = self.device.time(call).median
        except torch.OutOfMemoryError:
            self.notes.append(f"{shape}: {name} ran out of memory")
            self.device.release()

    def _memory(self, result: dict[str, Any], calls: dict[str, Any]) -> dict[str, int | None]:
        case, inputs = calls["verify_mask 50 %"]
        extra = {"ours": self.device.memory(bind(*calls[FULL]))}
        if result["eager"]:
            fastest = min(result["eager"], key=result["eager"].get)
            form = baselines.eager(case)[fastest].function
            extra["eager"] = self.device.memory(functools.partial(form, *inputs))
        return extra

    def _usable(self, inputs: Inputs) -> list[Package]:
        usable = []
        for package in self.packages:
            if package.log_prob is None:
                continue
            rows = slice(0, CHECKED_ROWS)
            fault = public_packages.fault(package, inputs.logits[rows], inputs.targets[rows])
            if fault and fault not in self.notes:
                self.notes.append(fault)
            if not fault:
                usable.append(package)
        return usable

    def _compile(
        self, shape: Shape, case: Case, inputs: Inputs, result: dict[str, Any], later: int
    ) -> None:
        chosen = self._compiled.get(shape.dtype)
        for name in (chosen,) if chosen else COMPILED:
            if not self.budget.allows("compile", shape=later):
                break
            with self.budget.step("compile"):
                try:
                    form = functools.partial(baselines.compiled(case, name), *inputs)
                    form()
                except Exception as error:  # whatever a compiler may raise is told, not hidden
                    first = str(error).strip().splitlines() or [type(error).__name__]
                    self.notes.append(f"{shape}: torch.compile of {name} failed: {first[0]}")
                    continue
                self._time(result["compiled"], shape, name, form)
        times = result["compiled"]
        if times and not chosen:
            self._compiled[shape.dtype] = min(times, key=times.get)
        if not times:
            self.uncompiled.append(shape)


def _check_lazy(case: Case, inputs: Inputs) -> None:
    """Raise where a lazily taken decision differs from that of a full pass, in any row."""
    logits, density, M, targets = inputs
    law = {"targets": targets, "seed": agreement.SEED}
    full = rskernels.verify(logits, density, M, **law).mask
    lazy = rskernels.verify_mask(logits, density, M, **law)
    wrong = (full != lazy).sum().item()
    if wrong:
        raise AssertionError(f"{case}: {wrong} lazy decisions differ from the full pass's")


def measure_hidden(device: Device, package: Package, sizes: tuple[int, int, int]) -> dict[str, Any]:
    """Time log q of the targets from hidden states, by a package and by rskernels.

    ``sizes`` are the rows, the width of the hidden states and the columns.
    """
    rows, width, columns = sizes
    generator = torch.Generator(device.type).manual_seed(0)
    drawn = {"generator": generator, "device": device.type}
    hidden = torch.randn(rows, width, **drawn).bfloat16()
    weight = (torch.randn(columns, width, **drawn) * width**-0.5).bfloat16()
    targets = torch.randint(columns, (rows,), **drawn)
    some = slice(0, CHECKED_ROWS)
    fault = public_packages.fault(package, hidden[some], weight, targets[some])
    if fault:
        return {"note": fault}
    forms = {"rskernels": public_packages.linear_log_prob, package.name: package.log_prob}
    calls = {name: functools.partial(form, hidden, weight, targets) for name, form in forms.items()}
    return {
        "sizes": sizes,
        "dtype": "bfloat16",
        "times": {name: device.time(call).median for name, call in calls.items()},
        "memory": {name: device.memory(call) for name, call in calls.items()},
    }
