"""Random-walk Metropolis over parameters: proposals accepted by their loss. No gradients.

From θ a step Δ ~ N(0, σ²I) is proposed and accepted with min(1, e^((L(θ)−L(θ+Δ))/τ)) (Metropolis et
al., "Equation of state calculations by fast computing machines", 1953).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels.law.streams import Stream
from rskernels.ops import bernoulli_mask
from rskernels.rsft.methods.diagnostics import effective_sample_size, split_r_hat
from rskernels.rsft.methods.posterior import Loss, check_range


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
        What ``keep`` was called with, by a call of the same arguments: the walk continues there,
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
    _check_chain(start, steps, burn_in, thin, every, acceptance)
    for name, value in {"sigma": sigma, "tau": tau}.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
    check_range("sigma", sigma, start.dtype)
    walk = _Walk(loss, start, sigma, seed)
    if resume is not None:
        walk.load_state_dict(resume)
    first = walk.step
    while walk.step < burn_in + steps:
        if keep is not None and walk.step > first and walk.step % every == 0:
            keep(walk.state_dict())
        mask = walk.advance(tau)
        if walk.step > burn_in:
            walk.count(mask, is_kept=(walk.step - 1 - burn_in) % thin == 0)
        elif acceptance is not None:
            walk.adapt(float(mask.double().mean()), acceptance)
    samples, trace = torch.stack(walk.kept), torch.stack(walk.losses)
    looked_at = torch.cat([samples, trace[::thin, :, None]], dim=2)
    return Chain(
        samples,
        trace,
        float(walk.accepted.mean()) / steps,
        walk.accepted / steps,
        walk.sigma,
        float(_largest(split_r_hat(looked_at))),
        float(-_largest(-effective_sample_size(looked_at))),
    )


class _Walk:
    """Chains side by side: all that changes from step to step, saved and restored whole."""

    def __init__(self, loss: Loss, start: Tensor, sigma: float, seed: int) -> None:
        self.loss, self.seed = loss, seed
        self.numbers = torch.finfo(start.dtype)
        self.generator = torch.Generator(device=start.device).manual_seed(seed)
        self.step, self.sigma = 0, sigma
        self.theta, self.now = start.clone(), loss(start)
        if not self.now.isfinite().all():
            raise ValueError("the loss is not finite at a start")
        self.accepted = torch.zeros(len(start), dtype=torch.float64, device=start.device)
        self.kept: list[Tensor] = []
        self.losses: list[Tensor] = []

    def advance(self, tau: float) -> Tensor:
        """Propose a step of each chain; return which were accepted, bool ``[chains]``."""
        noise = torch.randn(
            self.theta.shape,
            dtype=self.theta.dtype,
            device=self.theta.device,
            generator=self.generator,
        )
        proposed = torch.add(self.theta, noise, alpha=self.sigma)
        there = self.loss(proposed)
        mask = bernoulli_mask(
            (self.now - there) / tau,
            seed=self.seed,
            row_offset=self.step * len(self.theta),
            stream=Stream.CHAIN,
        )
        self.theta = proposed.where(mask[:, None], self.theta)
        self.now = there.where(mask, self.now)
        self.step += 1
        return mask

    def adapt(self, rate: float, requested: float) -> None:
        """Move σ towards a requested acceptance rate, by less from step to step."""
        gain = 10 / (9 + self.step) ** 0.7
        self.sigma *= math.exp(gain * (rate - requested))
        self.sigma = min(max(self.sigma, self.numbers.tiny), self.numbers.max)

    def count(self, mask: Tensor, *, is_kept: bool) -> None:
        """Take a step after the burn-in into the statistics, and its parameters if it is kept."""
        self.accepted = self.accepted + mask
        self.losses.append(self.now.double())
        if is_kept:
            self.kept.append(self.theta)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and numbers."""
        return {
            "step": self.step,
            "sigma": self.sigma,
            "theta": self.theta,
            "now": self.now,
            "accepted": self.accepted,
            "kept": torch.stack(self.kept) if self.kept else self.theta[:0],
            "losses": torch.stack(self.losses) if self.losses else self.now[:0],
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.step, self.sigma = state["step"], state["sigma"]
        self.theta, self.now, self.accepted = (state[name] for name in ("theta", "now", "accepted"))
        self.kept, self.losses = list(state["kept"]), list(state["losses"])
        self.generator.set_state(state["generator"])


def _check_chain(
    start: Tensor, steps: int, burn_in: int, thin: int, every: int, acceptance: float | None
) -> None:
    """Raise ValueError if a chain has no such start or length."""
    if start.dim() != 2 or 0 in start.shape:
        raise ValueError(f"start must be [chains, d], got {list(start.shape)}")
    if thin < 1 or steps < 4 * thin or burn_in < 0:
        raise ValueError(
            f"4·thin steps and burn_in of at least 0 are needed, got thin={thin}, steps={steps}, "
            f"burn_in={burn_in}"
        )
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    if acceptance is not None and not (0 < acceptance < 1 and burn_in):
        raise ValueError(
            f"acceptance must be in (0, 1) and needs a burn-in, got {acceptance}, {burn_in} steps"
        )


def _largest(values: Tensor) -> Tensor:
    """Return the largest of those that are numbers; NaN if none is."""
    numbers = values[~values.isnan()]
    return numbers.max() if len(numbers) else values.new_tensor(math.nan)
