"""Densities and Ms of entries: addresses, strides and numbers of what broadcasts to the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from rskernels.kernels.cpu.dense.rows import log_entries
from rskernels.kernels.cpu.dtypes import BF16, F16, F32, F64, NONE
from rskernels.kernels.layout import Scalar, entry_scalars, wide_dtype

# By the dtype of logits: its code; the dtype of results, densities and Ms; and the code of that.
KINDS = {
    torch.float32: (F32, torch.float32, F32),
    torch.float64: (F64, torch.float64, F64),
    torch.bfloat16: (BF16, torch.float32, F32),
    torch.float16: (F16, torch.float32, F32),
}


def plain_values(density, V, wide, wide_code):
    """Return ``_entry_numbers`` of a density that is a float or a tensor [V] or [N, V].

    Returns None of a tensor that a kernel cannot read as it is.
    """
    if type(density) is float:
        return (0, NONE, 0, 0, 0, density)
    if density.dtype is not wide or not density.is_contiguous():
        return None
    if density.dim() == 2:
        return (density.data_ptr(), wide_code, 0, V, 1, 0.0)
    return (density.data_ptr(), wide_code, 0, 0, 1, 0.0)


def entry_values(logits, density, M, log_space, is_mask_only):
    """Return (layout of the logits, density and M as scalars, their numbers, which are logarithms).

    Scalars may be copies: the caller must hold them until the kernel returns. The numbers of each
    are (address, code, outer, inner and column stride, number).
    """
    density, M, log_space = _within_float32(density, M, log_space, logits)
    density_is_log = log_space
    if not is_mask_only or has_entries(M):
        # A mask of one M takes densities as they are.
        density, density_is_log = _shared_logs(density, logits, log_space)
    M, M_is_log = _shared_logs(M, logits, log_space)
    density, M = _entries(density, logits), _entries(M, logits)
    layout, scalars = entry_scalars(logits, density, M)
    return layout, scalars, tuple(map(_entry_numbers, scalars)), (density_is_log, M_is_log)


def has_entries(value):
    """Say whether a density or M is not the same for all columns."""
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape[-1] > 1


def _entry_numbers(scalar: Scalar):
    """Return (address, code, outer, inner and column stride, number) of a density or M."""
    tensor, strides, number = scalar
    if tensor is None:
        return (0, NONE, *strides, float(number))
    return (tensor.data_ptr(), KINDS[tensor.dtype][0], *strides, 0.0)


def _entries(value, logits):
    """Return a density or M in the shape of the logits and the dtype of the results."""
    if not isinstance(value, Tensor):
        return value
    value = value.to(wide_dtype(logits)).expand(logits.shape)
    # The columns lie side by side or are all the same; else they are copied.
    return value if value.stride(-1) in (0, 1) else value.contiguous()


def _within_float32(density, M, log_space, logits):
    """Return (density, M, log_space), as logarithms where float32 might not hold a float64."""
    if log_space or logits.dtype == torch.float64:
        return density, M, log_space
    dtypes = getattr(density, "dtype", None), getattr(M, "dtype", None)
    if torch.float64 not in dtypes:
        return density, M, log_space
    density, M = (torch.as_tensor(v, dtype=torch.float64).log() for v in (density, M))
    return density, M, True


def _shared_logs(value, logits, log_space):
    """Return (densities or Ms, whether they are logarithms).

    Where all rows share them, their logarithms are taken here once, to the same bits as the kernel
    would in every row.
    """
    V = logits.shape[-1]
    if log_space or not isinstance(value, Tensor):
        return value, log_space
    if value.dim() == 0 or not value.numel() == value.shape[-1] == V < logits.numel():
        return value, False
    value = value.reshape(V).to(wide_dtype(logits)).contiguous()
    logs = torch.empty(V, dtype=value.dtype, device="cpu")
    log_entries(value.data_ptr(), KINDS[value.dtype][0], V, logs.data_ptr())
    return logs, True
