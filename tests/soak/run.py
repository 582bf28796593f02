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
import time
import traceback
from collections import Counter
from pathlib import Path

from ..support.numba_cache import share_cache
from . import children as forks
from .calls import CASES, make_case
from .faults import ONCE, REPEATED
from .gate import Gate
from .troubles import Interrupts
from .watch import MIB, Sample, children, leaks, take_sample
from .worker import OFTEN, Common, Worker, WorkerThread

LOADERS = 8  # a loader of forked workers each so many periods
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
        self.counts: Counter[str] = Counter()

    def run(self) -> list[str]:
        """Soak; return what was wrong."""
        forks.prepare()
        self._warm_up()
        begin = time.monotonic()
        period = max(1.0, min(10.0, self.options.seconds / 30))
        for thread in self.threads:
            thread.start()
        if plant := ONCE.get(self.options.plant):
            plant(self.workers[0])
        while time.monotonic() - begin < self.options.seconds and not self.common.failures:
            # What holds on to the interpreter's lock would keep the gate from telling.
            faulthandler.dump_traceback_later(3 * self.options.patience, exit=True)
            self._act(time.monotonic() + period)
            if not self.gate.shut(self.options.patience):
                return [self._show_hang()]
            self._rest()
            self.gate.open()
        return [*self.common.failures, *self._stop(), *leaks(self.samples)]

    def _warm_up(self) -> None:
        """Compile what is called, on one thread."""
        for kind in CASES:
            for number in range(40):
                make_case(kind, 0, number).call()

    def _act(self, end: float) -> None:
        """Do in the main thread what only it can, and what all do."""
        rng, skip = self.main.rng, self.options.skip
        try:
            if self.counts["period"] % LOADERS == 1 and "loader" not in skip:
                names = [self.common.name_of(rng) for _ in range(6)]
                forks.load(names, self.options.patience / 2)
                self.counts["loader"] += 1
            while time.monotonic() < end and not self.common.failures:
                if rng.random() < 0.3 and "interrupt" not in skip:
                    self.main.doing = "an interrupted call"
                    self.interrupts.interrupt(rng, self.options.seed)
                    self.counts["interrupt"] += 1
                self.main.act()
        except BaseException:
            self.common.failures.append(f"the main thread: {traceback.format_exc()}")

    def _rest(self) -> None:
        """While nobody is at work: check what was shared, and measure."""
        self.counts["period"] += 1
        try:
            self.common.renew()
        except AssertionError:
            self.common.failures.append(f"a shared envelope is wrong: {traceback.format_exc()}")
        self.samples.append(take_sample())

    def _stop(self) -> list[str]:
        for thread in self.threads:
            thread.is_stopped = True
        for thread in self.threads:
            thread.join(self.options.patience)
        faulthandler.cancel_dump_traceback_later()
        return [self._show_hang()] if any(thread.is_alive() for thread in self.threads) else []

    def _show_hang(self) -> str:
        faulthandler.dump_traceback(all_threads=True)
        doing = "; ".join(f"thread {w.index}: {w.doing}" for w in self.workers if w.doing)
        return f"hang: not done after {self.options.patience:g} s: {doing}"

    def summary(self) -> str:
        """Return what was done and what it left, in a line."""
        done = sum((worker.counts for worker in self.workers), self.counts)
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
            f"seed {self.options.seed}, {total:,} calls ({calls}), {done['loader']} loaders, "
            f"{self.interrupts.raised:,} of {done['interrupt']:,} interrupted; {state}"
        )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.run", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds a call may take")
    skipped = sorted({*CASES, *OFTEN, "interrupt", "loader"})
    parser.add_argument("--skip", nargs="*", default=[], choices=skipped, metavar="KIND")
    parser.add_argument("--plant", choices=sorted({*ONCE, *REPEATED}), help="a fault to catch")
    return parser.parse_args(arguments)


def main() -> None:
    """Soak, say how it went, and end at once: what hangs must not keep the process."""
    options = parse()
    print(f"soak: {options.seconds:g} s, seed {options.seed}", flush=True)
    share_cache(Path(__file__).parents[2] / "build" / "numba")
    from rskernels.kernels.cpu import threads

    threads.SERIAL_WORK = SERIAL_WORK
    soak = Soak(options)
    faults = soak.run()
    for fault in faults:
        print(f"FAILED {fault}", flush=True)
    if soak.samples:
        print(f"soak: {'FAILED' if faults else 'passed'}, {soak.summary()}", flush=True)
    sys.stderr.flush()
    for child in children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    os._exit(1 if faults else 0)


if __name__ == "__main__":
    main()
