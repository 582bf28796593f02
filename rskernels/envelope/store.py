"""The C++ core behind an envelope, and rows on a GPU that it has not taken in."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from rskernels import _core
from rskernels.envelope.device import RUNNING, DeviceBatch, DeviceTally, Queue, Waiting
from rskernels.envelope.options import Options
from rskernels.envelope.policies import make_policy
from rskernels.envelope.reduce import reduce_state
from rskernels.envelope.rows import flat


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
    lock : threading.RLock
        Held while rows or states come in.
    """

    def __init__(self, options: Options, core: _core.Envelope | None = None) -> None:
        self.options = options
        self.lock = threading.RLock()
        self._core = make_core(options) if core is None else core
        # What no core has yet, since to take it in waits for the device.
        self._waiting: Waiting | None = None

    @classmethod
    def from_bytes(cls, data: bytes) -> Store:
        """Make the store whose core wrote these bytes."""
        core = _decode(data)
        return cls(options_of(core), core)

    @property
    def core(self) -> _core.Envelope:
        """The core with all rows; waits for a device that holds some of them."""
        with self.lock:
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

    def add_on_device(self, batch: DeviceBatch) -> None:
        """Add a batch, without waiting for its device."""
        with self.lock:
            device = batch.log_ratio.device
            if self._waiting is None or not self._waiting.is_on(device):
                # Takes in what waits on another device.
                core, options = self.core, self.options
                self._waiting = (
                    DeviceTally(options, device, torch.from_numpy(core.log_M()), make_core(options))
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

    def merge(self, other: Store) -> None:
        """Add what another of the same options has seen."""
        self.options.check_equal(other.options.to_dict())
        core = other.core
        with self.lock:
            self.core.merge(core)

    def all_reduce(self, group: dist.ProcessGroup | None) -> None:
        """Merge the stores of all processes, in place on each."""
        with self.lock:
            reduced = reduce_state(lambda: self.core.state(), self.options, group)
            self.core.restore(*reduced)

    def state_dict(self) -> dict[str, Any]:
        """Return options and columns by name."""
        columns = {name: torch.from_numpy(column) for name, column in self.core.state().items()}
        return {**self.options.to_dict(), **columns}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace what has been seen; change nothing if the state is unfit."""
        columns = read_state(self.options, state)
        with self.lock:
            self._core.restore(columns)
            self._waiting = None

    def load_bytes(self, data: bytes) -> None:
        """Replace what has been seen by what a core of the same options wrote down."""
        other = _decode(data)
        self.options.check_equal(options_of(other).to_dict())
        with self.lock:
            self._core.restore(other.state())
            self._waiting = None


def make_core(options: Options) -> _core.Envelope:
    """Return an empty envelope of the core."""
    return _core.Envelope(
        cast("_core._Policy", options.policy.name),
        options.groups,
        cast("_core._Reaction", options.on_violation),
        **options.policy.numbers,
    )


def options_of(core: _core.Envelope) -> Options:
    """Return the options that a core was made with."""
    policy, groups, on_violation, numbers = core.options()
    return Options(make_policy(policy, **numbers), groups, on_violation)


def _decode(data: bytes) -> _core.Envelope:
    # A bytearray could be freed while it is read.
    if not isinstance(data, bytes):
        raise TypeError(f"an envelope is read from bytes, got {type(data).__name__}")
    return _core.Envelope.from_bytes(data)


def read_state(options: Options, state: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the columns of a state dict of these options, or raise TypeError or ValueError."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping, got {type(state).__name__}")
    columns = make_core(Options(options.policy, 1, options.on_violation)).state()
    names = list(options.to_dict())
    expected = {*names, *columns}
    if set(state) != expected:
        raise ValueError(
            f"state lacks {sorted(expected - set(state))} and has unknown entries "
            f"{sorted(map(str, set(state) - expected))}"
        )
    options.check_equal({name: state[name] for name in names})
    return {name: _read_column(name, state[name], empty) for name, empty in columns.items()}


def _read_column(name: str, tensor: Any, empty: NDArray[Any]) -> NDArray[Any]:
    dtype = torch.from_numpy(empty).dtype
    if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"state[{name!r}] must be a {dtype} tensor, got {kind}")
    if tensor.dim() != 1:
        raise ValueError(f"state[{name!r}] must have one dimension, got shape {list(tensor.shape)}")
    try:
        return flat(tensor, dtype)
    except (RuntimeError, TypeError) as error:  # meta tensors, wrappers, layouts without strides
        raise ValueError(
            f"state[{name!r}] must hold its values in memory, got a {type(tensor).__name__} of "
            f"layout {tensor.layout} on {tensor.device}"
        ) from error
