"""Random rows to decide. NumPy draws them, so that a child of fork needs no thread of torch's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

# Both sides of a vector, a step, an order's block, the CPU's parts and the core's blocks.
WIDTHS = (1, 2, 10, 15, 16, 17, 63, 64, 65, 512, 513, 1023, 1024, 1025, 2048, 2049, 4096, 4097)
ROWS = (0, 1, 2, 3, 33, 245, 246, 247, 493)
DTYPES = ("float32", "float64", "bfloat16", "float16")
LAYOUTS = ("whole", "sliced", "stepped", "transposed")
USUAL, LARGE, COMPARED = 1 << 15, 1 << 20, 1 << 12  # entries
IGNORED = -100


class Rows(NamedTuple):
    """What is decided: logits ``[..., V]``, targets, and densities and M that broadcast."""

    logits: torch.Tensor
    targets: torch.Tensor | None
    density: torch.Tensor | float
    law: dict

    @property
    def is_compared(self):
        """Whether the float64 reference takes no time over them."""
        return 0 < self.logits.numel() <= COMPARED


def draw_rows(rng, dense=False):
    """Return rows of a random shape, dtype and layout; some of them hold what is invalid."""
    V = int(rng.choice(WIDTHS))
    most = (LARGE if rng.random() < 0.04 else USUAL) // V
    N = min(int(rng.choice(ROWS) if rng.random() < 0.7 else rng.integers(2 * 493)), most)
    if most > USUAL // V:
        N = most
    leading = {0: (N,), 1: (N // 3, 3), 2: (2, 1, N // 2)}[int(rng.integers(3))]
    dtype = str(rng.choice(DTYPES))
    values = 3.0 * rng.standard_normal((*leading, V), dtype=np.float32)
    if rng.random() < 0.3 and values.size > 0:
        places = rng.integers(values.size, size=3)
        values.reshape(-1)[places] = rng.choice([np.nan, np.inf, -np.inf], size=3)
    logits = as_tensor(values, dtype, str(rng.choice(LAYOUTS)))
    targets = None
    if not dense:
        targets = rng.integers(V, size=leading)
        targets[rng.random(leading) < 0.02] = IGNORED
        targets = torch.from_numpy(targets.astype(rng.choice(["int64", "int32"])))
    log_space = bool(rng.random() < 0.5)
    decisions = (*leading, V) if dense else leading
    density = draw_density(rng, decisions, 2.0 / V, log_space)
    M = draw_density(rng, decisions, 2.0, log_space, least=0.2)
    law = {
        "M": M,
        "seed": int(rng.integers(-(2**63), 2**63 - 1)),
        "row_offset": int(rng.integers(2**40)),
        "temperature": draw_temperature(rng, leading),
        "log_space": log_space,
    }
    return Rows(logits, targets, density, law)


def draw_density(rng, shape, scale, log_space, least=0.0):
    """Return a number, one number a row or one for each decision."""
    form = int(rng.integers(3))
    if form == 0:
        value = scale * float(least + rng.random())
        return float(np.log(value)) if log_space else value
    shape = shape if form == 1 else (*shape[:-1], 1)
    values = scale * (least + rng.random(shape))
    with np.errstate(divide="ignore"):
        values = np.log(values) if log_space else values
    return torch.from_numpy(values.astype(rng.choice(["float32", "float64"])))


def draw_temperature(rng, rows):
    """Return a number or one number a row, of which now and then one is none."""
    if rng.random() < 0.6:
        return float(rng.choice([0.5, 1.0, 2.0]))
    values = 0.3 + 2.0 * rng.random(rows)
    if rng.random() < 0.2 and values.size > 0:
        values.reshape(-1)[rng.integers(values.size)] = rng.choice([np.nan, 0.0, np.inf])
    return torch.from_numpy(values.astype(rng.choice(["float32", "float64"])))


def as_tensor(values, dtype, layout="whole"):
    """Return float32 values as a tensor of a dtype and layout, without a call of torch's."""
    if dtype == "bfloat16":
        # The upper half of a float32.
        cast = (values.view(np.uint32) >> 16).astype(np.int16)
        cast[np.isnan(values)] = 0x7FC0
    else:
        cast = values.astype(dtype)
    if layout in ("sliced", "stepped"):
        wide = np.full((*cast.shape[:-1], 2 * cast.shape[-1] + 3), 99, dtype=cast.dtype)
        step = 2 if layout == "stepped" else 1
        view = wide[..., 3::step][..., : cast.shape[-1]]
        view[...] = cast
        cast = view
    elif layout == "transposed":
        cast = np.ascontiguousarray(cast.swapaxes(0, -1)).swapaxes(0, -1)
    tensor = torch.from_numpy(cast)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor
