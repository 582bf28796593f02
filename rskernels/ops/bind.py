"""Binding: the arguments of a decision, checked once and put in order for what runs it."""

from __future__ import annotations

import torch
from torch import Tensor

from rskernels._torch import Call
from rskernels._torch.fast_path import is_idle, is_plain
from rskernels.law.decision import Law
from rskernels.law.seeds import CPU, check_row_offset
from rskernels.ops.arguments import (
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

# A record from its fields, in half the time that calling its class takes.
_record = tuple.__new__


def bind(
    name: str,
    logits: Tensor,
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
    shape = check_logits(logits)
    leading = shape[:-1]
    blocks = order_argument(order, logits, targets)
    idle = is_idle()
    is_direct = idle and is_plain(logits, targets, density, M, seed, blocks, temperature)
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
    if not is_direct and may_be_odd(logits, targets, density, M, key, blocks, temperature):
        others = {
            "targets": targets, name: density, "M": M, "seed": key, "order": blocks,
            "temperature": temperature,
        }  # fmt: skip
        layout = layout_argument("logits", logits, shape, seed is None, others)
    has_reading = is_lazy or blocks is not None
    arguments = (logits, targets, law, is_lazy, blocks) if has_reading else (logits, targets, law)
    return _record(Call, (arguments, is_direct, layout))
