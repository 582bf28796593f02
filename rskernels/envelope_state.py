"""An envelope's options and state in the forms that are stored: tensors by name, and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from rskernels import _core
from rskernels.envelope_options import PARAMETERS, Options
from rskernels.estimate import flat

Self = TypeVar("Self", bound="StoredState")


class StoredState:
    """The part of an envelope that stores and restores it."""

    _options: Options
    _core: _core.Envelope

    def state_dict(self) -> dict[str, Any]:
        """Return everything in types that ``torch.load(weights_only=True)`` reads."""
        arrays = {name: torch.from_numpy(array) for name, array in self._core.state().items()}
        return {**self._options._asdict(), **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace what has been seen by a :meth:`state_dict` of an envelope of the same options.

        Raises
        ------
        TypeError, ValueError
            If an entry is missing, unknown or of another dtype, the options differ, or the values
            fit no envelope. The envelope then stays as it was.
        """
        load_state(self._core, self._options, state)

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
        envelope._core = _core.Envelope.from_bytes(data)
        envelope._options = options_of(envelope._core)
        return envelope

    def load_bytes(self, data: bytes) -> None:
        """Replace what has been seen by what :meth:`to_bytes` of the same options wrote down.

        Raises
        ------
        TypeError, ValueError
            As :meth:`from_bytes`, and if the options differ. The envelope then stays as it was.
        """
        other = _core.Envelope.from_bytes(data)
        check_same(self._options, options_of(other)._asdict())
        self._core.restore(other.state())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_bytes, (self.to_bytes(),)


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
        arrays[name] = flat(tensor, dtype)
    core.restore(arrays)
