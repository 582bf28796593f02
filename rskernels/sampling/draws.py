"""Draws of the proposal with their log ratios to the target, checked batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from rskernels.ops.arguments import FLOAT_DTYPES, FLOAT_NAMES
from rskernels.sampling.seeding import Generators
from rskernels.sampling.support import density

LogProb = Callable[[Tensor], Tensor]
Target = LogProb | Distribution
Proposal = Distribution | tuple[Callable[[int], Tensor], LogProb]


class ScoredDraws(NamedTuple):
    """Draws of the proposal in their order."""

    samples: Tensor  # [n, ...]
    log_ratio: Tensor  # log p - log q, float32 or float64 [n]


class DrawSource:
    """A proposal and a target: draws of the one, scored by the other.

    Parameters
    ----------
    log_prob, proposal
        As in :func:`rskernels.rejection_sample`, with its errors.
    """

    def __init__(self, log_prob: Target, proposal: Proposal) -> None:
        self._log_p = _density("log_prob", log_prob)
        self._event = log_prob.event_shape if isinstance(log_prob, Distribution) else None
        self._form: tuple[torch.Size, torch.dtype, torch.device] | None = None
        if isinstance(proposal, Distribution):
            distribution = proposal
            _check_single("proposal", distribution)
            self._sample: Callable[[int], Tensor] = lambda n: distribution.sample(torch.Size((n,)))
            self._log_q: LogProb = distribution.log_prob
            # Unknown before the first draw where the proposal is a pair.
            self.draw_numel: int | None = distribution.event_shape.numel()
        elif isinstance(proposal, tuple) and len(proposal) == 2 and all(map(callable, proposal)):
            self._sample, self._log_q = proposal
            self.draw_numel = None
        else:
            has_both = callable(getattr(proposal, "sample", None)) and hasattr(proposal, "log_prob")
            hint = "; give (proposal.sample, proposal.log_prob)" if has_both else ""
            raise TypeError(
                "proposal must be a torch.distributions.Distribution or a pair (sample, log_prob) "
                f"of callables, got {type(proposal).__name__}{hint}"
            )

    def draw(self, n: int, generators: Generators) -> ScoredDraws:
        """Draw n proposals; raise TypeError or ValueError if a result has another form."""
        with generators.lent():
            samples = self._sample(n)
        if not isinstance(samples, Tensor):
            raise TypeError(
                f"the proposal's sample must return a tensor, got {type(samples).__name__}"
            )
        if samples.dim() == 0 or len(samples) != n:
            raise ValueError(
                f"the proposal's sample must return [n, ...] for n = {n}, got {list(samples.shape)}"
            )
        form = samples.shape[1:], samples.dtype, samples.device
        self._form = self._form or form
        if form != self._form:
            raise ValueError(
                "the proposal's sample must return draws of one shape, dtype and device: these are "
                f"{list(form[0])}, {form[1]}, {form[2]}, those before were {list(self._form[0])}, "
                f"{self._form[1]}, {self._form[2]}"
            )
        if self._event is not None and self._event != samples.shape[1:]:
            raise ValueError(
                f"the target's draws have shape {list(self._event)}, the proposal's "
                f"{list(samples.shape[1:])}"
            )
        log_p = _checked("the target's log_prob", self._log_p(samples), samples)
        log_q = _checked("the proposal's log_prob", self._log_q(samples), samples)
        return ScoredDraws(samples, log_p - log_q)


def _density(name: str, value: Target) -> LogProb:
    if isinstance(value, Distribution):
        _check_single(name, value)
        return density(value)
    if not callable(value):
        raise TypeError(f"{name} must be a callable or a Distribution, got {type(value).__name__}")
    return value


def _check_single(name: str, distribution: Distribution) -> None:
    if distribution.batch_shape:
        raise ValueError(
            f"{name} is a batch of distributions, {list(distribution.batch_shape)}; "
            "torch.distributions.Independent makes one of it"
        )


def _checked(name: str, values: Tensor, samples: Tensor) -> Tensor:
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must return a tensor, got {type(values).__name__}")
    if values.dtype not in FLOAT_DTYPES:
        raise TypeError(f"{name} must return {FLOAT_NAMES}, got {values.dtype}")
    if values.shape != samples.shape[:1]:
        raise ValueError(
            f"{name} must return one number a draw, {list(samples.shape[:1])} for draws "
            f"{list(samples.shape)}, got {list(values.shape)}"
        )
    if values.device != samples.device:
        raise ValueError(f"{name} is on {values.device}, the draws are on {samples.device}")
    # A ratio of half precision would be wrong by a per cent.
    return values if values.dtype == torch.float64 else values.float()
