"""Call everything at random, from several threads and children, and see that nothing grows.

``python -m tests.soak.run --seconds 3600 --seed 1`` prints a line at the end, and fails at the
first wrong result, child that ends badly, call that takes too long, or growth above its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from typing import NoReturn

from rskernels.kernels.cpu.cache import made
from rskernels.kernels.warm import warm

from . import children as forks
from .calls import CASES, make_case
from .faults import ONCE, REPEATED
from .gate import Gate
from .troubles import Interrupts
from .watch import ENOUGH, MIB, Sample, children, leaks, steady_memory, take_sample
from .worker import OFTEN, Common, Worker, WorkerThread

LOADERS = 8  # a loader of forked workers each so many periods
LONG = 30.0  # seconds, in which all is done that is to be done now and then
SERIAL_WORK = 1 << 14  # below the product's, so that small calls are shared among threads too


class Soak:
    """One run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.common = Common(options.seed, options.patience, options.skip, options.plant)
        self.gate = Gate(options.threads)
        self.workers = [Worker(self.common, index) for index in range(options.threads + 1)]
        self.main = self.workers[-1]
        self.threads = [WorkerThread(worker, self.gate) for worker in self.workers[:-1]]
        self.interrupts = Interrupts()
        self.samples: list[Sample] = []
        self.kernels = 0
        self.counts: Counter[str] = Counter()

    def run(self) -> list[str]:
        """Soak; return what was wrong."""
        forks.prepare()
        self._warm_up()
        begin = time.monotonic()
        period = max(0.4, min(10.0, self.options.seconds / 40))
        for thread in self.threads:
            thread.start()
        for fault in self.options.plant:
            ONCE.get(fault, lambda: None)()
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()
        while self._is_wanted(time.monotonic() - begin) and not self.common.failures:
            # What holds on to the interpreter's lock would keep the watchdog from telling.
            faulthandler.dump_traceback_later(3 * self.options.patience, exit=True)
            self._act(time.monotonic() + period)
            self.gate.shut()
            self._rest()
            self.gate.lift()
        for thread in self.threads:
            thread.is_stopped = True
        for thread in self.threads:
            thread.join()
        undone = never_done(self.done(), self.options.skip, time.monotonic() - begin)
        return [*self.common.failures, *undone, *leaks(self.samples)]

    def _is_wanted(self, seconds: float) -> bool:
        # A machine that has much else to do is given the time for a few samples.
        return seconds < self.options.seconds or len(self.samples) < ENOUGH

    def _warm_up(self) -> None:
        """Compile what is called, on one thread."""
        list(warm(("cpu",), ("float32",), ("linear",)))
        for kind in CASES:
            for number in range(12):
                make_case(kind, 0, number).call()

    def _act(self, end: float) -> None:
        """Do in the main thread what only it can, and what all do."""
        rng, skip = self.main.rng, self.options.skip
        try:
            if self.counts["period"] % LOADERS == 1 and "loader" not in skip:
                names = [self.common.name_of(rng) for _ in range(6)]
                self.main.begin(f"a loader's workers that call {names}")
                forks.load(names, self.options.patience / 2)
                self.counts["loader"] += 1
            while time.monotonic() < end and not self.common.failures:
                if rng.random() < 0.3 and "interrupt" not in skip:
                    self.main.begin("an interrupted call")
                    self.interrupts.interrupt(rng, self.options.seed)
                    self.counts["interrupt"] += 1
                self.main.act()
        except BaseException:
            self.common.failures.append(f"the main thread: {traceback.format_exc()}")

    def _rest(self) -> None:
        """While nobody is at work: check what was shared, and measure."""
        self.counts["period"] += 1
        self.main.begin("comparing and measuring")
        try:
            self.common.renew()
        except AssertionError:
            self.common.failures.append(f"a shared envelope is wrong: {traceback.format_exc()}")
        if (kernels := sum(len(kernel.overloads) for kernel in made())) > self.kernels:
            # A kernel that only a rare call needs takes memory once: what grows is told from here.
            self.samples.clear()
            self.kernels = kernels
        self.samples.append(take_sample())
        self.main.doing = ""

    def _watch(self) -> None:
        """End the process when a thread has been at one thing for too long."""
        patience = self.options.patience
        while True:
            time.sleep(min(0.5, patience / 4))
            late = [w for w in self.workers if w.doing and time.monotonic() - w.since > patience]
            if late:
                faulthandler.dump_traceback(all_threads=True)
                doing = "; ".join(f"thread {worker.index}: {worker.doing}" for worker in late)
                self.common.failures.append(f"hang: not done after {patience:g} s: {doing}")
                finish(self, self.common.failures)

    def done(self) -> Counter[str]:
        """Return how often each thing was done."""
        raised = Counter(interrupted=self.interrupts.raised)
        return sum((worker.counts for worker in self.workers), self.counts + raised)

    def summary(self) -> str:
        """Return what was done and what it left, in a line."""
        done = self.done()
        calls = ", ".join(f"{kind} {done[kind]:,}" for kind in (*CASES, *OFTEN))
        first, last = self.samples[len(self.samples) // 3], self.samples[-1]
        state = ", ".join(
            f"{name} {getattr(first, name) // unit:,} to {getattr(last, name) // unit:,}{text}"
            for name, unit, text in (
                ("rss", MIB, " MiB"), ("malloc", MIB, " MiB"), ("blocks", 1, ""),
                ("objects", 1, ""), ("tensors", 1, ""), ("threads", 1, ""), ("tasks", 1, ""),
                ("files", 1, ""), ("shm", 1, ""), ("children", 1, ""),
            )
        )  # fmt: skip
        total = sum(done[kind] for kind in (*CASES, *OFTEN)) + done["interrupt"]
        return (
            f"seed {self.options.seed}, {total:,} calls in {self.counts['period']} periods "
            f"({calls}), "
            f"{done['loader']} loaders, {done['interrupted']:,} of {done['interrupt']:,} "
            f"interrupted; {state}"
        )


def never_done(done: Counter[str], skipped: list[str], seconds: float) -> list[str]:
    """Return what a long run never did although it was to, a sentence each."""
    if seconds < LONG:
        return []
    wanted = {name: name for name in (*CASES, *OFTEN, "loader")} | {"interrupt": "interrupted"}
    return [
        f"{name} was never done in {seconds:.0f} s"
        for name, count in wanted.items()
        if name not in skipped and done[count] == 0
    ]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.run", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds a call may take")
    skipped = sorted({*CASES, *OFTEN, "interrupt", "loader"})
    parser.add_argument("--skip", nargs="*", default=[], choices=skipped, metavar="KIND")
    faults = sorted({*ONCE, *REPEATED})
    parser.add_argument("--plant", nargs="*", default=[], choices=faults, help="faults to catch")
    return parser.parse_args(arguments)


def main() -> None:
    """Soak, and say how it went."""
    options = parse()
    print(f"soak: {options.seconds:g} s, seed {options.seed}", flush=True)
    steady_memory()
    from rskernels.kernels.cpu import threads

    threads.SERIAL_WORK = SERIAL_WORK
    soak = Soak(options)
    finish(soak, soak.run())


def finish(soak: Soak, faults: list[str]) -> NoReturn:
    """Print what was found, and end at once: what hangs must not keep the process."""
    for fault in faults:
        print(f"FAILED {fault}")
    if soak.samples:
        print(f"soak: {'FAILED' if faults else 'passed'}, {soak.summary()}")
    sys.stdout.flush()
    for child in children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    os._exit(1 if faults else 0)


if __name__ == "__main__":
    main()
