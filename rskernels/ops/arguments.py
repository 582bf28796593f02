"""What the public operations accept, checked without reading device memory.

``device`` is where a tensor must be. None says that all are plain tensors of the CPU, as
``is_plain`` has found: on few rows even these checks are felt.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor
from torch.masked import MaskedTensor

from rskernels._python.integers import as_integer, kind_of
from rskernels._torch.fast_path import is_compiling, is_transforming
from rskernels._torch.sharded import (
    Layout,
    are_ordinary,
    check_sharded,
    is_sharded,
    refuse_transform,
)
from rskernels.law.seeds import check_seed, draw_seed
from rskernels.ops.columns import ColumnOrder

FLOAT_DTYPES = frozenset((torch.float32, torch.float64, torch.bfloat16, torch.float16))
INDEX_DTYPES = frozenset((torch.int64, torch.int32))
FLOAT_NAMES = "float32, float64, bfloat16 or float16"


class HasColumns(Protocol):
    """Logits, stored or not."""

    @property
    def shape(self) -> torch.Size:
        """``[..., V]``."""

    @property
    def device(self) -> torch.device:
        """Where they are, or what they are made of."""


def check_floating(name: str, value: Tensor) -> None:
    """Raise unless ``value`` is a floating tensor on a device that has kernels."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in FLOAT_DTYPES:
        raise TypeError(f"{name} must be {FLOAT_NAMES}, got {value.dtype}")
    if value.layout is not torch.strided or value.is_nested:
        _refuse_layout(name, value)
    if not (value.is_cpu or value.is_cuda or value.is_meta):
        raise ValueError(
            f"{name} is on {value.device}; there are kernels for CPU and CUDA (or ROCm) tensors"
        )


def check_logits(logits: Tensor) -> torch.Size:
    """Return the shape of a floating tensor of at least one class."""
    check_floating("logits", logits)
    shape = logits.shape
    if not shape or shape[-1] == 0:
        raise ValueError(f"logits must have shape [..., V] with V of at least 1, got {list(shape)}")
    return shape


def check_targets(
    targets: Tensor,
    leading: torch.Size,
    device: torch.device | None,
    accepted: str = "a torch.Tensor or None",
) -> None:
    """Raise unless ``targets`` is an index tensor that names one class of each row."""
    if not isinstance(targets, Tensor):
        raise TypeError(f"targets must be {accepted}, got {type(targets).__name__}")
    if device is not None:
        check_strided("targets", targets)
    if targets.dtype not in INDEX_DTYPES:
        raise TypeError(f"targets must be int64 or int32, got {targets.dtype}")
    try:
        shape = targets.shape
    except RuntimeError:  # as of nested tensors, which costs less than asking all others
        check_strided("targets", targets)
        raise
    if shape != leading:
        raise ValueError(
            f"targets must have the logits' leading shape {list(leading)}, got {list(shape)}"
        )
    if device is not None and targets.device != device:
        raise ValueError(f"targets are on {targets.device}, logits on {device}")


def density_argument(
    name: str,
    value: Tensor | float,
    device: torch.device | None,
    shape: torch.Size,
    log_space: bool,
) -> Tensor | float:
    """Return a density."""
    if type(value) is not float and isinstance(value, Tensor):
        return _tensor(name, value, device, shape)
    number = number_argument(name, value)
    # Comparisons that a NaN fails; torch.compile does not trace math.isnan of a changing number.
    if not (number < math.inf and (log_space or number >= 0.0)):
        accepted = "below +inf" if log_space else "a finite number of at least 0"
        raise ValueError(f"{name} must be {accepted}, got {number}")
    return number


def M_argument(
    value: Tensor | float | None, device: torch.device | None, shape: torch.Size, log_space: bool
) -> Tensor | float:
    """Return the envelope constant; None is M = 1."""
    if type(value) is float and 0.0 < value < math.inf:
        return value
    if value is None:
        return 0.0 if log_space else 1.0
    if isinstance(value, Tensor):
        return _tensor("M", value, device, shape)
    number = number_argument("M", value)
    if not number > (-math.inf if log_space else 0.0):
        accepted = "the logarithm of a number above 0" if log_space else "above 0"
        raise ValueError(f"M must be {accepted}, got {number}")
    return number


def seed_argument(
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    device: torch.device,
    is_idle: bool,
) -> Tensor | int:
    """Return a seed; draw one where none is given."""
    if seed is None:
        return draw_seed(generator, device, is_idle)
    if generator is not None:
        raise ValueError("seed and generator are both given; at most one of them is accepted")
    seed = check_seed(seed)
    if type(seed) is not int and isinstance(seed, Tensor):
        check_strided("the seed tensor", seed)
        if seed.device != device:
            raise ValueError(f"the seed tensor is on {seed.device}, the logits on {device}")
    return seed


def order_argument(
    order: ColumnOrder | None, logits: HasColumns, targets: Tensor | None
) -> Tensor | None:
    """Return the blocks of an order that fits the logits."""
    if order is None:
        return None
    if not isinstance(order, ColumnOrder):
        raise TypeError(f"order must be a ColumnOrder or None, got {type(order).__name__}")
    if targets is None:
        raise ValueError("order is given without targets; the dense form reads every column")
    if logits.shape[-1] != order.V:
        raise ValueError(f"order is of {order.V} columns, the logits have {logits.shape[-1]}")
    if order.blocks.device != logits.device:
        raise ValueError(f"order is on {order.blocks.device}, the logits on {logits.device}")
    return order.blocks


def may_be_odd(*values: Any) -> bool:
    """Say whether ``layout_argument`` has to look at these."""
    return not are_ordinary(*values) or is_transforming()


def refuse_odd(values: dict[str, Any], remedy: str) -> None:
    """Refuse what has a mask, and a transform of a DTensor; ``remedy``: how to leave rows out."""
    if is_transforming() and not is_compiling():
        refuse_transform(*values.values())
    for name, value in values.items():
        if isinstance(value, MaskedTensor):
            raise TypeError(
                f"{name} is a MaskedTensor, whose mask would be lost; give its get_data(), and "
                f"leave rows out {remedy}"
            )


def layout_argument(
    name: str, rows: Tensor, decisions: torch.Size, is_drawn: bool, others: dict[str, Any]
) -> Layout | None:
    """Return how decisions lie on ranks, if arguments are DTensors; refuse what has a mask."""
    remedy = "by ignore_index as their target, or by a density of 0"
    refuse_odd({name: rows, **others}, remedy)
    if not is_sharded(rows, *others.values()):
        return None
    return check_sharded(name, rows, decisions, is_drawn, others)


def ids_argument(
    ids: Tensor | None, row_offset: int, device: torch.device | None, shape: torch.Size
) -> tuple[Tensor, ...]:
    """Return ids of rows, where given, as the last argument of a decision about ratios."""
    if ids is None:
        return ()
    if not isinstance(ids, Tensor):
        raise TypeError(f"ids must be an int64 tensor or None, got {type(ids).__name__}")
    if ids.dtype != torch.int64:
        raise TypeError(f"ids must be int64, got {ids.dtype}")
    check_strided("ids", ids)
    if ids.shape != shape:
        raise ValueError(f"ids must have the decisions' shape {list(shape)}, got {list(ids.shape)}")
    if device is not None and ids.device != device:
        raise ValueError(f"ids are on {ids.device}, the decisions on {device}")
    if row_offset != 0:
        raise ValueError(f"row_offset is for rows without ids, got {row_offset} with ids")
    return (ids,)


def temperature_argument(
    value: Tensor | float, device: torch.device | None, leading: torch.Size
) -> Tensor | float:
    """Return a temperature: a float in range, or a tensor that broadcasts to the rows."""
    if type(value) is not float:
        if isinstance(value, Tensor):
            return _tensor("temperature", value, device, leading, "the logits' leading shape")
        value = number_argument("temperature", value)
    # Not by their names: torch.compile takes a module's floats for numbers that change.
    if not 1e-30 <= value <= 1e30:
        raise ValueError(f"temperature must be in [1e-30, 1e30], got {value}")
    return value


def integer_argument(name: str, value: int) -> int:
    """Return an int that fits 64 bits."""
    if type(value) is not int:
        value = as_integer(name, value)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} must fit 64 bits, got {value}")
    return value


def mask_of(name: str, mask: object, log_ratio: Tensor) -> Tensor:
    """Return a bool tensor that says of each log ratio whether it is decided."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name} must be a bool tensor, got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        raise TypeError(f"{name} must be bool, got {mask.dtype}")
    check_strided(name, mask)
    if mask.shape != log_ratio.shape:
        raise ValueError(
            f"{name} must have the shape of the log ratios, {list(log_ratio.shape)}, got "
            f"{list(mask.shape)}"
        )
    if mask.device != log_ratio.device:
        raise ValueError(f"{name} is on {mask.device}, the log ratios on {log_ratio.device}")
    return mask


def number_argument(name: str, value: object, accepted: str = "a number or a tensor") -> float:
    """Return a number as a float."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, (Real, torch.SymFloat, torch.SymInt)):
        raise TypeError(f"{name} must be {accepted}, got {kind_of(value)}")
    try:
        return float(value)
    except OverflowError:
        kind = type(value).__name__
        kind = f"an int of {value.bit_length()} bits" if isinstance(value, int) else kind
        raise ValueError(f"{name} must fit a float64, got {kind}") from None


def _tensor(
    name: str,
    value: Tensor,
    device: torch.device | None,
    shape: torch.Size,
    of: str = "the decisions' shape",
) -> Tensor:
    if value.dtype not in FLOAT_DTYPES:
        raise TypeError(f"{name} must be {FLOAT_NAMES}, got {value.dtype}")
    if device is not None:
        check_strided(name, value)
        if value.device != device:
            raise ValueError(f"{name} is on {value.device}, the decisions on {device}")
    try:
        given = value.shape
    except RuntimeError:
        check_strided(name, value)
        raise
    if given != shape:
        missing = len(shape) - value.dim()
        if missing < 0 or any(
            size not in (1, shape[missing + axis]) for axis, size in enumerate(value.shape)
        ):
            raise ValueError(
                f"{name} must broadcast to {of} {list(shape)}, got {list(value.shape)}"
            )
    return value.detach() if value.requires_grad else value


def check_strided(name: str, value: Tensor) -> None:
    """Raise unless a tensor is dense and has one shape."""
    if value.layout is not torch.strided or value.is_nested:
        _refuse_layout(name, value)


def _refuse_layout(name: str, value: Tensor) -> NoReturn:
    layout = "a nested one" if value.is_nested else value.layout
    raise TypeError(f"{name} must be a strided tensor, got {layout}")
