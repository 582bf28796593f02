"""The Numba backend: every operation of ``reference.py`` for CPU tensors.

The row loops live in ``cpu_softmax.py`` (one pass over the logits), ``cpu_decide.py``,
``cpu_dense.py`` and ``cpu_gradient.py``; this file lays tensors out for them.
"""

from __future__ import annotations

import torch

from rskernels.kernels.cpu_decide import SUMMARY, bernoulli_rows, philox_rows, target_rows
from rskernels.kernels.cpu_dense import dense_rows
from rskernels.kernels.cpu_gradient import gradient_rows, log_prob_rows
from rskernels.kernels.cpu_softmax import BF16, F16, F32, F64, I32, I64, NONE
from rskernels.kernels.layout import as_rows, per_row, wide_dtype
from rskernels.kernels.threads import run_units

CODE = {
    torch.float32: F32,
    torch.float64: F64,
    torch.bfloat16: BF16,
    torch.float16: F16,
    torch.int64: I64,
    torch.int32: I32,
}
UNIT_WORK = 1 << 16  # logits; a unit is the grain of threads and of the sums
SCALAR_UNIT = 1024  # rows a unit where a row is a single number
ROW_WORK = 256  # a row's decision costs about as much as this many logits

Decision = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def decide(
    logits: torch.Tensor,
    targets: torch.Tensor | None,
    density: torch.Tensor | float,
    M: torch.Tensor | float,
    seed: torch.Tensor | int,
    row_offset: int,
    temperature: float,
    log_space: bool,
    model_is_target: bool,
    ignore_index: int,
) -> Decision:
    """Decide every row, or every entry, and return (mask, log_prob, log_ratio, counts, excess)."""
    shape = logits.shape if targets is None else logits.shape[:-1]
    dtype = wide_dtype(logits)
    log_prob = torch.empty(shape, dtype=dtype)
    log_ratio = torch.empty(shape, dtype=dtype)
    mask, summary = _run(
        logits, targets, density, M, seed, row_offset, temperature, log_space,
        model_is_target, ignore_index, log_prob, log_ratio,
    )  # fmt: skip
    return mask, log_prob, log_ratio, summary[:4].long(), summary[4:6]


def mask(
    logits: torch.Tensor,
    targets: torch.Tensor | None,
    density: torch.Tensor | float,
    M: torch.Tensor | float,
    seed: torch.Tensor | int,
    row_offset: int,
    temperature: float,
    log_space: bool,
    model_is_target: bool,
    ignore_index: int,
) -> torch.Tensor:
    """Decide every row, or every entry, and return only the mask."""
    return _run(
        logits, targets, density, M, seed, row_offset, temperature, log_space,
        model_is_target, ignore_index, None, None,
    )[0]  # fmt: skip


def bernoulli(
    log_ratio: torch.Tensor,
    M: torch.Tensor | float,
    seed: torch.Tensor | int,
    row_offset: int,
    stream: int,
    log_space: bool,
) -> torch.Tensor:
    """Accept element n of ``log_ratio`` where log r - log M >= log u of row n; bool [...]."""
    values = log_ratio.to(wide_dtype(log_ratio)).contiguous()
    mask = torch.empty(log_ratio.shape, dtype=torch.bool)
    M, *M_scalars = _row_scalars(M, log_ratio.shape)
    N = values.numel()
    run_units(
        bernoulli_rows, -(-N // SCALAR_UNIT), N * ROW_WORK,
        (
            SCALAR_UNIT, N, values.data_ptr(), CODE[values.dtype], *M_scalars,
            int(seed), row_offset, stream, log_space, mask.data_ptr(),
        ),
    )  # fmt: skip
    return mask


def target_log_prob(
    logits: torch.Tensor, targets: torch.Tensor, temperature: float, ignore_index: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log q of the target [...], and what the gradient needs of each row [..., 2]."""
    rows = as_rows(logits)
    V = logits.shape[-1]
    log_prob = torch.empty(logits.shape[:-1], dtype=wide_dtype(logits))
    totals = torch.empty((*logits.shape[:-1], 2), dtype=torch.float64)
    indices = targets.contiguous()
    unit_rows, units = _units(rows.count, V)
    outside = run_units(
        log_prob_rows, units, rows.count * (V + ROW_WORK),
        (
            unit_rows, rows.count, *_logits_arguments(rows, V),
            indices.data_ptr(), CODE[indices.dtype], temperature, ignore_index,
            log_prob.data_ptr(), totals.data_ptr(),
        ),
    )  # fmt: skip
    if outside:
        raise_outside(targets, V, ignore_index)
    return log_prob, totals


def target_log_prob_backward(
    upstream: torch.Tensor,
    logits: torch.Tensor,
    targets: torch.Tensor,
    totals: torch.Tensor,
    temperature: float,
    ignore_index: int,
) -> torch.Tensor:
    """Return the gradient of ``target_log_prob`` with respect to the logits [..., V]."""
    rows = as_rows(logits)
    V = logits.shape[-1]
    gradient = torch.empty(logits.shape, dtype=logits.dtype)
    indices = targets.contiguous()
    slopes = upstream.contiguous()
    unit_rows, units = _units(rows.count, V)
    run_units(
        gradient_rows, units, rows.count * (V + ROW_WORK),
        (
            unit_rows, rows.count, *_logits_arguments(rows, V),
            indices.data_ptr(), CODE[indices.dtype], slopes.data_ptr(), totals.data_ptr(),
            temperature, ignore_index, gradient.data_ptr(),
        ),
    )  # fmt: skip
    return gradient


def philox(counter: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return the Philox4x32-10 words, int64 [N, 4], of counters [N, 4] and keys [N, 2]."""
    words = torch.empty_like(counter)
    N = counter.shape[0]
    run_units(
        philox_rows, -(-N // SCALAR_UNIT), N,
        (SCALAR_UNIT, N, counter.data_ptr(), key.data_ptr(), words.data_ptr()),
    )  # fmt: skip
    return words


def raise_outside(targets: torch.Tensor, V: int, ignore_index: int) -> None:
    """Raise the IndexError of the first target outside ``[0, V)``."""
    outside = ((targets < 0) | (targets >= V)) & (targets != ignore_index)
    value = targets[outside].flatten()[0].item()
    raise IndexError(
        f"targets must be in [0, {V}) or equal to ignore_index ({ignore_index}), got {value}"
    )


def _run(
    logits, targets, density, M, seed, row_offset, temperature, log_space,
    model_is_target, ignore_index, log_prob, log_ratio,
):  # fmt: skip
    if targets is None:
        scalars, rows = _entry_scalars(logits, density, M)
        mask = torch.empty(logits.shape, dtype=torch.bool)
    else:
        rows = as_rows(logits)
        mask = torch.empty(targets.shape, dtype=torch.bool)
        # Named, so that they live until the kernel returns.
        density, *density_scalars = _row_scalars(density, mask.shape)
        M, *M_scalars = _row_scalars(M, mask.shape)
        targets = targets.contiguous()
        scalars = (targets.data_ptr(), CODE[targets.dtype], *density_scalars, *M_scalars)
    V = logits.shape[-1]
    unit_rows, units = _units(rows.count, V)
    work = rows.count * (V + ROW_WORK)
    outputs = (mask.data_ptr(), 0, 0, 0)
    summaries = None
    if log_prob is not None:
        summaries = torch.zeros((units, SUMMARY), dtype=torch.float64)
        outputs = tuple(t.data_ptr() for t in (mask, log_prob, log_ratio, summaries))
    arguments = (
        unit_rows, rows.count, *_logits_arguments(rows, V), *scalars,
        int(seed), row_offset, temperature, log_space, model_is_target,
    )  # fmt: skip
    if targets is None:
        run_units(dense_rows, units, 8 * work, (*arguments, *outputs))
    elif run_units(target_rows, units, work, (*arguments, ignore_index, *outputs)):
        raise_outside(targets, V, ignore_index)
    return mask, None if summaries is None else summaries.sum(0)


def _units(N: int, V: int) -> tuple[int, int]:
    unit_rows = max(1, UNIT_WORK // (V + ROW_WORK))
    return unit_rows, -(-N // unit_rows)


def _logits_arguments(rows, V):
    logits = rows.tensors[0]
    size = logits.element_size()
    stride = logits.stride(-1) * size if V > 1 else size
    return (
        logits.data_ptr(), CODE[logits.dtype], rows.inner,
        rows.outer_strides[0] * size, rows.inner_strides[0] * size, stride, V,
    )  # fmt: skip


def _row_scalars(value, shape):
    """Return a density or M with (address, code, step, value) for the rows."""
    if not isinstance(value, torch.Tensor):
        return None, 0, NONE, 0, value
    if value.dtype not in (torch.float32, torch.float64):
        value = value.float()
    value, step = per_row(value, shape)
    return value, value.data_ptr(), CODE[value.dtype], step * value.element_size(), 0.0


def _entry_scalars(logits, density, M):
    """Return (address, code, strides, value) of density and M for the entries, and the rows."""
    tensors = [logits]
    for value in (density, M):
        if isinstance(value, torch.Tensor):
            value = value.to(wide_dtype(logits)).expand(logits.shape)
            # The columns lie side by side or are all the same; else they are copied.
            tensors.append(value if value.stride(-1) in (0, 1) else value.contiguous())
    rows = as_rows(*tensors)
    scalars, at = [], 0
    for value in (density, M):
        if not isinstance(value, torch.Tensor):
            scalars += [0, NONE, 0, 0, 0, value]
            continue
        at += 1
        tensor = rows.tensors[at]
        size = tensor.element_size()
        strides = (rows.outer_strides[at], rows.inner_strides[at], tensor.stride(-1))
        scalars += [tensor.data_ptr(), CODE[tensor.dtype], *(s * size for s in strides), 0.0]
    return scalars, rows
