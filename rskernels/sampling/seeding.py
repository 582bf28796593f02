"""The seed of a call: of its acceptances and of proposals drawn from torch's generators."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels._python.forks import handle_signals_last
from rskernels.law.philox import philox4x32, seed_words
from rskernels.law.seeds import check_seed, draw_seed
from rskernels.law.streams import Stream

# What a generator that nobody has seeded starts from; of CUDA's as of the CPU's.
UNSEEDED = 67280421310721
# Seconds that a fork waits for another thread's draw.
PATIENCE = 1.0


def acceptance_seed(seed: int | None, generator: torch.Generator | None) -> int:
    """Return the seed of the acceptances, drawn from a generator where none is given."""
    if seed is None:
        device = getattr(generator, "device", torch.device("cpu"))
        return int(draw_seed(generator, device))
    if generator is not None:
        raise ValueError("seed and generator are both given; at most one of them is accepted")
    if isinstance(seed, Tensor):
        raise TypeError("seed must be an int, got a tensor")
    return int(check_seed(seed))


class _Before(NamedTuple):
    """What the default generators were before a thread seeded them."""

    cpu: Tensor
    queued: dict[str, Any]  # the seeds of CUDA devices, until one is used


class Generators:
    """torch's default generators, seeded for as long as proposals are drawn.

    Between draws they are as they were, and so they are after an error: what else uses them
    neither sees the seed nor moves the proposals. One call at a time has them.

    Parameters
    ----------
    key : int
        Seed of the acceptances, from which that of the proposals follows; None leaves the
        generators to run on.
    """

    def __init__(self, key: int | None) -> None:
        self._seed: int | None = None
        if key is not None:
            counter = torch.tensor([0, 0, 0, Stream.PROPOSAL], device="cpu")
            high, low = philox4x32(counter, seed_words(key, "cpu"))[:2].tolist()
            self._seed = (high >> 1) << 32 | low
        self._cpu: Tensor | None = None
        self._cuda: list[Tensor] | None = None

    def lent(self) -> AbstractContextManager[None]:
        """Return a context in which the default generators continue this call's draws."""
        return nullcontext() if self._seed is None else self._swapped(self._seed)

    @contextmanager
    def _swapped(self, seed: int) -> Iterator[None]:
        with _lock:
            before = _Before(torch.default_generator.get_state(), _queued_seeds())
            _lent.append(before)
            try:
                if self._cpu is None:
                    torch.default_generator.manual_seed(seed)
                else:
                    torch.default_generator.set_state(self._cpu)
                with self._swapped_on_cuda(seed, before.queued):
                    yield
            finally:
                self._cpu = torch.default_generator.get_state()
                torch.default_generator.set_state(before.cpu)
                _lent.pop()

    @contextmanager
    def _swapped_on_cuda(self, seed: int, queued: dict[str, Any]) -> Iterator[None]:
        if not torch.cuda.is_available():
            yield
        elif torch.cuda.is_initialized():
            before = [generator.get_state() for generator in torch.cuda.default_generators]
            self._seed_cuda(seed)
            try:
                yield
            finally:
                self._cuda = _exchange(before)
        else:
            # It is done as soon as something uses a device, which the draws may be first to do.
            torch.cuda.manual_seed_all(seed)
            try:
                yield
            finally:
                if torch.cuda.is_initialized():
                    self._cuda = [g.get_state() for g in torch.cuda.default_generators]
                    _seed_as_queued(queued)
                else:
                    _queue_seeds(queued)

    def _seed_cuda(self, seed: int) -> None:
        if self._cuda is None:
            for generator in torch.cuda.default_generators:
                generator.manual_seed(seed)
        else:
            _exchange(self._cuda)


def _exchange(states: list[Tensor]) -> list[Tensor]:
    """Set the states of the CUDA devices' default generators, and return those before."""
    before = [generator.get_state() for generator in torch.cuda.default_generators]
    for generator, state in zip(torch.cuda.default_generators, states, strict=True):
        generator.set_state(state)
    return before


def _queued_seeds() -> dict[str, Any]:
    """Return a copy of the seeds that torch holds for CUDA devices until one is used."""
    queued = vars(torch.cuda._lazy_seed_tracker)
    return {name: list(v) if isinstance(v, list) else v for name, v in queued.items()}


def _queue_seeds(queued: dict[str, Any]) -> None:
    vars(torch.cuda._lazy_seed_tracker).update(queued)


def _seed_as_queued(queued: dict[str, Any]) -> None:
    """Seed the CUDA devices as they would be had they been used with these seeds queued."""
    for generator in torch.cuda.default_generators:
        generator.manual_seed(UNSEEDED)
    for call in filter(None, queued["call_order"]):
        call[0]()


_lock = threading.RLock()
_lent: list[_Before] = []  # by one thread, which may call from inside of its own call


_forking = threading.local()


def _wait() -> None:
    """Let another thread end its draw: a child would keep what it has seeded and locked."""
    # Without end it might wait for one that waits for the child.
    _forking.has_lock = _lock.acquire(timeout=PATIENCE)
    if not _forking.has_lock:
        # The lock of torch's own is held while numbers are made.
        torch.default_generator.get_state()


def _go_on() -> None:
    if _forking.has_lock:
        _lock.release()


def _take_back() -> None:
    """Put back in a child what a thread had seeded that the child does not have."""
    global _lock
    if _forking.has_lock:
        _lock.release()
        return
    _lock = threading.RLock()
    if _lent:
        torch.default_generator.set_state(_lent[0].cpu)
        _queue_seeds(_lent[0].queued)
        _lent.clear()


os.register_at_fork(before=_wait, after_in_parent=_go_on, after_in_child=_take_back)
# No other module has a hook in the parent.
handle_signals_last()
