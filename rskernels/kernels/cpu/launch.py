"""The Numba backend: every operation of ``kernels.reference`` for CPU tensors.

The row loops live in ``softmax.py`` (one pass over the logits), ``turns.py`` (rows in turns, and
what is fetched ahead), ``decide.py``, ``dense.py`` and ``gradient.py``; this file lays tensors
out for them.
"""

from __future__ import annotations

import torch

from rskernels.kernels.cpu.decide import SUMMARY, bernoulli_rows, philox_rows, target_rows
from rskernels.kernels.cpu.dense import dense_rows, log_entries
from rskernels.kernels.cpu.gradient import gradient_rows, log_prob_rows
from rskernels.kernels.cpu.softmax import BF16, F16, F32, F64, I32, I64, NONE
from rskernels.kernels.cpu.threads import run_units
from rskernels.kernels.layout import as_rows, per_row, wide_dtype
from rskernels.law.decision import Law

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
ROW_WORK = 64  # a row's decision costs about as much as this many logits
SCALAR_WORK = 16  # where nothing is read but its ratio
ENTRY_WORK = 8  # logits that an entry's decision costs

Decision = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def decide(
    logits: torch.Tensor,
    targets: torch.Tensor | None,
    law: Law,
) -> Decision:
    """Decide every row, or every entry, and return (mask, log_prob, log_ratio, counts, excess)."""
    shape = logits.shape if targets is None else targets.shape
    log_prob = torch.empty(shape, dtype=wide_dtype(logits))
    log_ratio = torch.empty_like(log_prob)
    if targets is None:
        mask, summaries = _run_entries(logits, law, log_prob, log_ratio)
    else:
        mask, summaries = _run_targets(logits, targets, law, False, None, log_prob, log_ratio)
    summary = summaries.sum(0)
    return mask, log_prob, log_ratio, summary[:4].long(), summary[4:6].clone()


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
    return _run_targets(logits, targets, law, is_lazy, order)[0]


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
    mask = torch.empty(log_ratio.shape, dtype=torch.bool, device="cpu")
    M, *M_scalars = _row_scalars(M, log_ratio)
    N = values.numel()
    run_units(
        bernoulli_rows, -(-N // SCALAR_UNIT), N * SCALAR_WORK,
        (
            SCALAR_UNIT, N, values.data_ptr(), CODE[values.dtype], *M_scalars,
            *_seed(seed), row_offset, stream, log_space, mask.data_ptr(),
        ),
    )  # fmt: skip
    return mask


def target_log_prob(
    logits: torch.Tensor, targets: torch.Tensor, temperature: float, ignore_index: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log q of the target [...], and what the gradient needs of each row [..., 2]."""
    _rows, N, *layout = _layout(logits)  # held while the kernel reads it
    V = layout[-1]
    log_prob = torch.empty(logits.shape[:-1], dtype=wide_dtype(logits), device="cpu")
    totals = torch.empty((*logits.shape[:-1], 2), dtype=torch.float64, device="cpu")
    indices = targets.contiguous()
    unit_rows, units = _units(N, V)
    outside = run_units(
        log_prob_rows, units, N * (V + ROW_WORK),
        (
            unit_rows, N, *layout, indices.data_ptr(), CODE[indices.dtype],
            temperature, ignore_index,
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
    _rows, N, *layout = _layout(logits)  # held while the kernel reads it
    V = layout[-1]
    gradient = torch.empty(logits.shape, dtype=logits.dtype, device="cpu")
    indices = targets.contiguous()
    slopes = upstream.contiguous()
    unit_rows, units = _units(N, V)
    run_units(
        gradient_rows, units, N * (V + ROW_WORK),
        (
            unit_rows, N, *layout, indices.data_ptr(), CODE[indices.dtype],
            slopes.data_ptr(), totals.data_ptr(), temperature, ignore_index, gradient.data_ptr(),
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


def _run_targets(logits, targets, law, is_lazy, order, log_prob=None, log_ratio=None):
    density, M, seed, row_offset, temperature, log_space, model_is_target, ignore_index = law
    # Copies are named, so that they live until the kernel returns. What `_row_scalars`, `_seed` and
    # `_units` do for numbers is written out: on few rows a call of Python is felt.
    targets = targets.contiguous()
    mask = torch.empty_like(targets, dtype=torch.bool)
    logits, N, address, code, inner, outer_stride, inner_stride, stride, V = _layout(logits)
    density_address, density_code, density_step, density_value = 0, NONE, 0, density
    if isinstance(density, torch.Tensor):
        density, density_address, density_code, density_step, density_value = _row_scalars(
            density, targets
        )
    M_address, M_code, M_step, M_value = 0, NONE, 0, M
    if isinstance(M, torch.Tensor):
        M, M_address, M_code, M_step, M_value = _row_scalars(M, targets)
    seed_address, seed_value = 0, seed
    if isinstance(seed, torch.Tensor):
        seed_address, seed_value = seed.data_ptr(), 0
    unit_rows = UNIT_WORK // (V + ROW_WORK) or 1
    units = -(-N // unit_rows)
    summaries, outputs = None, (0, 0, 0)
    if log_prob is not None:
        summaries, outputs = _outputs(units, log_prob, log_ratio)
    arguments = (
        unit_rows, N, address, code, inner, outer_stride, inner_stride, stride, V,
        targets.data_ptr(), CODE[targets.dtype],
        density_address, density_code, density_step, density_value,
        M_address, M_code, M_step, M_value,
        seed_address, seed_value, row_offset, temperature, log_space, model_is_target, ignore_index,
        is_lazy, 0 if order is None else order.data_ptr(), mask.data_ptr(), *outputs,
    )  # fmt: skip
    if run_units(target_rows, units, N * (V + ROW_WORK), arguments):
        raise_outside(targets, V, ignore_index)
    return mask, summaries


def _run_entries(logits, law, log_prob=None, log_ratio=None):
    density, M, seed, row_offset, temperature, log_space, model_is_target, _ = law
    mask = torch.empty(logits.shape, dtype=torch.bool, device="cpu")
    density, M, log_space = _within_float32(density, M, log_space, logits)
    density, density_is_log = _shared_logs(density, logits, log_space)
    M, M_is_log = _shared_logs(M, logits, log_space)
    scalars, rows = _entry_scalars(logits, density, M)
    logits, N, *layout, V = _layout(logits, rows)
    unit_rows, units = _units(N, ENTRY_WORK * V)
    summaries, outputs = None, (0, 0, 0)
    if log_prob is not None:
        summaries, outputs = _outputs(units, log_prob, log_ratio)
    arguments = (
        unit_rows, N, *layout, V, *scalars,
        *_seed(seed), row_offset, temperature, density_is_log, M_is_log, model_is_target,
        mask.data_ptr(), *outputs,
    )  # fmt: skip
    run_units(dense_rows, units, ENTRY_WORK * N * (V + ROW_WORK), arguments)
    return mask, summaries


def _outputs(units, log_prob, log_ratio):
    summaries = torch.zeros((units, SUMMARY), dtype=torch.float64, device="cpu")
    return summaries, (log_prob.data_ptr(), log_ratio.data_ptr(), summaries.data_ptr())


def _units(N, V):
    unit_rows = max(1, UNIT_WORK // (V + ROW_WORK))
    return unit_rows, -(-N // unit_rows)


def _layout(logits, rows=None):
    """Return (tensor, N, address, code, inner, outer, inner and column stride, V).

    The tensor may be a copy: it is named by the caller, so that it lives until the kernel returns.
    """
    if rows is None and logits.dim() == 2:
        N, V = logits.shape
        step, stride = logits.stride()
        # A single column may have any stride.
        return (
            logits, N, logits.data_ptr(), CODE[logits.dtype], N or 1, 0, step,
            stride if V > 1 else 1, V,
        )  # fmt: skip
    rows = rows or as_rows(logits)
    logits = rows.tensors[0]
    V = logits.shape[-1]
    return (
        logits, rows.length, logits.data_ptr(), CODE[logits.dtype], rows.inner,
        rows.outer_strides[0], rows.inner_strides[0], logits.stride(-1) if V > 1 else 1, V,
    )  # fmt: skip


def _seed(seed):
    """Return a seed as (address, value); the address is 0 where the value is given."""
    return (seed.data_ptr(), 0) if isinstance(seed, torch.Tensor) else (0, seed)


def _row_scalars(value, rows):
    """Return a density or M with (address, code, step, value), for one element of ``rows`` each."""
    if not isinstance(value, torch.Tensor):
        return None, 0, NONE, 0, value
    code = CODE[value.dtype]
    if code != F32 and code != F64:
        value, code = value.float(), F32
    # What broadcasts and has as many elements has the shape, but for leading ones.
    if value.numel() == rows.numel() and value.is_contiguous():
        return value, value.data_ptr(), code, 1, 0.0
    value, step = per_row(value, rows.shape)
    return value, value.data_ptr(), code, step, 0.0


def _within_float32(density, M, log_space, logits):
    """Return (density, M, log_space), as logarithms where float32 might not hold a float64."""
    given = [v for v in (density, M) if isinstance(v, torch.Tensor)]
    if log_space or logits.dtype == torch.float64 or all(v.dtype != torch.float64 for v in given):
        return density, M, log_space
    density, M = (torch.as_tensor(v, dtype=torch.float64).log() for v in (density, M))
    return density, M, True


def _shared_logs(value, logits, log_space):
    """Return (densities or Ms, whether they are logarithms); those that all rows share become so.

    Each is then taken once, with the bits that the kernel would give it in every row.
    """
    V = logits.shape[-1]
    if log_space or not isinstance(value, torch.Tensor):
        return value, log_space
    if value.dim() == 0 or not value.numel() == value.shape[-1] == V < logits.numel():
        return value, False
    value = value.reshape(V).to(wide_dtype(logits)).contiguous()
    logs = torch.empty(V, dtype=value.dtype, device="cpu")
    log_entries(value.data_ptr(), CODE[value.dtype], V, logs.data_ptr())
    return logs, True


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
        strides = (rows.outer_strides[at], rows.inner_strides[at], tensor.stride(-1))
        scalars += [tensor.data_ptr(), CODE[tensor.dtype], *strides, 0.0]
    return scalars, rows
