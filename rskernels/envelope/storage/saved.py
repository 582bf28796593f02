"""The form in which a state is saved: options that can be read, and all that was seen as bytes.

As one entry, and not a tensor, since `torch.distributed.checkpoint` loads a tensor only into one of
its size, and of an entry that several ranks save takes that of one of them: of several entries it
could take some of one rank and some of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor

from rskernels import _core
from rskernels.envelope.options import Options
from rskernels.envelope.policies import make_policy
from rskernels.envelope.rows import flat

ENTRY = "state"
_SOURCE = "an envelope is read from"


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


def write(options: Options, core: _core.Envelope) -> dict[str, Any]:
    """Return the state dict of a core that was made with these options."""
    return {**options.to_dict(), ENTRY: core.to_bytes()}


def read(options: Options, state: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the columns of a state dict of these options, or raise TypeError or ValueError.

    A state may also hold each column as an entry of its own, a tensor, as they all once did.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping, got {type(state).__name__}")
    names = set(options.to_dict())
    empty = make_core(Options(options.policy, 1, options.on_violation)).state()
    columns = {ENTRY} if ENTRY in state or not set(state) & set(empty) else set(empty)
    if set(state) != names | columns:
        raise ValueError(
            f"state lacks {sorted((names | columns) - set(state))} and has unknown entries "
            f"{sorted(map(str, set(state) - names - columns))}"
        )
    options.check_equal({name: state[name] for name in options.to_dict()})
    if ENTRY in state:
        return read_bytes(options, state[ENTRY], f"state[{ENTRY!r}] must be")
    return {name: _read_column(name, state[name], column) for name, column in empty.items()}


def read_bytes(options: Options, data: object, what: str = _SOURCE) -> dict[str, NDArray[Any]]:
    """Return the columns that a core of these options wrote down, or raise as `read`."""
    core = decode(data, what)
    options.check_equal(options_of(core).to_dict())
    return core.state()


def decode(data: object, what: str = _SOURCE) -> _core.Envelope:
    """Return the core that wrote these bytes, or raise TypeError or ValueError."""
    # A bytearray could be freed while it is read.
    if not isinstance(data, bytes):
        raise TypeError(f"{what} bytes, got {type(data).__name__}")
    return _core.Envelope.from_bytes(data)


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
