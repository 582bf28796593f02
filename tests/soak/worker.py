"""What one thread of the soak does: random calls whose results are compared with the others'."""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch

from .calls import CASES, make_case
from .children import fork_and_call, work_of_a_child
from .digest import digest_of
from .faults import REPEATED
from .shared import KINDS, SharedEnvelope
from .troubles import raise_by_argument, raise_in_callable

NUMBERS = 12  # cases of each kind at a time, so that every one is called by several threads
MOST_THREADS = 3  # that torch is told to use
# How often out of a hundred each is done, beside cases.
OFTEN = {"shared": 14.0, "argument": 4.0, "callable": 2.0, "count": 2.0, "thread": 1.0, "fork": 0.7}


class Common:
    """What all threads know: the cases at hand, their digests, shared envelopes, what failed."""

    def __init__(self, seed: int, patience: float, skipped=(), planted=()) -> None:
        self.seed, self.patience = seed, patience
        self.failures: list[str] = []
        self.kinds = [kind for kind in CASES if kind not in skipped]
        often = {name: share for name, share in OFTEN.items() if name not in skipped}
        self.planted = [REPEATED[name] for name in planted if name in REPEATED]
        if self.planted:
            often["planted"] = 10.0
        self.names = [*often, "case"]
        self.shares = np.array([*often.values(), 100.0 - sum(often.values())]) / 100.0
        self._period = 0
        self.renew()

    def renew(self) -> None:
        """Forget the digests and begin other cases and envelopes; nobody may be at work."""
        for envelope in getattr(self, "shared", ()):
            envelope.settle()
        self._period += 1
        self.digests: dict[tuple, bytes] = {}
        self.shared = [
            SharedEnvelope(options, [self.seed, self._period, n]) for n, options in enumerate(KINDS)
        ]

    def name_of(self, rng) -> tuple:
        """Return a case at hand: its kind, the seed, its number."""
        number = self._period * NUMBERS + int(rng.integers(NUMBERS))
        return self.kinds[int(rng.integers(len(self.kinds)))], self.seed, number

    def settle(self, name: tuple) -> None:
        """Make a case; compare with whoever made it before, or check the result."""
        case = make_case(*name)
        result = case.call()
        digest = digest_of(result)
        known = self.digests.setdefault(name, digest)
        if known is digest:
            case.check(result)
        assert known == digest, f"{name} has another result than before"


class Worker:
    """A source of random actions of its own, and a count of them."""

    def __init__(self, common: Common, index: int) -> None:
        self.common, self.index = common, index
        self.rng = np.random.default_rng([common.seed, 1000 + index])
        self.counts: Counter[str] = Counter()
        self.doing, self.since = "", 0.0

    def begin(self, what: str) -> None:
        """Note what the thread is doing, for who finds it still at it much later."""
        self.doing, self.since = what, time.monotonic()

    def act(self) -> None:
        """Do one thing, and record what fails."""
        common, rng = self.common, self.rng
        what = str(rng.choice(common.names, p=common.shares))
        try:
            if what == "case":
                name = common.name_of(rng)
                what = name[0]
                self.begin(f"make_case{name}")
                common.settle(name)
            else:
                self.begin(what)
                getattr(self, f"_{what}")()
        except BaseException:
            common.failures.append(f"{self.doing} in thread {self.index}: {traceback.format_exc()}")
        self.counts[what] += 1
        self.doing = ""

    def _shared(self) -> None:
        shared = self.common.shared[int(self.rng.integers(len(self.common.shared)))]
        self.begin(f"a shared envelope, {shared.options}")
        shared.touch(self.rng)

    def _argument(self) -> None:
        raise_by_argument(self.rng)

    def _callable(self) -> None:
        raise_in_callable(self.rng)

    def _count(self) -> None:
        torch.set_num_threads(int(self.rng.integers(1, MOST_THREADS + 1)))

    def _thread(self) -> None:
        """Call in a thread that ends: what it alone has must end with it."""
        name = self.common.name_of(self.rng)
        in_a_thread(lambda: self.common.settle(name))

    def _fork(self) -> None:
        """Fork with one thread for torch, as a loader's worker has, or from a fresh thread.

        The threads of OpenMP that torch used before a fork are waited for in vain by a child.
        """
        names = [self.common.name_of(self.rng) for _ in range(3)]
        cases = [(name, make_case(*name)) for name in names]
        known = [(name, case, digest_of(case.call())) for name, case in cases]
        is_fresh = bool(self.rng.random() < 0.5)
        most = MOST_THREADS if is_fresh else 1
        self.begin(f"a child of fork, of at most {most} threads, that calls {names}")
        work = work_of_a_child(known, self.common.shared, self.rng, most)

        def fork() -> None:
            fork_and_call(work, self.common.patience / 2)

        in_a_thread(fork) if is_fresh else fork()

    def _planted(self) -> None:
        for plant in self.common.planted:
            plant()


def in_a_thread(call: Callable[[], None]) -> None:
    """Call in a fresh thread, and raise what it raises."""
    errors: list[BaseException] = []

    def catch() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=catch)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


class WorkerThread(threading.Thread):
    """A worker that acts until it is told to stop, and is held at the gate between two acts."""

    def __init__(self, worker: Worker, gate) -> None:
        super().__init__(name=f"soak-{worker.index}", daemon=True)
        self._worker, self._gate = worker, gate
        self.is_stopped = False

    def run(self) -> None:
        """Act."""
        while not self.is_stopped and not self._worker.common.failures:
            self._worker.act()
            self._gate.pass_through()
        self._gate.leave()
