"""Exact draws of parameters, each alone, by rejection from the posterior. No gradients.

Each θ is accepted by rejection from ∝ e^(−L(θ)/τ)·prior, with a bounded M. `metropolis` walks
instead, where that accepts next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from rskernels.rsft.data.samples import Samples
from rskernels.sampling import RejectionResult, rejection_sample
from rskernels.sampling.bound import ProvedLogM

Loss = Callable[[Tensor], Tensor]


def batched_loss(model: nn.Module, samples: Samples, *, chunk: int | None = None) -> Loss:
    """Return the mean cross-entropy as a function of many models' parameters at once.

    Parameters
    ----------
    model : Module
        Inputs to logits ``[N, C]``; its buffers are used, its parameters are not.
    samples : Samples
        What the loss is the mean over.
    chunk : int, optional
        Models that are evaluated together.

    Returns
    -------
    callable
        ``[n, d]`` to ``[n]``, d the number of parameters in the order of ``model.parameters()``.
    """
    shapes = {name: p.shape for name, p in model.named_parameters()}
    sizes = [shape.numel() for shape in shapes.values()]

    def loss(theta: Tensor) -> Tensor:  # [d]
        parts = theta.split(sizes)
        named = {k: part.view(s) for (k, s), part in zip(shapes.items(), parts, strict=True)}
        return F.cross_entropy(functional_call(model, named, (samples.inputs,)), samples.labels)

    batched: Loss = vmap(loss, chunk_size=chunk)
    return batched


def independent(
    loss: Loss,
    num_samples: int,
    *,
    centre: Tensor,
    prior: float,
    sigma: float | None = None,
    tau: float = 1.0,
    least: float = 0.0,
    seed: int = 0,
    **options: Any,
) -> RejectionResult:
    """Draw parameters of the posterior ∝ exp(−L(θ)/τ)·N(θ; c, s²I), exact and independent.

    Proposals are θ = c + Δ with Δ ~ N(0, σ²I). With σ ≥ s the ratio of posterior to proposal is at
    most M = (σ/s)^d·exp(−least/τ) wherever L ≥ least, and best is σ = s.

    Parameters
    ----------
    loss : callable
        ``[n, d]`` to L, floating ``[n]``.
    num_samples : int
        How many to accept.
    centre : Tensor
        Floating ``[d]``, c.
    prior, sigma : float
        s and σ; None is σ = s.
    tau : float
        Temperature.
    least : float
        What L is never below: 0 for a cross-entropy. A larger one is a larger acceptance; a loss
        below it is an error.
    seed : int
        In [0, 2**62). Decides proposals and acceptances.
    **options
        Limits of :func:`rskernels.rejection_sample`.

    Returns
    -------
    RejectionResult
        ``samples`` ``[num_samples, d]``, with acceptance rate and M.

    Raises
    ------
    ValueError
        If an argument is not as above; for σ < s, there is no finite M.
    EnvelopeViolation
        If a loss is below ``least``.
    RejectionError
        If next to nothing is accepted: a higher τ or a narrower prior accepts more.
    """
    sigma = prior if sigma is None else sigma
    for name, value in {"prior": prior, "sigma": sigma, "tau": tau}.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
    if sigma < prior:
        raise ValueError(f"sigma={sigma} is below prior={prior}: no finite M bounds the ratio")
    if centre.dim() != 1 or not math.isfinite(least):
        raise ValueError(f"centre must be [d] and least finite, got {list(centre.shape)}, {least}")
    for name, value in {"prior": prior, "sigma": sigma}.items():
        check_range(name, value, centre.dtype)
    size = len(centre)
    log_M = size * math.log(sigma / prior) - least / tau

    def sample(n: int) -> Tensor:
        noise = torch.randn(n, size, dtype=centre.dtype, device=centre.device)
        return torch.add(centre, noise, alpha=sigma)

    def log_ratio(theta: Tensor) -> Tensor:
        # M times what is at most 1, so that rounding does not lift a ratio above M.
        step = (theta - centre).double()
        near, far = ((step / scale).square().sum(dim=1) for scale in (sigma, prior))
        return log_M - ((loss(theta).double() - least) / tau + (far - near) / 2)

    return rejection_sample(
        log_ratio,
        (sample, lambda theta: theta.new_zeros(len(theta))),
        num_samples,
        log_M=ProvedLogM(log_M),
        on_violation="raise",
        seed=seed,
        **options,
    )


def check_range(name: str, value: float, dtype: torch.dtype) -> None:
    """Raise ValueError if a dtype does not hold a standard deviation."""
    if not dtype.is_floating_point:
        raise ValueError(f"parameters must be floating, got {dtype}")
    numbers = torch.finfo(dtype)
    if not numbers.tiny <= value <= numbers.max:
        raise ValueError(
            f"{name} must be {numbers.tiny:.2g} to {numbers.max:.2g}, as {dtype} is, got {value}"
        )
