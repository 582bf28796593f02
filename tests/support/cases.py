"""Rows to decide, and in other layouts."""

import functools
from types import SimpleNamespace

import torch

from rskernels.kernels import reference


def draw_case(shape, dtype=torch.float32, *, seed=0, spread=3.0, dense=False, temperature=1.0):
    """Return logits [*shape], targets and log densities whose log ratios are of unit spread."""
    generator = torch.Generator().manual_seed(seed)
    draw = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    logits = (spread * draw(shape)).to(dtype)
    targets = None
    log_prob = reference.log_softmax(logits, temperature)[0]
    if not dense:
        targets = torch.randint(shape[-1], shape[:-1], generator=generator)
        log_prob = log_prob.gather(-1, targets[..., None])[..., 0]
    return logits, targets, log_prob + draw(log_prob.shape)


def layouts(values):
    """Return the same values in other layouts, by name."""
    wide = torch.full((*values.shape[:-1], 2 * values.shape[-1] + 3), 1e30).to(values.dtype)
    sliced = wide[..., 1 : 1 + values.shape[-1]]
    stepped = wide.clone()[..., 3::2]
    swapped = values.transpose(0, -1).contiguous().transpose(0, -1)
    for view in (sliced, stepped):
        view.copy_(values)
    return SimpleNamespace(sliced=sliced, stepped=stepped, transposed=swapped)
