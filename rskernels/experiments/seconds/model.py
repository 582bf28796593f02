"""The cost model: what a step costs in each form, and how many fewer steps it must then take.

A row's forward pass takes f, its backward pass b ≈ 2f, and an update of the weights o, whatever the
batch. Of a row that is used, 1/a are scored. With ω = o/(f·batch) and β the cost of a score in
bfloat16 over f, a used row costs, in units of f,

    plain, or cached scores   3 + ω
    fresh                     3 + ω + 1/a
    fresh, bfloat16           3 + ω + β/a
    fresh, forward kept       2 + ω + 1/a

plus the decision. R is the steps that plain training takes over those of a method, to one accuracy;
the speed-up is R times the cost of a plain row over the method's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rskernels.experiments.seconds.costs import Costs, seconds_of

WANTED = 1.3
"""The speed-up that is asked for."""


class Ideal(NamedTuple):
    """The model's parameters."""

    backward: float = 2.0
    """b/f."""
    update: float = 0.0
    """ω."""
    bf16: float = 0.5
    """β."""

    def row(self, form: str, rate: float) -> float:
        """Return the cost of a used row, over f, without the decision."""
        plain = 1 + self.backward + self.update
        if form == "step":
            return plain
        score = (self.bf16 if form == "bf16" else 1.0) / rate
        return plain + score - (form == "kept")

    def speed_up(self, form: str, rate: float, ratio: float) -> float:
        """Return the speed-up at a ratio R of steps."""
        return ratio * self.row("step", 1.0) / self.row(form, rate)

    def needed(self, form: str, rate: float, wanted: float = WANTED) -> float:
        """Return the R at which the speed-up is the one wanted."""
        return wanted / self.speed_up(form, rate, 1.0)

    def affordable(self, rate: float, ratio: float, wanted: float = WANTED) -> float:
        """Return what a score may cost at most, over f; below 0 where none is cheap enough."""
        return rate * self.row("step", 1.0) * (ratio / wanted - 1)


def step_cost(form: str, rate: float, batch: int, costs: Costs) -> float:
    """Return the measured seconds of a step of a method on a batch, past its first pass."""
    rows = batch / rate
    counts: Mapping[str, float] = {
        "steps": 1,
        "trained": batch,
        "scored": rows,
        "scorings": form != "step",
        "decided": rows if rate < 1 else 0,
    }
    return seconds_of(form, counts, costs, 0)


def speed_up(form: str, rate: float, ratio: float, batch: int, costs: Costs) -> float:
    """Return the speed-up by measured costs at a ratio R of steps."""
    return ratio * step_cost("step", 1.0, batch, costs) / step_cost(form, rate, batch, costs)


def smallest_row(rate: float, ratio: float, costs: Costs, wanted: float = WANTED) -> float:
    """Return the seconds that a plain step on a row must take for cached scores to be worth it.

    From then on the decision, which does not grow with the model, is a small enough part of it;
    infinite if R is too small at any size.
    """
    spare = ratio / wanted - 1
    return costs["recall"].row / rate / spare if spare > 0 else float("inf")
