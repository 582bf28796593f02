"""The practical read limit: how fast this machine takes the row maximum of the same array.

A maximum reads every logit once and computes next to nothing. Of torch's ``amax`` and a Numba
kernel with the vectors, prefetching and threads of rskernels, the faster is the limit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numba import carray, float32, njit
from torch import Tensor

from rskernels.kernels.cpu.dtypes import as_f32
from rskernels.kernels.cpu.parts import STEP, asker
from rskernels.kernels.cpu.simd.memory import loader, part_loader
from rskernels.kernels.cpu.simd.vectors import first_lanes, maximum, named, reduce_max, splat
from rskernels.kernels.cpu.threads import next_share, run_units


def _row_max_of(dtype: str, size: int) -> Callable[..., None]:
    load, load_part, ask_ahead = loader(dtype), part_loader(dtype), asker(size)

    @njit(nogil=True)
    @named(f"row_max_{dtype}")
    def row_max(share, arguments):
        counter, grab, units, _, _ = share
        logits, V, tops = arguments
        top = carray(as_f32(tops), units)
        whole = V - V % STEP
        begin = next_share(counter, -grab, grab)
        while begin < units:
            for n in range(begin, min(units, begin + grab)):
                row = logits + n * V * size
                m0 = splat(float32(-np.inf))
                m1, m2, m3 = m0, m0, m0
                for i in range(0, whole, STEP):
                    at = row + i * size
                    ask_ahead(at)
                    m0 = maximum(load(at), m0)
                    m1 = maximum(load(at + 16 * size), m1)
                    m2 = maximum(load(at + 32 * size), m2)
                    m3 = maximum(load(at + 48 * size), m3)
                for i in range(whole, V, 16):
                    m0 = maximum(load_part(row + i * size, first_lanes(V - i)), m0)
                top[n] = reduce_max(maximum(maximum(m0, m1), maximum(m2, m3)))
            begin = next_share(counter, begin, grab)
        return 0

    return row_max


_ROW_MAX = {
    torch.float32: _row_max_of("f32", 4),
    torch.bfloat16: _row_max_of("bf16", 2),
}


def row_max(logits: Tensor) -> Tensor:
    """Return the maximum of each row of contiguous logits ``[N, V]``, float32 ``[N]``."""
    N, V = logits.shape
    tops = torch.empty(N, dtype=torch.float32)
    arguments = (logits.data_ptr(), V, tops.data_ptr())
    run_units(_ROW_MAX[logits.dtype], (N, 1, N), N * V, *arguments)
    return tops


def torch_amax(logits: Tensor) -> Tensor:
    """Return the same by torch."""
    return logits.amax(-1)


READERS = {"row_max": row_max, "amax": torch_amax}
