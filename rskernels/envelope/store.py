"""What an envelope holds: merged with others, stored as tensors by name or as bytes, restored."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from rskernels import _core
from rskernels.envelope.device import RUNNING, DeviceTally, Queue, Waiting
from rskernels.envelope.estimate import flat
from rskernels.envelope.policies import PARAMETERS, Options, check_types
from rskernels.envelope.reduce import reduce_state

Self = TypeVar("Self", bound="StoredState")


class StoredState:
    """The part of an envelope that holds, merges, stores and restores what it has seen."""

    _options: Options

    def _hold(self, core: _core.Envelope, options: Options) -> None:
        self._options = options
        self._held = core
        # What no core has yet, since to take it in waits for the device.
        self._waiting: Waiting | None = None
        # Held while rows or states come in.
        self._lock = threading.RLock()

    @property
    def _core(self) -> _core.Envelope:
        """The core with all rows; waits for a device that holds some of them."""
        with self._lock:
            waiting = self._waiting
            if waiting is None:
                return self._held
            left_out = waiting.take_in(self._held)
            self._waiting = None
            if left_out > 0:
                raise IndexError(
                    f"{left_out} rows that came on {waiting.device} had group ids outside "
                    f"[0, {self._options.groups}); they were left out, the others taken in"
                )
            return self._held

    def _waiting_on(self, device: torch.device) -> Waiting:
        """Return what takes rows in on a device."""
        if self._waiting is None or not self._waiting.is_on(device):
            core, options = self._core, self._options
            self._waiting = (
                DeviceTally(options, device, torch.from_numpy(core.log_M()), make_core(options))
                if options.policy in RUNNING
                else Queue(options.groups, device)
            )
        return self._waiting

    def _log_M_on(self, device: torch.device | str) -> Tensor:
        """Return log M of every group on a device; no wait where that has it at hand."""
        with self._lock:
            if isinstance(self._waiting, DeviceTally) and self._waiting.is_on(device):
                return self._waiting.log_M.clone()
            return torch.from_numpy(self._core.log_M()).to(device, non_blocking=True)

    def merge(self: Self, other: StoredState) -> Self:
        """Add what ``other`` has seen, in place, and return self.

        With ``half_life`` the newest samples of both count as equally old.

        Raises
        ------
        TypeError
            If ``other`` is no Envelope.
        ValueError
            If an option differs.
        """
        if not isinstance(other, StoredState):
            raise TypeError(f"only an Envelope can be merged, got {type(other).__name__}")
        check_same(self._options, other._options._asdict())
        theirs = other._core
        with self._lock:
            self._core.merge(theirs)
        return self

    def all_reduce(self: Self, group: dist.ProcessGroup | None = None) -> Self:
        """Merge the envelopes of all processes, in place on each, and return self.

        Every rank ends with what one process would hold that saw the rows of all: the same
        maxima, counts and histograms, sums to rounding. As with the collectives of torch, every
        rank of the group must call it, and a second call counts all rows again: keep what is new
        in an envelope of its own, reduce that and :meth:`merge` it.

        Two collectives, whatever the number of groups; on the GPU where the backend is NCCL. Each
        rank receives the state of all of them for a while, of the size that :meth:`to_bytes` has.

        Parameters
        ----------
        group : torch.distributed.ProcessGroup, optional
            The default group if None.

        Raises
        ------
        ValueError
            On every rank if an option differs, such as the number of groups; if there is no
            process group, or this process is none of the group. The envelope then stays as it was.
        RuntimeError
            If another rank cannot read what it was shown, such as a group id on a GPU that lies
            outside; that rank raises what kept it from it.
        """
        with self._lock:
            reduced = reduce_state(lambda: self._core.state(), self._options, group)
            self._core.restore(*reduced)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Return everything in types that ``torch.load(weights_only=True)`` reads."""
        arrays = {name: torch.from_numpy(array) for name, array in self._core.state().items()}
        return {**self._options._asdict(), **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace what has been seen by a :meth:`state_dict` of an envelope of the same options.

        Raises
        ------
        TypeError, ValueError
            If an entry is missing, unknown, of another type or dtype, or a tensor without values
            (on "meta"); if the options differ, or the values fit no envelope. The envelope then
            stays as it was.
        """
        with self._lock:
            load_state(self._held, self._options, state)
            self._waiting = None

    def to_bytes(self) -> bytes:
        """Return options and state as bytes, with a version, their length and a checksum."""
        return self._core.to_bytes()

    @classmethod
    def from_bytes(cls: type[Self], data: bytes) -> Self:
        """Make the envelope that :meth:`to_bytes` wrote down.

        Raises
        ------
        TypeError, ValueError
            If `data` is no bytes, truncated, damaged, of another version or no envelope.
        """
        envelope = cls.__new__(cls)
        core = _decode(data)
        envelope._hold(core, options_of(core))
        return envelope

    def load_bytes(self, data: bytes) -> None:
        """Replace what has been seen by what :meth:`to_bytes` of the same options wrote down.

        Raises
        ------
        TypeError, ValueError
            As :meth:`from_bytes`, and if the options differ. The envelope then stays as it was.
        """
        other = _decode(data)
        check_same(self._options, options_of(other)._asdict())
        with self._lock:
            self._held.restore(other.state())
            self._waiting = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_bytes, (self.to_bytes(),)


def _decode(data: bytes) -> _core.Envelope:
    # A bytearray could be freed while it is read.
    if not isinstance(data, bytes):
        raise TypeError(f"an envelope is read from bytes, got {type(data).__name__}")
    return _core.Envelope.from_bytes(data)


def make_core(options: Options) -> _core.Envelope:
    """Return an empty envelope of the core; it reads none of the numbers that are None."""
    return _core.Envelope(
        cast("_core._Policy", options.policy),
        options.groups,
        1.0 if options.level is None else options.level,
        options.confidence,
        options.half_life,
        1.0 if options.rate is None else options.rate,
        1.0 if options.M is None else options.M,
        cast("_core._Reaction", options.on_violation),
    )


def options_of(core: _core.Envelope) -> Options:
    """Return the options that a core was made with."""
    told = core.options()
    kept = {"policy", "groups", "half_life", "confidence", "on_violation"}
    kept |= {PARAMETERS.get(str(told["policy"]), "policy")}
    values: dict[str, Any] = {k: told[k] if k in kept else None for k in Options._fields}
    return Options(**values)


def check_same(ours: Options, theirs: Mapping[str, Any]) -> None:
    """Raise ValueError if two envelopes have different options."""
    if dict(theirs) != ours._asdict():
        raise ValueError(
            f"the envelopes differ: this one is {ours._asdict()}, the other {dict(theirs)}"
        )


def load_state(core: _core.Envelope, options: Options, state: Mapping[str, Any]) -> None:
    """Put a state dict into a core; raise TypeError or ValueError, and change nothing, if unfit."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping, got {type(state).__name__}")
    columns = make_core(options._replace(groups=1)).state()
    expected = {*Options._fields, *columns}
    if set(state) != expected:
        raise ValueError(
            f"state lacks {sorted(expected - set(state))} and has unknown entries "
            f"{sorted(map(str, set(state) - expected))}"
        )
    check_types({name: state[name] for name in Options._fields})
    check_same(options, {name: state[name] for name in Options._fields})
    arrays = {}
    for name, column in columns.items():
        dtype = torch.from_numpy(column).dtype
        tensor = state[name]
        if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"state[{name!r}] must be a {dtype} tensor, got {kind}")
        if tensor.dim() != 1:
            raise ValueError(
                f"state[{name!r}] must have one dimension, got shape {list(tensor.shape)}"
            )
        arrays[name] = _read(f"state[{name!r}]", tensor, dtype)
    core.restore(arrays)


def _read(name: str, tensor: Tensor, dtype: torch.dtype) -> NDArray[Any]:
    try:
        return flat(tensor, dtype)
    except (RuntimeError, TypeError) as error:  # meta tensors, wrappers, layouts without strides
        raise ValueError(
            f"{name} must hold its values in memory, got a {type(tensor).__name__} of layout "
            f"{tensor.layout} on {tensor.device}"
        ) from error
