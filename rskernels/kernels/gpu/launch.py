"""The Triton backend: every operation of ``kernels.reference`` for CUDA and ROCm tensors.

Nothing here waits for the device: seeds, densities and M are read by the kernels, and results and
counts stay where they are.
"""

from __future__ import annotations

import contextlib
import math

import torch
import triton
import triton.language as tl

from rskernels.kernels.gpu.bernoulli import philox_kernel
from rskernels.kernels.gpu.decide import target_kernel
from rskernels.kernels.gpu.dense import dense_kernel
from rskernels.kernels.gpu.gradient import gradient_kernel, log_prob_kernel
from rskernels.kernels.gpu.softmax import partials_kernel
from rskernels.kernels.layout import (
    ORDER_BLOCK,
    RowLayout,
    Scalar,
    as_rows,
    column_stride,
    entry_scalars,
    row_scalar,
    wide_dtype,
)
from rskernels.law.decision import Decided, DecidedWithTotals, Law
from rskernels.law.numbers import SUMMARY, SUMMARY_COUNTS, SUMMARY_SUMS

LANES = 1024  # sums that a row's logits are added to in turns, so that launches give the same bits
STEPS = 8  # times that a program takes so many logits before it looks up: a part of the row
FEW_ROWS = 256  # below this, a program a part fills the device better than a program a row
# In the dense form a large program takes a row, so that few rows wait in the cache at once.
DENSE_LANES, DENSE_STEPS = 2048, 4
BLOCK = 1024
WARP = 64 if torch.version.hip else 32  # threads of a warp


def decide(
    logits: torch.Tensor,
    targets: torch.Tensor | None,
    law: Law,
) -> Decided:
    """Decide every row, or every entry, and return (mask, log_prob, log_ratio, counts, excess)."""
    if targets is None:
        mask, log_prob, log_ratio, summary = _decide_entries(logits, law, True)
    else:
        mask, log_prob, log_ratio, summary = _decide_targets(logits, targets, law, True)
    return mask, log_prob, log_ratio, *sums_of(summary)


def decide_with_totals(logits: torch.Tensor, targets: torch.Tensor, law: Law) -> DecidedWithTotals:
    """Decide every row, and return as well what the gradient of log_prob needs of it [..., 2]."""
    totals = torch.empty((*targets.shape, 2), dtype=torch.float64, device=logits.device)
    mask, log_prob, log_ratio, summary = _decide_targets(logits, targets, law, True, totals=totals)
    return log_prob, totals, mask, log_ratio, *sums_of(summary)


def mask(
    logits: torch.Tensor,
    targets: torch.Tensor | None,
    law: Law,
    is_lazy: bool = False,
    order: torch.Tensor | None = None,
) -> torch.Tensor:
    """Decide every row, or every entry, and return only the mask.

    Where ``is_lazy``, a row is read until its decision is certain: what follows is taken to be
    valid where the model is the proposal. ``order`` is int64 [blocks], the order of its blocks.
    """
    if targets is None:
        return _decide_entries(logits, law, False)[0]
    return _decide_targets(logits, targets, law, False, is_lazy, order)[0]


def target_log_prob(
    logits: torch.Tensor,
    targets: torch.Tensor,
    temperature: torch.Tensor | float,
    ignore_index: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log q of the target [...], and what the gradient needs of each row [..., 2]."""
    rows = as_rows(logits)
    log_prob = torch.empty(targets.shape, dtype=wide_dtype(logits), device=logits.device)
    totals = torch.empty((*targets.shape, 2), dtype=torch.float64, device=logits.device)
    if rows.length == 0:
        return log_prob, totals
    meta = meta_of(logits)
    partials, has_partials = _partials(rows, targets, temperature, meta)
    with on_device(logits.device):
        log_prob_kernel[(rows.length,)](
            **logits_arguments(rows),
            partials_ptr=partials, targets_ptr=targets.contiguous(),
            **_temperature_arguments(temperature, logits), ignore_index=ignore_index,
            log_prob_ptr=log_prob, totals_ptr=totals,
            HAS_PARTIALS=has_partials, **meta,
        )  # fmt: skip
    return log_prob, totals


def target_log_prob_backward(
    upstream: torch.Tensor,
    logits: torch.Tensor,
    targets: torch.Tensor,
    totals: torch.Tensor,
    temperature: torch.Tensor | float,
    ignore_index: int,
) -> torch.Tensor:
    """Return the gradient of ``target_log_prob`` with respect to the logits [..., V]."""
    rows = as_rows(logits)
    gradient = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    if rows.length == 0:
        return gradient
    V, meta = logits.shape[-1], meta_of(logits)
    part = meta["LANES"] * meta["STEPS"]
    spans = triton.cdiv(V, part) if rows.length < FEW_ROWS else 1
    with on_device(logits.device):
        gradient_kernel[(rows.length, spans)](
            **logits_arguments(rows),
            targets_ptr=targets.contiguous(), upstream_ptr=upstream.contiguous(),
            totals_ptr=totals,
            **_temperature_arguments(temperature, logits), ignore_index=ignore_index,
            span=V if spans == 1 else part, gradient_ptr=gradient, **meta,
        )  # fmt: skip
    return gradient


def philox(counter: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return the Philox4x32-10 words, int64 [N, 4], of counters [N, 4] and keys [N, 2]."""
    words = torch.empty_like(counter)
    N = counter.shape[0]
    with on_device(counter.device):
        philox_kernel[(triton.cdiv(N, BLOCK),)](counter, key, words, N, BLOCK=BLOCK)
    return words


def sums_of(summary):
    """Return the counts and the excess of all programs."""
    sums = summary.sum(0)
    return sums[SUMMARY_COUNTS].long(), sums[SUMMARY_SUMS].clone()


def _decide_targets(logits, targets, law, has_outputs, is_lazy=False, order=None, totals=None):
    density, M, seed, row_offset, temperature, log_space, model_is_target, ignore_index = law
    rows = as_rows(logits)
    N, device = rows.length, logits.device
    mask = torch.empty(targets.shape, dtype=torch.bool, device=device)
    log_prob, log_ratio, summary = outputs_of(logits, targets.shape, N, has_outputs)
    if N == 0:
        return mask, log_prob, log_ratio, summary
    has_order = order is not None and logits.shape[-1] > ORDER_BLOCK
    meta = meta_of(logits)
    order = order if has_order else None
    partials, has_partials = _partials(rows, targets, temperature, meta, order)
    with on_device(device):
        target_kernel[(N,)](
            **logits_arguments(rows),
            partials_ptr=partials, order_ptr=targets if order is None else order,
            targets_ptr=targets.contiguous(),
            **row_arguments("density", row_scalar(density, targets.shape), log_space, logits),
            **row_arguments("M", row_scalar(M, targets.shape), log_space, logits),
            **seed_arguments(seed, logits), row_offset=row_offset,
            **_temperature_arguments(temperature, logits), ignore_index=ignore_index,
            mask_ptr=mask, log_prob_ptr=log_prob, log_ratio_ptr=log_ratio, summary_ptr=summary,
            totals_ptr=logits if totals is None else totals,
            HAS_ORDER=has_order, HAS_PARTIALS=has_partials,
            IS_LAZY=is_lazy and not has_partials,
            LOG_SPACE=log_space, MODEL_IS_TARGET=model_is_target, HAS_OUTPUTS=has_outputs,
            HAS_TOTALS=totals is not None, **meta,
        )  # fmt: skip
    return mask, log_prob, log_ratio, summary


def _decide_entries(logits, law, has_outputs):
    density, M, seed, row_offset, temperature, log_space, model_is_target, _ = law
    rows, (density, M) = entry_scalars(
        logits,
        *(v.expand(logits.shape) if isinstance(v, torch.Tensor) else v for v in (density, M)),
    )
    logits = rows.tensors[0]
    N, V, device = rows.length, logits.shape[-1], logits.device
    mask = torch.empty(logits.shape, dtype=torch.bool, device=device)
    meta = meta_of(logits, DENSE_LANES, DENSE_STEPS)
    part = meta["LANES"] * meta["STEPS"]
    spans = triton.cdiv(V, part) if N < FEW_ROWS else 1
    log_prob, log_ratio, summary = outputs_of(logits, logits.shape, N * spans, has_outputs)
    if N == 0:
        return mask, log_prob, log_ratio, summary
    partials, has_partials = _partials(rows, None, temperature, meta)
    with on_device(device):
        dense_kernel[(N, spans)](
            **logits_arguments(rows),
            partials_ptr=partials,
            **_entry_arguments("density", density, log_space, logits),
            **_entry_arguments("M", M, log_space, logits),
            **seed_arguments(seed, logits), row_offset=row_offset,
            **_temperature_arguments(temperature, logits),
            span=V if spans == 1 else part,
            mask_ptr=mask, log_prob_ptr=log_prob, log_ratio_ptr=log_ratio, summary_ptr=summary,
            HAS_PARTIALS=has_partials,
            LOG_SPACE=log_space, MODEL_IS_TARGET=model_is_target, HAS_OUTPUTS=has_outputs, **meta,
        )  # fmt: skip
    return mask, log_prob, log_ratio, summary


def _partials(rows, targets, temperature, meta, order=None):
    """Return the lanes of rows' parts where few long rows would leave the device idle."""
    logits = rows.tensors[0]
    parts = triton.cdiv(logits.shape[-1], meta["LANES"] * meta["STEPS"])
    if rows.length >= FEW_ROWS or parts == 1:
        return logits, False
    shape = (rows.length, parts, meta["LANES"])
    partials = torch.empty(shape, dtype=wide_dtype(logits), device=logits.device)
    with on_device(logits.device):
        partials_kernel[(rows.length * parts,)](
            **logits_arguments(rows),
            partials_ptr=partials, order_ptr=logits if order is None else order,
            targets_ptr=logits if targets is None else targets.contiguous(),
            **_temperature_arguments(temperature, logits),
            HAS_ORDER=order is not None, HAS_TARGETS=targets is not None, **meta,
        )  # fmt: skip
    return partials, True


def outputs_of(logits, shape, programs, has_outputs):
    """Return (log_prob, log_ratio, summary) to write, or the logits where they are not wanted."""
    if not has_outputs:
        # Never written; the kernel only needs some address.
        return logits, logits, logits
    log_prob = torch.empty(shape, dtype=wide_dtype(logits), device=logits.device)
    summary = torch.empty((programs, SUMMARY), dtype=torch.float64, device=logits.device)
    return log_prob, torch.empty_like(log_prob), summary


def meta_of(logits, most_lanes=LANES, most_steps=STEPS):
    """Return a row's partition, a function of V and dtype alone, and the launch's constants."""
    V, is_wide = logits.shape[-1], logits.dtype == torch.float64
    if is_wide:
        # A part of doubles as large as one of floats would not fit the registers.
        most_lanes, most_steps = min(most_lanes, LANES) // 2, max(1, most_steps // 2)
    lanes = min(most_lanes, max(16, triton.next_power_of_2(V)))
    return {
        "LANES": lanes,
        "STEPS": min(most_steps, triton.next_power_of_2(triton.cdiv(V, lanes))),
        "WIDE": wide_of(logits),
        # Eight logits a thread: sixteen bytes in bfloat16, the widest load there is.
        "num_warps": max(1, lanes // (8 * WARP)),
        # Fused, a product's rounding would depend on what else a kernel does with it.
        "enable_fp_fusion": False,
    }


def wide_of(values):
    """Return the dtype of results, and of what is computed."""
    return tl.float64 if values.dtype == torch.float64 else tl.float32


def logits_arguments(rows: RowLayout):
    """Return the kernels' arguments that describe logits: where rows and columns are."""
    logits = rows.tensors[0]
    return {
        "logits_ptr": logits,
        "inner": rows.inner,
        "outer_stride": rows.outer_strides[0],
        "inner_stride": rows.inner_strides[0],
        "stride": column_stride(logits),
        "V": logits.shape[-1],
    }


def row_arguments(name, scalar: Scalar, log_space, unused):
    """Return the kernels' arguments that describe a density or M of each row."""
    (step,) = scalar.strides
    return {f"{name}_stride": step, **_value_arguments(name, scalar, log_space, unused)}


def _temperature_arguments(temperature, logits):
    return temperature_arguments(temperature, logits.shape[:-1], logits)


def temperature_arguments(temperature, shape, unused):
    """Return the kernels' arguments that describe the temperature of each row."""
    tensor, (step,), number = row_scalar(temperature, shape)
    return {
        "temperature_ptr": unused if tensor is None else tensor,
        "temperature_stride": step,
        "temperature": number,
        "HAS_TEMPERATURE": tensor is not None,
    }


def _entry_arguments(name, scalar: Scalar, log_space, unused):
    """Return the kernels' arguments that describe a density or M of each entry."""
    steps = zip(("outer", "inner", "stride"), scalar.strides, strict=True)
    strides = {f"{name}_{which}": step for which, step in steps}
    return {**strides, **_value_arguments(name, scalar, log_space, unused)}


def _value_arguments(name, scalar, log_space, unused):
    is_number = scalar.tensor is None
    return {
        f"{name}_ptr": unused if is_number else scalar.tensor,
        f"log_{name}": _natural_log(scalar.number, log_space) if is_number else 0.0,
        f"HAS_{name.upper()}": not is_number,
    }


def seed_arguments(seed, unused):
    """Return the kernels' arguments that describe the seed."""
    if isinstance(seed, torch.Tensor):
        return {"seed_ptr": seed, "seed": 0, "HAS_SEED": True}
    return {"seed_ptr": unused, "seed": seed, "HAS_SEED": False}


def _natural_log(value, log_space):
    if log_space:
        return value
    return math.log(value) if value > 0 else -math.inf


def on_device(device):
    """Make a device current for a launch."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
