"""Digests of results, which are equal where all bits are; any NaN is as good as another."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def digest_of(result) -> bytes:
    """Return the digest of tensors, numbers, texts, bytes, and tuples and dicts of them."""
    state = hashlib.blake2b(digest_size=16)
    _add(state, result)
    return state.digest()


def _add(state, value):
    if isinstance(value, torch.Tensor):
        array = _as_array(value.detach())
        state.update(f"{value.dtype}{array.shape}".encode())
        state.update(np.ascontiguousarray(array))
    elif isinstance(value, dict):
        for name in sorted(value):
            _add(state, (name, value[name]))
    elif isinstance(value, list | tuple):
        state.update(f"({len(value)}".encode())
        for part in value:
            _add(state, part)
    else:
        state.update(value if isinstance(value, bytes) else repr(value).encode())


def _as_array(tensor):
    if tensor.dtype == torch.bfloat16:
        wide = tensor.contiguous().view(torch.int16).numpy().astype(np.uint32) << 16
        array = wide.view(np.float32)
    else:
        array = tensor.numpy()
    if array.dtype.kind == "f" and np.isnan(array).any():
        array = np.where(np.isnan(array), np.float32(np.nan).astype(array.dtype), array)
    return array
