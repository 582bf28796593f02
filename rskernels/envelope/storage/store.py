"""The C++ core behind an envelope, and rows on a GPU that it has not taken in."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from rskernels import _core
from rskernels._python.forks import hold_over_forks, in_order
from rskernels._torch.fast_path import refuse_in_graph
from rskernels.envelope.device import RUNNING, DeviceBatch, DeviceTally, Queue, Waiting
from rskernels.envelope.options import Options
from rskernels.envelope.storage import saved
from rskernels.envelope.storage.reduce import reduce_state

Columns = dict[str, NDArray[Any]]


class Store:
    """The core of an envelope, and the rows on a device that it has not taken in yet.

    Parameters
    ----------
    options : Options
        Of the envelope.
    core : _core.Envelope, optional
        Made with these options; an empty one by default.

    Attributes
    ----------
    options : Options
        As given.
    reducing : tuple of int, optional
        The process and thread that reduce it over ranks; what would change it waits for them.
    """

    def __init__(self, options: Options, core: _core.Envelope | None = None) -> None:
        refuse_in_graph("an Envelope")
        self.options = options
        self._lock = hold_over_forks(threading.RLock())
        self.reducing: tuple[int, int] | None = None
        self._reduced = threading.Condition(self._lock)
        self._core = saved.make_core(options) if core is None else core
        # What no core has yet, since to take it in waits for the device.
        self._waiting: Waiting | None = None

    @classmethod
    def from_bytes(cls, data: bytes) -> Store:
        """Make the store whose core wrote these bytes."""
        core = saved.decode(data)
        return cls(saved.options_of(core), core)

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.from_bytes, (self.to_bytes(),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Store:
        # Which torch.compile traces where it does not see __reduce__.
        return Store.from_bytes(self.to_bytes())

    @property
    def lock(self) -> threading.RLock:
        """Held while rows or states come in or are read, and by whoever forks the process."""
        refuse_in_graph("an Envelope")
        return self._lock

    @property
    def core(self) -> _core.Envelope:
        """The core with all rows; waits for a device that holds some. Use it under the lock."""
        with self._lock:
            waiting = self._waiting
            if waiting is None:
                return self._core
            left_out = waiting.take_in(self._core)
            self._waiting = None
            if left_out > 0:
                raise IndexError(
                    f"{left_out} rows that came on {waiting.device} had group ids outside "
                    f"[0, {self.options.groups}); they were left out, the others taken in"
                )
            return self._core

    def wait_until_reduced(self) -> None:
        """Wait while another thread reduces it, without the lock, which is held once or more."""
        while self.reducing is not None:
            process, thread = self.reducing
            if process != os.getpid():
                # A child of fork has the state, and not the thread that reduces.
                self.reducing = None
            elif thread == threading.get_ident():
                raise RuntimeError("an envelope cannot change in the thread that all-reduces it")
            else:
                # An interrupt may keep the other from telling.
                self._reduced.wait(timeout=1.0)

    def add(self, batch: _core.Batch, accepted: NDArray[np.bool_] | None) -> int:
        """Add a batch, and which rows were accepted; return how many were above the M they met."""
        with self._lock:
            core = self.core
            violations = core.update(batch, torch.get_num_threads())
            if accepted is not None:
                core.observe(accepted, batch)
            return violations

    def add_on_device(self, batch: DeviceBatch) -> None:
        """Add a batch, without waiting for its device."""
        if batch.log_ratio.is_cuda and torch.cuda.is_current_stream_capturing():
            raise NotImplementedError(
                "a CUDA graph cannot hold Envelope.update, which a replay would leave out; "
                "call it after the replay with the log ratios that the graph has written"
            )
        with self.lock:
            self.wait_until_reduced()
            device = batch.log_ratio.device
            if self._waiting is None or not self._waiting.is_on(device):
                # Takes in what waits on another device.
                core, options = self.core, self.options
                self._waiting = (
                    DeviceTally(
                        options, device, torch.from_numpy(core.log_M()), saved.make_core(options)
                    )
                    if options.policy.name in RUNNING
                    else Queue(options.groups, device)
                )
            self._waiting.update(batch)

    def log_M(self, device: torch.device | str) -> Tensor:
        """Return log M of every group on a device; no wait where that has it at hand."""
        with self.lock:
            if isinstance(self._waiting, DeviceTally) and self._waiting.is_on(device):
                return self._waiting.log_M.clone()
            return torch.from_numpy(self.core.log_M()).to(device, non_blocking=True)

    def log_M_of(self, batch: _core.Batch) -> Tensor:
        """Return log M of every row of a batch."""
        with self.lock:
            return torch.from_numpy(self.core.log_M(batch))

    def tallies(self) -> dict[str, Tensor]:
        """Return counts and what follows from the sums, by name."""
        with self.lock:
            columns = self.core.tallies()
        return {name: torch.from_numpy(column) for name, column in columns.items()}

    def columns(self) -> dict[str, Tensor]:
        """Return a copy of all that has been seen, a tensor a column."""
        with self.lock:
            columns = self.core.state()
        return {name: torch.from_numpy(column) for name, column in columns.items()}

    def report(self) -> tuple[Columns, Columns]:
        """Return the columns of a report, of the groups and of all together."""
        with self.lock:
            return self.core.report()

    def to_bytes(self) -> bytes:
        """Return options and state as bytes."""
        with self.lock:
            return self.core.to_bytes()

    def merge(self, other: Store) -> None:
        """Add what another of the same options has seen."""
        self.options.check_equal(other.options.to_dict())
        first, second = in_order((self.lock, other.lock))
        while True:
            # Not with the other's lock held, which is not to be held up.
            with self._lock:
                self.wait_until_reduced()
            with first, second:
                if self.reducing is None:
                    self.core.merge(other.core)
                    return

    def all_reduce(self, group: dist.ProcessGroup | None) -> None:
        """Merge the stores of all processes, in place on each.

        Not under the lock, which a fork would wait for until all ranks have come.
        """
        refuse_in_graph("an Envelope")
        me = os.getpid(), threading.get_ident()
        try:
            with self._lock:
                self.wait_until_reduced()
                self.reducing = me
            reduced = reduce_state(self._state, self.options, group)
            with self._lock:
                self.core.restore(*reduced)
        finally:
            if self.reducing == me:
                self.reducing = None
            with self._lock:
                self._reduced.notify_all()

    def _state(self) -> Columns:
        with self._lock:
            return self.core.state()

    def state_dict(self) -> dict[str, Any]:
        """Return options by name, and the state."""
        with self.lock:
            return saved.write(self.options, self.core)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace what has been seen; change nothing if the state is unfit."""
        refuse_in_graph("an Envelope")
        self._restore(saved.read(self.options, state))

    def load_bytes(self, data: bytes) -> None:
        """Replace what has been seen by what a core of the same options wrote down."""
        refuse_in_graph("an Envelope")
        self._restore(saved.read_bytes(self.options, data))

    def _restore(self, columns: Columns) -> None:
        with self._lock:
            self.wait_until_reduced()
            self._core.restore(columns)
            self._waiting = None
