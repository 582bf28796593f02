"""Rows to decide."""

import functools

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
