"""All that changes while the gradient loop runs, saved and restored whole."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from rskernels.envelope import Envelope
from rskernels.rsft.balance import Balance


class Step(NamedTuple):
    """What one step of the loop came to.

    Attributes
    ----------
    rows, accepted, violations, invalid : int
        Rows of the batch, and how many of them were used, had w > M, or had no ratio.
    loss : float, optional
        Of the batch; None for a skipped step, of which nothing was accepted.
    delta : float
        Σ(w/M − 1)₊ / Σ w/M.
    M : float, optional
        The largest that was decided with; None for a rule that rejects nothing.
    squared_weights : float
        Σv², v the share of each sample in the gradient.
    seconds : float
        It took.
    """

    rows: int
    accepted: int
    violations: int
    invalid: int
    loss: float | None
    delta: float
    M: float | None
    squared_weights: float
    seconds: float

    def record(self, number: int) -> dict[str, Any]:
        """Return the line of ``metrics.jsonl`` for the step of this number."""
        return {
            "kind": "step",
            "step": number,
            "loss": self.loss,
            "acceptance": self.accepted / self.rows,
            "violations": self.violations,
            "invalid": self.invalid,
            "delta": self.delta,
            "M": self.M,
            "seconds": self.seconds,
        }


@dataclass
class Totals:
    """Sums over the steps of a run."""

    steps: int = 0
    rows: int = 0
    gradient_samples: int = 0
    skipped_steps: int = 0
    violations: int = 0
    invalid: int = 0
    delta: float = 0.0
    squared_weights: float = 0.0
    seconds: float = 0.0

    def add(self, step: Step) -> None:
        """Count a step."""
        self.steps += 1
        self.rows += step.rows
        self.gradient_samples += step.accepted
        self.skipped_steps += not step.accepted
        self.violations += step.violations
        self.invalid += step.invalid
        self.delta += step.delta
        self.squared_weights += step.squared_weights
        self.seconds += step.seconds

    @property
    def acceptance(self) -> float:
        """Share of the rows that was used."""
        return self.gradient_samples / self.rows

    @property
    def gradient_ess(self) -> float:
        """Effective sample size (Σv)²/Σv² of all gradient samples."""
        taken = self.steps - self.skipped_steps
        return taken**2 / self.squared_weights if taken else 0.0


@dataclass
class LoopState:
    """The state of the loop between two epochs."""

    model: nn.Module
    optimizer: Optimizer
    envelope: Envelope
    balance: Balance
    generator: torch.Generator
    totals: Totals
    epoch: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Return all of it, as tensors, numbers and containers of them."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "envelope": self.envelope.state_dict(),
            "balance": self.balance.state_dict(),
            "generator": self.generator.get_state(),
            "totals": dataclasses.asdict(self.totals),
            "epoch": self.epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.envelope.load_state_dict(state["envelope"])
        self.balance.load_state_dict(state["balance"])
        self.generator.set_state(state["generator"])
        self.totals = Totals(**state["totals"])
        self.epoch = state["epoch"]
