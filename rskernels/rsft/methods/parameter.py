"""Rejection in parameter space: proposals of parameters, accepted by their loss. No gradients.

`chain` walks: from θ a step Δ ~ N(0, σ²I) is proposed and accepted with min(1, e^(L(θ)−L(θ+Δ))),
L over the temperature (Metropolis et al., "Equation of state calculations by fast computing
machines", 1953). `independent` draws: each θ stands alone, and is accepted by rejection from the
posterior ∝ e^(−L(θ)/τ)·prior with a bounded M.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

import rskernels
from rskernels.rsft.data.samples import Samples
from rskernels.rsft.diagnostics import effective_sample_size, split_r_hat

# Streams 0 to 3 are the masks', the envelope's and the sampler's.
CHAIN_STREAM = 4

Loss = Callable[[Tensor], Tensor]


class Chain(NamedTuple):
    """What random-walk Metropolis has drawn after its burn-in."""

    samples: Tensor
    """``[kept, chains, d]``, every ``thin``-th."""
    losses: Tensor
    """float64 ``[steps, chains]``, of every step."""
    acceptance_rate: float
    """Proposals accepted, by all proposals after the burn-in."""
    acceptance: Tensor
    """float64 ``[chains]``, the same of each chain."""
    sigma: float
    """σ of the proposals after the burn-in."""
    r_hat: float
    """Split R̂, the largest of the loss's and the parameters'."""
    ess: float
    """Effective sample size, the smallest of the loss's and the parameters'."""


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

    many: Loss = vmap(loss, chunk_size=chunk)
    return many


@torch.no_grad()
def chain(
    loss: Loss,
    start: Tensor,
    *,
    steps: int,
    burn_in: int = 0,
    sigma: float = 0.1,
    acceptance: float | None = None,
    tau: float = 1.0,
    thin: int = 1,
    seed: int = 0,
    resume: Mapping[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], None] | None = None,
    every: int = 1000,
) -> Chain:
    """Walk through parameter space by random-walk Metropolis, many chains side by side.

    The law that the chains come to is ∝ exp(−L(θ)/τ); a prior is a part of L.

    Parameters
    ----------
    loss : callable
        ``[chains, d]`` to L, floating ``[chains]``. A proposal of NaN or +inf is never accepted.
    start : Tensor
        Floating ``[chains, d]``, where each chain begins.
    steps, burn_in : int
        Proposals of each chain that count, and those before, which do not.
    sigma : float
        Standard deviation of a step, in each parameter; with ``acceptance``, where it starts.
    acceptance : float, optional
        In (0, 1). σ is brought to this acceptance rate during the burn-in, by Robbins & Monro's
        rule (Andrieu & Thoms, "A tutorial on adaptive MCMC", 2008), and is left alone afterwards,
        since a σ that goes on learning changes the law.
    tau : float
        Temperature.
    thin : int
        Of the steps that count, one in ``thin`` is kept in ``samples``.
    seed : int
        In [0, 2**62). Decides proposals and acceptances.
    resume : mapping, optional
        What ``keep`` was given, by a call of the same arguments: the walk continues there,
        bit-identically.
    keep : callable, optional
        Called with the state, tensors and numbers, before the steps that are multiples of
        ``every``.
    every : int
        At least 1.

    Returns
    -------
    Chain
        The draws, the acceptance, and whether the chains have converged.

    Raises
    ------
    ValueError
        If an argument is not as above, or the loss is not finite at a start.
    """
    if start.dim() != 2 or 0 in start.shape:
        raise ValueError(f"start must be [chains, d], got {list(start.shape)}")
    if thin < 1 or steps < 4 * thin or burn_in < 0:
        raise ValueError(
            f"4·thin steps and burn_in of at least 0 are needed, got thin={thin}, steps={steps}, "
            f"burn_in={burn_in}"
        )
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    for name, value in {"sigma": sigma, "tau": tau}.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
    if acceptance is not None and not (0 < acceptance < 1 and burn_in):
        raise ValueError(
            f"acceptance must be in (0, 1) and needs a burn-in, got {acceptance}, {burn_in} steps"
        )
    numbers = _check_range("sigma", sigma, start.dtype)
    generator = torch.Generator(device=start.device).manual_seed(seed)
    theta, now = start.clone(), loss(start)
    if not now.isfinite().all():
        raise ValueError("the loss is not finite at a start")
    count = len(start)
    accepted = torch.zeros(count, dtype=torch.float64, device=start.device)
    kept: list[Tensor] = []
    losses: list[Tensor] = []
    first = 0
    if resume is not None:
        first, sigma = resume["step"], resume["sigma"]
        theta, now, accepted = (resume[name] for name in ("theta", "now", "accepted"))
        kept, losses = list(resume["kept"]), list(resume["losses"])
        generator.set_state(resume["generator"])
    for step in range(first, burn_in + steps):
        if keep is not None and step > first and step % every == 0:
            keep(
                {
                    "step": step,
                    "sigma": sigma,
                    "theta": theta,
                    "now": now,
                    "accepted": accepted,
                    "kept": torch.stack(kept) if kept else theta[:0],
                    "losses": torch.stack(losses) if losses else now[:0],
                    "generator": generator.get_state(),
                }
            )
        noise = torch.randn(
            theta.shape, dtype=theta.dtype, device=theta.device, generator=generator
        )
        proposed = torch.add(theta, noise, alpha=sigma)
        there = loss(proposed)
        mask = rskernels.bernoulli_mask(
            (now - there) / tau, seed=seed, row_offset=step * count, stream=CHAIN_STREAM
        )
        theta, now = proposed.where(mask[:, None], theta), there.where(mask, now)
        if step < burn_in:
            if acceptance is not None:
                gain = 10 / (10 + step) ** 0.7
                sigma *= math.exp(gain * (float(mask.double().mean()) - acceptance))
                sigma = min(max(sigma, numbers.tiny), numbers.max)
            continue
        accepted = accepted + mask
        losses.append(now.double())
        if (step - burn_in) % thin == 0:
            kept.append(theta)
    samples, trace = torch.stack(kept), torch.stack(losses)
    looked_at = torch.cat([samples, trace[::thin, :, None]], dim=2)
    return Chain(
        samples,
        trace,
        float(accepted.mean()) / steps,
        accepted / steps,
        sigma,
        float(_largest(split_r_hat(looked_at))),
        float(-_largest(-effective_sample_size(looked_at))),
    )


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
) -> rskernels.RejectionResult:
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
        _check_range(name, value, centre.dtype)
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

    return rskernels.rejection_sample(
        log_ratio,
        (sample, lambda theta: theta.new_zeros(len(theta))),
        num_samples,
        log_M=log_M,
        on_violation="raise",
        seed=seed,
        **options,
    )


def _check_range(name: str, value: float, dtype: torch.dtype) -> torch.finfo:
    """Return the range of a dtype; raise ValueError if it does not hold a standard deviation."""
    if not dtype.is_floating_point:
        raise ValueError(f"parameters must be floating, got {dtype}")
    numbers = torch.finfo(dtype)
    if not numbers.tiny <= value <= numbers.max:
        raise ValueError(
            f"{name} must be {numbers.tiny:.2g} to {numbers.max:.2g}, as {dtype} is, got {value}"
        )
    return numbers


def _largest(values: Tensor) -> Tensor:
    """Return the largest of those that are numbers; NaN if none is."""
    numbers = values[~values.isnan()]
    return numbers.max() if len(numbers) else values.new_tensor(math.nan)
