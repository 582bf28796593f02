"""What one thread of the soak does: random calls whose results are compared with the others'."""

from __future__ import annotations

import threading
import traceback
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch

from .calls import CASES, KERNELS, make_case
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

    def __init__(self, seed: int, patience: float, skipped=(), planted=None) -> None:
        self.seed, self.patience = seed, patience
        self.failures: list[str] = []
        self.kinds = [kind for kind in CASES if kind not in skipped]
        often = {name: share for name, share in OFTEN.items() if name not in skipped}
        if planted in REPEATED:
            often["planted"] = 2.0
        self.names = [*often, "case"]
        self.shares = np.array([*often.values(), 100.0 - sum(often.values())]) / 100.0
        self.planted: Callable[[], None] | None = REPEATED.get(planted)
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

    def name_of(self, rng, kinds=None) -> tuple:
        """Return a case at hand: its kind, the seed, its number."""
        kinds = kinds or self.kinds
        number = self._period * NUMBERS + int(rng.integers(NUMBERS))
        return kinds[int(rng.integers(len(kinds)))], self.seed, number

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
        self.doing = ""

    def act(self) -> None:
        """Do one thing, and record what fails."""
        common, rng = self.common, self.rng
        what = str(rng.choice(common.names, p=common.shares))
        try:
            if what == "case":
                name = common.name_of(rng)
                what, self.doing = name[0], f"make_case{name}"
                common.settle(name)
            else:
                self.doing = what
                getattr(self, f"_{what}")()
        except BaseException:
            common.failures.append(f"{self.doing} in thread {self.index}: {traceback.format_exc()}")
        self.counts[what] += 1

    def _shared(self) -> None:
        shared = self.common.shared[int(self.rng.integers(len(self.common.shared)))]
        self.doing = f"a shared envelope, {shared.options}"
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
        """Fork in one of three ways, for torch's own threads do not outlive a fork.

        A child may have as many as it likes if the thread that forks has never used any, or if it
        leaves them to the kernels; else one, as a loader's worker has.
        """
        way = int(self.rng.integers(3))
        kinds = KERNELS if way == 0 else None
        names = [self.common.name_of(self.rng, kinds) for _ in range(3)]
        cases = [(name, make_case(*name)) for name in names]
        known = [(name, case, digest_of(case.call())) for name, case in cases]
        shared = [] if way == 0 else self.common.shared
        most = 1 if way == 1 else MOST_THREADS
        self.doing = f"a child of fork, of {most} threads, that calls {names}"
        work = work_of_a_child(known, shared, self.rng, most)

        def fork() -> None:
            fork_and_call(work, self.common.patience / 2)

        in_a_thread(fork) if way == 2 else fork()

    def _planted(self) -> None:
        assert self.common.planted is not None
        self.common.planted()


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
            self._worker.doing = ""
            self._gate.pass_through()
        self._gate.leave()
