"""Log ratios and group ids: checked, and as memory that the C++ core reads where it lies."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rskernels import _core
from rskernels._torch.sharded import is_sharded

ArrayLike = Tensor | NDArray[Any]

DTYPES: dict[torch.dtype, _core._DType] = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


BY_ENVELOPES = "the ranks' envelopes add up by all_reduce()"


class RowMemory(NamedTuple):
    """A batch as the core takes it; `owners` keep the memory alive."""

    batch: _core.Batch
    shape: tuple[int, ...]
    owners: tuple[Any, ...]


def check_rows(
    log_ratio: ArrayLike,
    groups: ArrayLike | None,
    group_count: int,
    accepted: ArrayLike | None = None,
    ignored: ArrayLike | None = None,
) -> tuple[int, ...]:
    """Return the shape of a batch, no value of which is read.

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape is none that ``Envelope.update`` takes.
    """
    flags = (("accepted", accepted), ("ignored", ignored))
    for name, values in (("log_ratio", log_ratio), ("groups", groups), *flags):
        if values is not None:
            _check_whole(name, values)
    if isinstance(log_ratio, np.ndarray):
        if log_ratio.dtype.name not in ("float64", "float32", "float16"):
            raise TypeError(
                f"log_ratio must be float64, float32 or float16 as an array, got {log_ratio.dtype}"
            )
    elif not (isinstance(log_ratio, Tensor) and log_ratio.is_floating_point()):
        raise TypeError(
            f"log_ratio must be a NumPy array or a floating-point tensor, got {_kind(log_ratio)}"
        )
    shape = tuple(log_ratio.shape)
    _check_groups(groups, group_count)
    for name, values in flags:
        if values is not None and _kind(values) not in (torch.bool, np.bool_):
            raise TypeError(f"{name} must be a bool tensor or array, got {_kind(values)}")
    for name, values in (("groups", groups), *flags):
        if values is not None and tuple(values.shape) != shape:
            raise ValueError(
                f"{name} must have the shape of log_ratio, {list(shape)}, got {list(values.shape)}"
            )
    return shape


def row_memory(
    log_ratio: ArrayLike | None, groups: ArrayLike | None, group_count: int
) -> RowMemory:
    """Describe a batch, or the groups of one; contiguous CPU tensors and arrays are not copied.

    Raises
    ------
    TypeError, ValueError
        As `check_rows`.
    """
    if log_ratio is not None:
        shape = check_rows(log_ratio, groups, group_count)
    else:
        _check_groups(groups, group_count)
        shape = () if groups is None else tuple(groups.shape)
    ratios, dtype, owner = _memory("log_ratio", log_ratio, "float64")
    ids, id_dtype, id_owner = _memory("groups", groups, "int64")
    batch = _core.Batch(ratios, dtype, math.prod(shape), ids, id_dtype == "int32")
    return RowMemory(batch, shape, (owner, id_owner))


def accepted_mask(accepted: ArrayLike) -> NDArray[np.bool_]:
    """Return which rows were accepted as a flat array.

    Raises
    ------
    ValueError
        If it is a tensor without storage.
    """
    if isinstance(accepted, Tensor):
        check_values("accepted has", accepted)
    mask: NDArray[np.bool_] = np.ravel(as_tensor(accepted).cpu().resolve_neg().numpy())
    return mask


def not_ignored(ignored: ArrayLike, *columns: ArrayLike | None) -> tuple[Any, ...]:
    """Return columns of rows without those that are ignored; waits for a device."""
    kept = ~as_tensor(ignored).cpu()
    return tuple(x if x is None else as_tensor(x).cpu()[kept] for x in columns)


def as_tensor(rows: ArrayLike) -> Tensor:
    """Return rows as a tensor on their device."""
    if isinstance(rows, Tensor):
        return rows.detach()
    # torch takes no other byte order, no negative strides, and no memory that is not to be written.
    native = rows.dtype.newbyteorder("=")
    values = np.require(rows, native, ["C", "W"])
    if any(step % values.itemsize for step in values.strides):
        values = values.copy()  # one value of records: numpy calls it contiguous, torch does not
    return torch.from_numpy(values.reshape(rows.shape))


def check_ids(name: str, ids: Tensor) -> None:
    """Raise TypeError if ``ids`` is no int64 or int32 tensor."""
    if not isinstance(ids, Tensor):
        raise TypeError(f"{name} must be an int64 or int32 tensor, got {type(ids).__name__}")
    if ids.layout != torch.strided or ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must be a strided int64 or int32 tensor, got {ids.dtype}")
    refuse_sharded(name, ids, BY_ENVELOPES)


def flat(tensor: Tensor, dtype: torch.dtype) -> NDArray[Any]:
    """Return a tensor of any device and layout as a contiguous one-dimensional array."""
    array: NDArray[Any] = (
        tensor.detach().to("cpu", dtype).reshape(-1).contiguous().resolve_neg().numpy()
    )
    return array


def check_values(what: str, tensor: Tensor) -> None:
    """Raise ValueError if a tensor has elements but no memory that holds them."""
    try:
        address = tensor.data_ptr()
    except (RuntimeError, Warning):  # a wrapper; fake tensors warn, which a filter may raise
        address = 0
    if address == 0 and tensor.numel() > 0:
        raise ValueError(
            f"{what} no values to take M from: {type(tensor).__name__} on "
            f"{tensor.device}, without storage"
        )


def refuse_sharded(name: str, rows: object, remedy: str) -> None:
    """Raise TypeError for a DTensor; ``remedy`` says how what the ranks saw comes together."""
    if is_sharded(rows):
        raise TypeError(f"{name} is a DTensor; give this rank's rows, its to_local(): {remedy}")


def _check_groups(groups: ArrayLike | None, group_count: int) -> None:
    if isinstance(groups, np.ndarray):
        if groups.dtype.name not in ("int64", "int32"):
            raise TypeError(f"groups must be int64 or int32, got {groups.dtype}")
    elif groups is not None:
        check_ids("groups", groups)
    elif group_count > 1:
        raise ValueError(f"an envelope of {group_count} groups needs the group of every row")


def _check_whole(name: str, rows: object) -> None:
    """Raise TypeError for rows that hide some of their elements, or have no one shape."""
    if isinstance(rows, np.ma.MaskedArray) or (isinstance(rows, Tensor) and rows.is_nested):
        raise TypeError(f"{name} must be a plain array or tensor, got a {type(rows).__name__}")
    if type(rows) is not Tensor:
        refuse_sharded(name, rows, BY_ENVELOPES)


def _memory(name: str, rows: ArrayLike | None, absent: str) -> tuple[int, Any, Any]:
    """Return address, dtype and owner."""
    if rows is None:
        return 0, absent, None
    if isinstance(rows, np.ndarray):
        native = rows.dtype.newbyteorder("=")
        array = np.ascontiguousarray(rows, dtype=native)
        return array.ctypes.data, native.name, array
    check_values(f"{name} has", rows)
    keeps = rows.dtype in DTYPES or not rows.is_floating_point()
    dtype = rows.dtype if keeps else torch.float32
    values = rows.detach().to("cpu", dtype).reshape(-1).contiguous().resolve_neg()
    return values.data_ptr(), str(dtype).removeprefix("torch."), values


def _kind(rows: object) -> object:
    return getattr(rows, "dtype", type(rows).__name__)
