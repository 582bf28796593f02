"""Log ratios and group ids as memory that the C++ core reads where it lies."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rskernels import _core
from rskernels.estimate import DTYPES, check_ids

Rows = Tensor | NDArray[Any]
INT_DTYPES = ("int64", "int32")


class RowMemory(NamedTuple):
    """Rows as the core takes them; `owners` keep the memory alive."""

    batch: _core.Batch
    shape: tuple[int, ...]
    owners: tuple[Any, ...]


def row_memory(
    log_ratio: Rows | None, groups: Rows | None, group_count: int, *, needs_groups: bool = True
) -> RowMemory:
    """Describe a batch; contiguous CPU tensors and arrays are not copied.

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape is none that ``Envelope.update`` takes.
    """
    address = ids = 0
    dtype: _core._DType = "float64"
    id_dtype = "int64"
    shape: tuple[int, ...] = ()
    owner = id_owner = None
    if log_ratio is not None:
        address, dtype, shape, owner = _floats(log_ratio)
    id_shape = shape
    if groups is not None:
        ids, id_dtype, id_shape, id_owner = _ids(groups)
        if log_ratio is not None and id_shape != shape:
            raise ValueError(
                f"groups must have the shape of log_ratio, {list(shape)}, got {list(id_shape)}"
            )
    elif needs_groups and group_count > 1:
        raise ValueError(f"an envelope of {group_count} groups needs the group of every row")
    count = int(np.prod(id_shape, dtype=np.int64))
    batch = _core.Batch(address, dtype, count, ids, id_dtype == "int32")
    return RowMemory(batch, id_shape, (owner, id_owner))


def accepted_mask(accepted: Rows, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which rows were accepted as a flat array."""
    mask = torch.from_numpy(accepted) if isinstance(accepted, np.ndarray) else accepted
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(accepted).__name__
        raise TypeError(f"accepted must be a bool tensor or array, got {kind}")
    if tuple(mask.shape) != shape:
        raise ValueError(
            f"accepted must have the shape of log_ratio, {list(shape)}, got {list(mask.shape)}"
        )
    flat: NDArray[np.bool_] = mask.detach().cpu().reshape(-1).contiguous().numpy()
    return flat


def _floats(rows: Rows) -> tuple[int, _core._DType, tuple[int, ...], Any]:
    if isinstance(rows, np.ndarray):
        if rows.dtype.name not in ("float64", "float32", "float16"):
            raise TypeError(
                f"log_ratio must be float64, float32 or float16 as an array, got {rows.dtype}"
            )
        return _array(rows)
    if not isinstance(rows, Tensor) or not rows.is_floating_point():
        kind = rows.dtype if isinstance(rows, Tensor) else type(rows).__name__
        raise TypeError(f"log_ratio must be a NumPy array or a floating-point tensor, got {kind}")
    dtype = rows.dtype if rows.dtype in DTYPES else torch.float32
    flat = _flat(rows, dtype)
    return flat.data_ptr(), DTYPES[dtype], tuple(rows.shape), flat


def _ids(groups: Rows) -> tuple[int, str, tuple[int, ...], Any]:
    if isinstance(groups, np.ndarray):
        if groups.dtype.name not in INT_DTYPES:
            raise TypeError(f"groups must be int64 or int32, got {groups.dtype}")
        return _array(groups)
    check_ids("groups", groups)
    flat = _flat(groups, groups.dtype)
    return flat.data_ptr(), str(flat.dtype).removeprefix("torch."), tuple(groups.shape), flat


def _array(rows: NDArray[Any]) -> tuple[int, Any, tuple[int, ...], Any]:
    native = rows.dtype.newbyteorder("=")
    flat = np.ascontiguousarray(rows, dtype=native)
    return flat.ctypes.data, native.name, rows.shape, flat


def _flat(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype).reshape(-1).contiguous().resolve_neg()
