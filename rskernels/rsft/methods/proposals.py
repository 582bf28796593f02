"""Proposals with parameters: what :func:`rskernels.rsft.tune` fine-tunes.

A proposal is a ``torch.nn.Module`` with ``sample(n)``, which returns ``[n, *event]``, and
``log_prob(x)``, which returns ``[n]`` and is differentiable in the parameters.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, transform_to
from torch.distributions.constraints import Constraint

from rskernels.sampling.support import density


class Proposal(Protocol):
    """What a proposal offers besides being a module."""

    def sample(self, n: int) -> Tensor:
        """Return n draws ``[n, *event]``."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log density of each draw, ``[n]``."""


class FamilyProposal(nn.Module):
    """A family of ``torch.distributions``, whose parameters are fine-tuned.

    Parameters
    ----------
    family : type
        A Distribution class, such as ``MultivariateNormal``.
    independent : int
        How many of its batch dimensions are part of a draw.
    parameters : Tensor
        By the names that the family takes, at their first values; a family of batch shape is made
        one by `independent`.

    Raises
    ------
    ValueError
        If the family does not constrain a parameter of that name, or the distribution has a batch
        shape.
    """

    def __init__(self, family: type[Distribution], *, independent: int = 0, **parameters: Tensor):
        super().__init__()
        constraints: dict[str, Any] = family.arg_constraints  # type: ignore[assignment]
        unknown = sorted(set(parameters) - set(constraints))
        if unknown:
            raise ValueError(
                f"{family.__name__} takes {', '.join(constraints)}, got {', '.join(unknown)}"
            )
        self.family = family
        self.independent = independent
        self._constraints: dict[str, Constraint] = {name: constraints[name] for name in parameters}
        self.free = nn.ParameterDict(
            {
                name: nn.Parameter(
                    transform_to(self._constraints[name]).inv(value.detach().clone())
                )
                for name, value in parameters.items()
            }
        )
        if self.distribution().batch_shape:
            raise ValueError(
                f"{family.__name__} of these parameters is a batch "
                f"{list(self.distribution().batch_shape)}; independent makes it part of a draw"
            )

    def distribution(self) -> Distribution:
        """Return the distribution of the present parameters."""
        values = {name: transform_to(self._constraints[name])(v) for name, v in self.free.items()}
        family = self.family(**values)
        if not self.independent:
            return family
        return torch.distributions.Independent(family, self.independent)

    def sample(self, n: int) -> Tensor:
        """Return n draws ``[n, *event]``."""
        return self.distribution().sample(torch.Size((n,)))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log density of each draw, ``[n]``; -inf outside of the support."""
        return density(self.distribution())(x)


class CouplingProposal(nn.Module):
    """A network on top of a base: affine couplings, which start as the base itself.

    Layer by layer, half of the coordinates are scaled and shifted by what a small network makes of
    the other half (Dinh, Sohl-Dickstein & Bengio, "Density estimation using Real NVP", ICLR 2017).

    Parameters
    ----------
    base : Distribution
        Of draws ``[d]`` with d of at least 2; it stays as it is.
    layers, width : int
        Couplings, and hidden units of each one's network.
    generator : torch.Generator, optional
        Source of the networks' initial weights, on the CPU; None is torch's default.
    """

    def __init__(
        self,
        base: Distribution,
        *,
        layers: int = 4,
        width: int = 64,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if base.batch_shape or len(base.event_shape) != 1 or base.event_shape[0] < 2:
            raise ValueError(
                "base must have draws [d] with d of at least 2, got batch shape "
                f"{list(base.batch_shape)} and event shape {list(base.event_shape)}"
            )
        self.base = base
        size = base.event_shape[0]
        self.cut = size // 2
        self.networks = nn.ModuleList()
        for layer in range(layers):
            seen = self.cut if layer % 2 == 0 else size - self.cut
            with torch.device("meta"):
                first, last = nn.Linear(seen, width), nn.Linear(width, 2 * (size - seen))
            network = nn.Sequential(first, nn.SiLU(), last).to_empty(device="cpu")
            nn.init.uniform_(first.weight, -(seen**-0.5), seen**-0.5, generator=generator)
            for zero in (first.bias, last.weight, last.bias):
                nn.init.zeros_(zero)
            self.networks.append(network)

    def sample(self, n: int) -> Tensor:
        """Return n draws ``[n, d]``."""
        x: Tensor = self.base.sample(torch.Size((n,)))
        for layer, network in enumerate(self.networks):
            seen, moved = self._split(x, layer)
            log_scale, shift = self._affine(network, seen)
            x = self._join(seen, moved * log_scale.exp() + shift, layer)
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log density of each draw, ``[n]``."""
        total = x.new_zeros(len(x))
        for layer in reversed(range(len(self.networks))):
            seen, moved = self._split(x, layer)
            log_scale, shift = self._affine(self.networks[layer], seen)
            x = self._join(seen, (moved - shift) * (-log_scale).exp(), layer)
            total = total - log_scale.sum(-1)
        log_prob: Tensor = self.base.log_prob(x) + total
        return log_prob

    def _split(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        low, high = x[:, : self.cut], x[:, self.cut :]
        return (low, high) if layer % 2 == 0 else (high, low)

    def _join(self, seen: Tensor, moved: Tensor, layer: int) -> Tensor:
        return torch.cat((seen, moved) if layer % 2 == 0 else (moved, seen), dim=-1)

    @staticmethod
    def _affine(network: nn.Module, seen: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = network(seen).chunk(2, dim=-1)
        # A scale of at most e² a layer keeps an early step from blowing the draws up.
        return 2.0 * torch.tanh(log_scale / 2.0), shift


class DefensiveProposal(nn.Module):
    """A mixture of a tuned proposal with the one that it started from.

    p/q is at most 1/share of what it was at the start, whatever becomes of the tuned part
    (Hesterberg, "Weighted average importance sampling and defensive mixture distributions",
    Technometrics 37, 1995).

    Parameters
    ----------
    tuned, start : Module
        Proposals of draws of one shape.
    share : float
        Of the draws that come from `start`, in [0, 1).
    """

    def __init__(self, tuned: nn.Module, start: nn.Module, share: float):
        super().__init__()
        self.tuned, self.start, self.share = tuned, start, share

    def sample(self, n: int) -> Tensor:
        """Return n draws ``[n, *event]``."""
        x: Tensor = self.tuned.sample(n)  # type: ignore[operator]
        if self.share == 0.0:
            return x
        pick = torch.rand(n, device=x.device) < self.share
        plain: Tensor = self.start.sample(int(pick.sum()))  # type: ignore[operator]
        return x.index_put((pick,), plain)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log density of each draw, ``[n]``."""
        tuned: Tensor = self.tuned.log_prob(x)  # type: ignore[operator]
        if self.share == 0.0:
            return tuned
        plain: Tensor = self.start.log_prob(x)  # type: ignore[operator]
        return torch.logaddexp(tuned + math.log1p(-self.share), plain + math.log(self.share))
