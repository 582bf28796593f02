"""The Numba backend: every operation of ``kernels.reference`` for CPU tensors.

The row loops live in ``softmax.py`` (one pass over the logits), ``early_exit.py`` (when it may
end), ``turns.py`` (rows in turns, and what is fetched ahead), ``decide.py``, ``dense`` and
``gradient.py``; this file lays tensors out for them, as a plain tuple of tuples: it costs a call
0.1 microseconds more than its 35 numbers would, and named ones 4 more.
"""

from __future__ import annotations

import torch

from rskernels.kernels.cpu.bernoulli import philox_rows
from rskernels.kernels.cpu.decide import lazy_mask_rows, mask_rows, outcome_rows
from rskernels.kernels.cpu.dense import KINDS, dense_rows, entry_values, plain_values
from rskernels.kernels.cpu.dtypes import BF16, F16, F32, F64, I32, I64, NONE
from rskernels.kernels.cpu.gradient import gradient_rows, log_prob_rows
from rskernels.kernels.cpu.threads import run_units
from rskernels.kernels.layout import (
    RowLayout,
    as_rows,
    column_stride,
    row_scalar,
    wide_dtype,
)
from rskernels.law.decision import Decided, DecidedWithTotals, Law
from rskernels.law.numbers import SUMMARY, SUMMARY_COUNTS, SUMMARY_SUMS

CODE = {
    torch.float32: F32,
    torch.float64: F64,
    torch.bfloat16: BF16,
    torch.float16: F16,
    torch.int64: I64,
    torch.int32: I32,
}
NO_MASK = torch.empty(0, dtype=torch.bool, device="cpu")  # a mask is made of it in half the time
UNIT_WORK = 1 << 16  # logits; a unit is the grain of threads and of the sums
SCALAR_UNIT = 1024  # rows a unit where a row is a single number
ROW_WORK = 64  # a row's decision costs about as much as this many logits
ENTRY_WORK = 8  # logits that an entry's decision costs


def decide(
    logits: torch.Tensor,
    targets: torch.Tensor | None,
    law: Law,
) -> Decided:
    """Decide every row, or every entry, and return (mask, log_prob, log_ratio, counts, excess)."""
    if targets is not None:
        return _decide_targets(logits, targets, law)
    log_prob = torch.empty(logits.shape, dtype=wide_dtype(logits))
    log_ratio = torch.empty_like(log_prob)
    mask, summaries = _run_entries(logits, law, log_prob, log_ratio)
    return mask, log_prob, log_ratio, *sums_of(summaries)


def decide_with_totals(logits: torch.Tensor, targets: torch.Tensor, law: Law) -> DecidedWithTotals:
    """Decide every row, and return as well what the gradient of log_prob needs of it [..., 2]."""
    totals = torch.empty((*targets.shape, 2), dtype=torch.float64, device="cpu")
    mask, log_prob, *others = _decide_targets(logits, targets, law, totals)
    return log_prob, totals, mask, *others


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
        return _run_entries(logits, law)[0]
    kernels = lazy_mask_rows if is_lazy else mask_rows
    return _run_targets(kernels, logits, targets, law, 0 if order is None else order.data_ptr())[0]


def target_log_prob(
    logits: torch.Tensor,
    targets: torch.Tensor,
    temperature: torch.Tensor | float,
    ignore_index: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log q of the target [...], and what the gradient needs of each row [..., 2]."""
    logits, N, V, logits_numbers = _rows_of(logits)
    log_prob = torch.empty(logits.shape[:-1], dtype=wide_dtype(logits), device="cpu")
    totals = torch.empty((*logits.shape[:-1], 2), dtype=torch.float64, device="cpu")
    targets = targets.contiguous()
    temperature_numbers = (0, NONE, 0, temperature)
    if type(temperature) is not float:
        temperature, temperature_numbers = row_numbers(temperature, targets)
    units, unit_rows = _units(N, V)
    outside = run_units(
        log_prob_rows[logits_numbers[1]],
        (units, unit_rows, N),
        N * (V + ROW_WORK),
        logits_numbers,
        (targets.data_ptr(), CODE[targets.dtype]),
        (temperature_numbers, ignore_index),
        (log_prob.data_ptr(), totals.data_ptr()),
    )
    if outside:
        raise_outside(targets, V, ignore_index)
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
    logits, N, V, logits_numbers = _rows_of(logits)
    gradient = torch.empty(logits.shape, dtype=logits.dtype, device="cpu")
    targets, upstream = targets.contiguous(), upstream.contiguous()
    temperature, temperature_numbers = row_numbers(temperature, targets)
    units, unit_rows = _units(N, V)
    run_units(
        gradient_rows[logits_numbers[1]],
        (units, unit_rows, N),
        N * (V + ROW_WORK),
        logits_numbers,
        (targets.data_ptr(), CODE[targets.dtype]),
        (upstream.data_ptr(), totals.data_ptr()),
        (temperature_numbers, ignore_index),
        gradient.data_ptr(),
    )
    return gradient


def philox(counter: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return the Philox4x32-10 words, int64 [N, 4], of counters [N, 4] and keys [N, 2]."""
    words = torch.empty_like(counter)
    N = counter.shape[0]
    rows = (-(-N // SCALAR_UNIT), SCALAR_UNIT, N)
    run_units(philox_rows, rows, N, counter.data_ptr(), key.data_ptr(), words.data_ptr())
    return words


def raise_outside(targets: torch.Tensor, V: int, ignore_index: int) -> None:
    """Raise the IndexError of the first target outside ``[0, V)``."""
    outside = ((targets < 0) | (targets >= V)) & (targets != ignore_index)
    row = int(outside.flatten().nonzero()[0])
    raise IndexError(
        f"targets must be in [0, {V}) or equal to ignore_index ({ignore_index}), "
        f"got {targets.flatten()[row].item()} in row {row}"
    )


def sums_of(summaries):
    """Return the counts and the excess of all units."""
    summary = summaries.sum(0)
    return summary[SUMMARY_COUNTS].long(), summary[SUMMARY_SUMS].clone()


def _decide_targets(logits, targets, law, totals=None):
    log_prob = torch.empty(targets.shape, dtype=wide_dtype(logits))
    log_ratio = torch.empty_like(log_prob)
    written = (log_prob, log_ratio, totals)
    mask, summaries = _run_targets(outcome_rows, logits, targets, law, written=written)
    return mask, log_prob, log_ratio, *sums_of(summaries)


def _run_targets(kernels, logits, targets, law, order=0, *, written=None):
    density, M, seed, row_offset, temperature, log_space, model_is_target, ignore_index = law
    targets = targets.contiguous()
    mask = torch.empty_like(targets, dtype=torch.bool)
    # Copies are named, so that they live until the kernel returns.
    logits, N, V, logits_numbers = _rows_of(logits)
    density, density_numbers = row_numbers(density, targets)
    M, M_numbers = row_numbers(M, targets)
    temperature_numbers = (0, NONE, 0, temperature)
    if type(temperature) is not float:
        temperature, temperature_numbers = row_numbers(temperature, targets)
    unit_rows = UNIT_WORK // (V + ROW_WORK) or 1
    units = -(-N // unit_rows)
    summaries, outputs = None, (mask.data_ptr(), 0, 0, 0, 0)
    if written is not None:
        log_prob, log_ratio, totals = written
        summaries, outputs = outputs_of(units, mask, log_prob, log_ratio)
        outputs = (*outputs, 0 if totals is None else totals.data_ptr())
    outside = run_units(
        kernels[logits_numbers[1]],
        (units, unit_rows, N),
        N * (V + ROW_WORK),
        logits_numbers,
        (targets.data_ptr(), CODE[targets.dtype]),
        density_numbers,
        M_numbers,
        draw_numbers(seed, row_offset),
        (temperature_numbers, log_space, model_is_target, ignore_index),
        order,
        outputs,
    )
    if outside:
        raise_outside(targets, V, ignore_index)
    return mask, summaries


def _run_entries(logits, law, log_prob=None, log_ratio=None):
    density, M, seed, row_offset, temperature, log_space, model_is_target, _ = law
    temperature_numbers = (0, NONE, 0, temperature)
    if type(temperature) is not float:
        rows = logits.shape[:-1]
        if isinstance(temperature, torch.Tensor):
            temperature = temperature.expand(rows).contiguous()
        temperature, temperature_numbers = row_numbers(temperature, temperature)
    mask = torch.empty(logits.shape, dtype=torch.bool, device="cpu")
    # Copies are named, so that they live until the kernel returns.
    layout, _named, values, is_log = entry_values(logits, density, M, log_space, log_prob is None)
    logits, N, V, logits_numbers = _rows_of(logits, layout)
    summaries, outputs = None, (mask.data_ptr(), 0, 0, 0)
    if log_prob is not None:
        units, _ = _entry_units(N, V)
        summaries, outputs = outputs_of(units, mask, log_prob, log_ratio)
    draw, of_law = draw_numbers(seed, row_offset), (temperature_numbers, *is_log, model_is_target)
    _decide_entries(N, logits_numbers, values, draw, of_law, outputs)
    return mask, summaries


def plain_mask(logits, shape, density, law):
    """Return the mask of logits [N, V] and a density that is a float or a tensor [V] or [N, V].

    ``law`` has the fields of ``Law`` after the density, all of them numbers: as ``mask`` of the
    same, but felt less where entries are few.
    """
    M, seed, row_offset, temperature, log_space, model_is_target, _ = law
    N, V = shape
    code, wide, wide_code = KINDS[logits.dtype]
    values = plain_values(density, V, wide, wide_code)
    if values is None:
        return mask(logits, None, Law(density, *law))
    step, stride = logits.stride()
    made = NO_MASK.new_empty(N, V)
    _decide_entries(
        N,
        (logits.data_ptr(), code, N or 1, 0, step, stride if V > 1 else 1, V),
        (values, (0, NONE, 0, 0, 0, M)),
        (0, seed, row_offset),
        ((0, NONE, 0, temperature), log_space, log_space, model_is_target),
        (made.data_ptr(), 0, 0, 0),
    )
    return made


def _decide_entries(N, logits, values, draw, law, outputs):
    V = logits[6]
    failed = run_units(
        dense_rows[logits[1]],
        (*_entry_units(N, V), N),
        ENTRY_WORK * N * (V + ROW_WORK),
        logits,
        *values,
        draw,
        law,
        outputs,
    )
    if failed:
        raise MemoryError(f"no memory for {4 * V} bytes a thread, a row's weights")


def _entry_units(N, V):
    unit_rows = UNIT_WORK // (ENTRY_WORK * V + ROW_WORK) or 1
    return -(-N // unit_rows), unit_rows


def _units(N, V):
    """Return how many units rows make up, and the rows of one."""
    unit_rows = UNIT_WORK // (V + ROW_WORK) or 1
    return -(-N // unit_rows), unit_rows


def outputs_of(units, mask, log_prob, log_ratio):
    """Return the units' summaries, and the addresses of all that is written."""
    summaries = torch.zeros((units, SUMMARY), dtype=torch.float64, device="cpu")
    places = (mask.data_ptr(), log_prob.data_ptr(), log_ratio.data_ptr(), summaries.data_ptr())
    return summaries, places


def _rows_of(logits, layout: RowLayout | None = None):
    """Return (what is addressed, N, V, the logits' numbers), where a layout is not yet known.

    The numbers are (address, code, inner, outer and inner stride, column stride, V). What is
    addressed may be a copy: the caller names it, so that it lives until the kernel returns.
    """
    if layout is None and logits.dim() == 2:
        # What the general way gives as well, but on few rows it is felt.
        N, V = logits.shape
        step, stride = logits.stride()
        place = (logits.data_ptr(), CODE[logits.dtype], N or 1, 0, step, stride if V > 1 else 1, V)
        return logits, N, V, place
    tensors, N, inner, outer_strides, inner_strides = layout or as_rows(logits)
    logits = tensors[0]
    address, code, V = logits.data_ptr(), CODE[logits.dtype], logits.shape[-1]
    steps = (outer_strides[0], inner_strides[0], column_stride(logits))
    return logits, N, V, (address, code, inner, *steps, V)


def draw_numbers(seed, row_offset):
    """Return (address of the seed, seed, row offset); the address is 0 where the seed is given."""
    return (
        (seed.data_ptr(), 0, row_offset)
        if isinstance(seed, torch.Tensor)
        else (0, seed, row_offset)
    )


def row_numbers(value, rows):
    """Return what is addressed of rows' densities, Ms or temperatures, and their numbers.

    The numbers are (address, code, step, number).
    """
    if type(value) is float or not isinstance(value, torch.Tensor):
        return value, (0, NONE, 0, float(value))
    code = CODE[value.dtype]
    if code != F32 and code != F64:
        value, code = value.float(), F32
    step = 1
    if value.numel() != rows.numel() or not value.is_contiguous():
        value, (step,), _ = row_scalar(value, rows.shape)
    return value, (value.data_ptr(), code, step, 1.0)
