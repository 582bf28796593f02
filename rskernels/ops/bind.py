"""Binding: the arguments of a decision, checked once and put in order for what runs it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rskernels._torch import Call
from rskernels._torch.devices import cpu_kernels
from rskernels._torch.fast_path import is_idle, is_plain
from rskernels.kernels.product import Product
from rskernels.law.decision import Law
from rskernels.law.numbers import LEAST_TEMPERATURE, MOST_TEMPERATURE
from rskernels.law.seeds import CPU, check_row_offset, draw_number
from rskernels.ops.arguments import (
    FLOAT_DTYPES,
    M_argument,
    check_logits,
    check_targets,
    density_argument,
    integer_argument,
    layout_argument,
    may_be_odd,
    order_argument,
    seed_argument,
    temperature_argument,
)
from rskernels.ops.columns import ColumnOrder
from rskernels.ops.linear import LinearLogits, of_targets, parts_of

# A record from its fields, in half the time that calling its class takes.
_record = tuple.__new__


def bind(
    name: str,
    logits: Tensor | LinearLogits,
    density: Tensor | float,
    M: Tensor | float | None,
    *,
    targets: Tensor | None,
    temperature: Tensor | float,
    log_space: bool,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    row_offset: int,
    ignore_index: int,
    model_is_target: bool,
    is_lazy: bool = False,
    order: ColumnOrder | None = None,
) -> Call:
    """Return a decision's call, ready to run.

    ``name`` is what errors call the density. In the call's law, ``density`` and ``M`` are a float
    and ``seed`` an int, or they are detached tensors of a dtype, device and shape that kernels
    take.
    """
    source: Tensor | Product
    if isinstance(logits, LinearLogits):
        source, shape = of_targets(logits, targets), logits.shape
        parts: tuple[Any, ...] = parts_of(source)
    else:
        source, shape = logits, check_logits(logits)
        parts = (logits,)
    leading = shape[:-1]
    blocks = order_argument(order, logits, targets)
    idle = is_idle()
    is_direct = idle and is_plain(*parts, targets, density, M, seed, blocks, temperature)
    device = None if is_direct else logits.device
    if targets is not None:
        shape = leading
        check_targets(targets, shape, device)
    density = density_argument(name, density, device, shape, log_space)
    M = M_argument(M, device, shape, log_space)
    key = seed_argument(seed, generator, device or CPU, idle)
    temperature = temperature_argument(temperature, device, leading)
    law = _record(Law, (
        density, M, key, check_row_offset(row_offset), temperature,
        bool(log_space), model_is_target, integer_argument("ignore_index", ignore_index),
    ))  # fmt: skip
    layout = None
    if not is_direct and may_be_odd(*parts, targets, density, M, key, blocks, temperature):
        others = {
            "targets": targets, name: density, "M": M, "seed": key, "order": blocks,
            "temperature": temperature,
        }  # fmt: skip
        rows = "hidden" if isinstance(logits, LinearLogits) else "logits"
        layout = layout_argument(rows, parts[0], shape, seed is None, others)
    has_reading = is_lazy or blocks is not None
    arguments = (source, targets, law, is_lazy, blocks) if has_reading else (source, targets, law)
    return _record(Call, (arguments, is_direct, layout))


def plain_law(
    logits: Tensor | LinearLogits,
    density: Tensor | float,
    M: Tensor | float | None,
    seed: int | Tensor | None,
    row_offset: int,
    temperature: Tensor | float,
    log_space: bool,
    model_is_target: bool,
) -> Law | None:
    """Return the law of a dense decision that needs no more than a look, where torch is idle.

    That is of logits ``[N, V]`` on the CPU and of a density that is a float or a tensor ``[V]`` or
    ``[N, V]``; all else is a float, an int or not given. Returns None of whatever else: ``bind``
    takes or refuses it.
    """
    if M is None:
        M = 0.0 if log_space else 1.0
    if not (
        is_idle()
        and type(M) is type(temperature) is float
        and type(row_offset) is int
        and type(log_space) is bool
        and (-math.inf if log_space else 0.0) < M
        and LEAST_TEMPERATURE <= temperature <= MOST_TEMPERATURE
        and 0 <= row_offset < 1 << 63
        and type(logits) is Tensor
        and is_plain(logits, density)
        and logits.dim() == 2
        and logits.dtype in FLOAT_DTYPES
        and not logits.is_nested
    ):
        return None
    shape = logits.shape
    if shape[1] == 0:
        return None
    if type(density) is float:
        if not (density < math.inf and (log_space or density >= 0.0)):
            return None
    elif type(density) is not Tensor or density.dtype not in FLOAT_DTYPES or density.is_nested:
        return None
    else:
        given = density.shape
        if given != shape and (len(given) != 1 or given[0] != shape[1]):
            return None
    if seed is None:
        seed = draw_number()
    elif type(seed) is not int or not -(1 << 63) <= seed < 1 << 63:
        return None
    fields = (density, M, seed, row_offset, temperature, log_space, model_is_target, -100)
    return _record(Law, fields)


def plain_mask(logits: Tensor | LinearLogits, law: Law) -> Tensor:
    """Return the mask of a dense decision by a law that ``plain_law`` has found plain."""
    mask: Tensor = cpu_kernels().mask(logits, None, law)
    return mask
