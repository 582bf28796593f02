"""Fine-tuning a proposal on what it had accepted, so that M falls and acceptance rises.

Every accepted draw is one of the target, whatever the proposal was when it came, as far as M bounds
its ratio. So all of them together are the sample on which the proposal's parameters minimise
KL(p‖q) = const − E_p[log q], and none need be thrown away when q changes. M belongs to one q: each
has an Envelope of its own.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rskernels.envelope import Envelope
from rskernels.rsft.errors import TrainingError
from rskernels.rsft.methods.proposals import DefensiveProposal
from rskernels.sampling import rejection_sample
from rskernels.sampling.draws import Target


class Round(NamedTuple):
    """One proposal's part: what it drew before it was tuned further."""

    log_M: float
    """log M of its Envelope at the end."""
    acceptance_rate: float
    """Draws accepted by proposals used."""
    draws_per_second: float
    """Accepted, pilot included."""
    cross_entropy: float
    """Mean of -log q over the draws it was tuned on: KL(p‖q) but for the entropy of p; NaN for the
    proposal as it started."""
    is_kept: bool
    """Whether it was better than the best before; if not, it was taken back."""


class Tuned(NamedTuple):
    """A proposal that has been tuned, and what came of it on the way."""

    proposal: DefensiveProposal
    """The best: ``rejection_sample(log_prob, (proposal.sample, proposal.log_prob), ...)``."""
    envelope: Envelope
    """M of that proposal."""
    samples: Tensor
    """``[rounds * draws, *event]``: every accepted draw. They follow the target as far
    as the M of their round, the largest ratio seen, bounds p/q."""
    rounds: tuple[Round, ...]
    """The first is that of the proposal before it was tuned."""

    @property
    def gain(self) -> float:
        """Acceptance rate of the best over that of the start."""
        best = max(r.acceptance_rate for r in self.rounds if r.is_kept)
        return best / self.rounds[0].acceptance_rate


def tune(
    log_prob: Target,
    proposal: nn.Module,
    *,
    rounds: int = 4,
    draws: int = 1000,
    steps: int = 300,
    batch_size: int = 256,
    lr: float = 0.02,
    share: float = 0.05,
    pilot: int = 1 << 14,
    min_acceptance: float = 1e-7,
    seed: int = 0,
    resume: Mapping[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], None] | None = None,
) -> Tuned:
    """Fine-tune a proposal by minimising KL(p‖q) on accepted draws.

    Each round draws from the target by rejection through the present proposal, with an Envelope of
    its own, and then takes gradient steps on the mean of −log q over all draws accepted so far.
    A proposal of a lower acceptance than the best before is taken back, its draws are not.
    M is the largest ratio seen, which grows with the number of proposals: compare acceptance rates
    of like numbers of draws.

    Parameters
    ----------
    log_prob : callable or Distribution
        The target, as in :func:`rskernels.rejection_sample`; need not be differentiable.
    proposal : Module
        With ``sample(n)`` and a differentiable ``log_prob(x)``, such as ``FamilyProposal`` or
        ``CouplingProposal``. It is copied.
    rounds : int
        Times the proposal is tuned; there is one round of draws more, of the last proposal.
    draws : int
        Accepted in each round.
    steps, batch_size, lr : int, int, float
        Of Adam in each round; the step length falls to 0 over it by a cosine.
    share : float
        Of proposals that keep coming from the first proposal, in [0, 1): see ``DefensiveProposal``.
    pilot : int
        Draws from which each round's M is first learnt.
    min_acceptance : float
        As in :func:`rskernels.rejection_sample`.
    seed : int
        In [0, 2**62). Decides all draws and the order of the gradient steps.
    resume : mapping, optional
        What ``keep`` was called with, by a call of the same arguments, or of fewer ``rounds``: the
        call continues there, bit-identically.
    keep : callable, optional
        Called with the state after the draws of each round: tensors, numbers and containers of
        them, under ``"rounds"`` a ``Round`` for each, as a tuple.

    Returns
    -------
    Tuned
        The best proposal, its Envelope, all accepted draws, and each round's M and acceptance.

    Raises
    ------
    ValueError
        If a number is not as above.
    RejectionError
        If a proposal accepts next to nothing.
    TrainingError
        If the proposal does not keep a density at draws of the target.
    """
    for name, value in {
        "rounds": rounds,
        "draws": draws,
        "steps": steps,
        "batch_size": batch_size,
    }.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0.0 <= share < 1.0:
        raise ValueError(f"share must be in [0, 1), got {share}")
    if not lr > 0.0:
        raise ValueError(f"lr must be above 0, got {lr}")
    state = _State(proposal, share, seed)
    if resume is not None:
        state.load_state_dict(resume)
    limits = {"pilot": pilot, "min_acceptance": min_acceptance}
    for number in range(len(state.rounds), rounds + 1):
        loss = math.nan
        if number > 0:
            pool = torch.cat(state.pool)
            loss = minimise_kl(state.tuned, pool, steps, batch_size, lr, state.generator)
        state.draw(log_prob, draws, loss, limits)
        if keep is not None:
            keep(state.state_dict())
    assert state.best is not None
    return Tuned(
        state.best.proposal, state.best.envelope, torch.cat(state.pool), tuple(state.rounds)
    )


class _Best(NamedTuple):
    """The proposal of the highest acceptance rate so far."""

    proposal: DefensiveProposal
    envelope: Envelope
    acceptance_rate: float


class _State:
    """What changes from round to round, saved and restored whole."""

    def __init__(self, proposal: nn.Module, share: float, seed: int) -> None:
        self.start = copy.deepcopy(proposal).requires_grad_(False)
        self.share = share
        self.tuned = copy.deepcopy(proposal).requires_grad_(True)
        self.generator = torch.Generator().manual_seed(seed)
        self.best: _Best | None = None
        self.rounds: list[Round] = []
        self.pool: list[Tensor] = []

    def draw(self, log_prob: Target, draws: int, loss: float, limits: dict[str, Any]) -> None:
        """Draw from the target by the present proposal, and keep it if it is the best so far."""
        proposal, envelope = self._candidate()
        begin = time.perf_counter()
        result = rejection_sample(
            log_prob,
            (proposal.sample, proposal.log_prob),
            draws,
            log_M=envelope,
            generator=self.generator,
            **limits,
        )
        rate = draws / (time.perf_counter() - begin)
        self.pool.append(result.samples)
        is_kept = self.best is None or result.acceptance_rate > self.best.acceptance_rate
        log_M, acceptance_rate = result.report.log_M, result.acceptance_rate
        self.rounds.append(Round(log_M, acceptance_rate, rate, loss, is_kept))
        if self.best is None or is_kept:
            self.best = _Best(proposal, envelope, acceptance_rate)
        else:
            self.tuned.load_state_dict(self.best.proposal.tuned.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and containers of them."""
        assert self.best is not None
        return {
            "best": self.best.proposal.tuned.state_dict(),
            "envelope": self.best.envelope.state_dict(),
            "acceptance_rate": self.best.acceptance_rate,
            "tuned": copy.deepcopy(self.tuned.state_dict()),
            "generator": self.generator.get_state(),
            "rounds": [tuple(r) for r in self.rounds],
            "pool": list(self.pool),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        proposal, envelope = self._candidate()
        proposal.tuned.load_state_dict(state["best"])
        envelope.load_state_dict(state["envelope"])
        self.best = _Best(proposal, envelope, state["acceptance_rate"])
        self.tuned.load_state_dict(state["tuned"])
        self.generator.set_state(state["generator"])
        self.rounds = [Round(*r) for r in state["rounds"]]
        self.pool = list(state["pool"])

    def _candidate(self) -> tuple[DefensiveProposal, Envelope]:
        """Return a copy of the proposal as it is now, and an Envelope that has seen nothing."""
        tuned = copy.deepcopy(self.tuned).requires_grad_(False)
        proposal = DefensiveProposal(tuned, self.start, self.share)
        return proposal, Envelope("max", on_violation="thin")


def minimise_kl(
    proposal: nn.Module,
    samples: Tensor,
    steps: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator,
) -> float:
    """Take gradient steps on the mean of −log q over draws of the target, and return that mean.

    Parameters
    ----------
    proposal : Module
        With a differentiable ``log_prob``; changed in place.
    samples : Tensor
        ``[n, *event]`` from the target.
    steps, batch_size, lr : int, int, float
        Of Adam; the step length falls to 0 by a cosine.
    generator : torch.Generator
        Draws the batches, on the CPU.

    Raises
    ------
    TrainingError
        If the proposal does not keep a density at draws of the target.
    """
    optimizer = torch.optim.Adam([p for p in proposal.parameters() if p.requires_grad], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rows = torch.randint(len(samples), (batch_size,), generator=generator).to(samples.device)
        try:
            loss = -proposal.log_prob(samples[rows]).mean()  # type: ignore[operator]
        except ValueError as error:  # torch.distributions refuse such parameters
            raise _too_long(step, lr) from error
        if not loss.isfinite():
            raise _too_long(step, lr)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float(-proposal.log_prob(samples).mean())  # type: ignore[operator]


def _too_long(step: int, lr: float) -> TrainingError:
    return TrainingError(
        f"the proposal has no density at draws of the target after {step} steps; a smaller lr than "
        f"{lr:g} may help"
    )
