"""What each method trains on: batches of one size, so that they differ in their rows alone.

Every method takes gradient steps on about as many rows. One that rejects reads more rows for that,
or decides by what is known of them from before. All that select by a row's loss begin with a pass
over the pool in which every row is used: its losses are the first scores, and a pilot for M.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rskernels.envelope import Envelope
from rskernels.experiments.seconds.data import Pool
from rskernels.ops import bernoulli
from rskernels.rsft.data.resample import oversample
from rskernels.rsft.rules import RULES, State

BATCH = 128
"""Rows of a gradient step."""
HALF_LIFE = 1024
"""Rows after which an envelope that reads fresh scores has forgotten half."""
SELECTIVITY = 2.0
"""The β of selective backpropagation: a share of 1/(β + 1) is used."""
HISTORY = 1024
"""Losses that its percentiles are taken of."""
FLOOR = 0.1
"""Of the mean loss, added to each where rows are drawn by it: else a loss of 0 is never drawn."""


class Batch(NamedTuple):
    """Rows of a gradient step."""

    rows: Tensor
    """int64 ``[n]``."""
    weights: Tensor | None = None
    """float32 ``[n]``, of the losses; None is the plain mean."""
    rule: str | None = None
    """One of ``RULES`` that weighs by the logits of the step itself."""


@dataclass
class Run:
    """What a method may look at."""

    pool: Pool
    model: nn.Module
    seed: int
    generator: torch.Generator
    batch: int = BATCH
    losses: Tensor = field(init=False)
    """float32 ``[N]``, of each row as the last step on it had it."""
    scored: int = 0
    """Rows scored by a forward pass apart."""
    scorings: int = 0
    """Such passes."""
    decided: int = 0
    """Rows decided on."""

    def __post_init__(self) -> None:
        self.losses = torch.full((len(self.pool.labels),), math.nan)

    @property
    def rows(self) -> int:
        """Rows of the pool."""
        return len(self.pool.labels)

    def log_ratio(self, rows: Tensor | None = None) -> Tensor:
        """Return log w = log p̂ − log q of rows, by their last losses −log q."""
        everything = self.pool.log_balance + self.losses
        return everything if rows is None else everything[rows]

    def score(self, rows: Tensor) -> Tensor:
        """Return the logits of rows, float32 ``[n, C]``, by a forward pass that is counted."""
        self.scored += len(rows)
        self.scorings += 1
        with torch.no_grad():
            logits: Tensor = self.model(self.pool.inputs[rows])
        return logits

    def parts(self, rows: Tensor) -> Iterator[Tensor]:
        """Return rows, shuffled, in even parts of nearly the size of a batch."""
        order = torch.randperm(len(rows), generator=self.generator)
        yield from rows[order].tensor_split(max(1, round(len(rows) / self.batch)))

    def stream(self, size: int) -> Iterator[Tensor]:
        """Return batches of candidates without end, each row once a pass."""
        rest = torch.empty(0, dtype=torch.int64)
        while True:
            while len(rest) < size:
                rest = torch.cat([rest, torch.randperm(self.rows, generator=self.generator)])
            yield rest[:size]
            rest = rest[size:]


Batches = Iterator[Batch]


def every_row(run: Run) -> Batches:
    """Use every row once: a pass over the pool."""
    for rows in run.parts(torch.arange(run.rows)):
        yield Batch(rows)


def plain(run: Run) -> Batches:
    """Use every row, pass after pass."""
    while True:
        yield from every_row(run)


def weighed(rule: str, run: Run) -> Batches:
    """Use every row, weighed by a rule of the library."""
    for batch in plain(run):
        yield batch._replace(rule=rule)


def accept_fresh(rate: float, run: Run) -> Batches:
    """Score candidates, accept by `accept` with a budget, and use what is accepted."""
    envelope = Envelope("budget", rate=rate, half_life=HALF_LIFE)
    for batch in every_row(run):
        yield batch
        envelope.update(run.log_ratio(batch.rows))
    labels, log_balance = run.pool.labels, run.pool.log_balance
    for rows in run.stream(round(run.batch / rate)):
        logits = run.score(rows)
        state = State(envelope.log_M(), run.seed, run.decided)
        seen = RULES["accept"].select(logits, labels[rows], log_balance[rows], state)
        run.decided += len(rows)
        envelope.update(seen.log_ratio, accepted=seen.mask)
        if seen.mask.any():
            yield Batch(rows[seen.mask])


def accept_cached(rate: float, run: Run, *, is_weighed_back: bool = False) -> Batches:
    """Decide a whole pass by the losses that rows had when they were last used.

    A row that is rejected keeps its score. It is asked again every pass, with a chance of at least
    p̂/M since q ≤ 1, so that no score stays old for ever. M of either half of the pool is learnt
    from the other half: never from the rows that it decides.
    """
    half = torch.randint(2, (run.rows,), generator=run.generator)
    envelope = Envelope("budget", rate=rate, groups=2, half_life=run.rows / 2)
    yield from every_row(run)
    envelope.update(run.log_ratio(), 1 - half)
    while True:
        log_ratio, log_M = run.log_ratio(), envelope.log_M(half)
        mask = bernoulli(
            log_ratio, log_M, log_space=True, seed=run.seed, row_offset=run.decided
        ).mask
        run.decided += run.rows
        envelope.update(log_ratio, 1 - half)
        # One over the chance of acceptance: then the weighted law is that of all rows.
        weights = (log_M - log_ratio).clamp(min=0).exp().float()
        for rows in run.parts(mask.nonzero()[:, 0]):
            yield Batch(rows, weights[rows] if is_weighed_back else None)


def selective_fresh(run: Run) -> Batches:
    """Use rows by the percentile of their loss, to the β.

    Jiang et al., "Accelerating deep learning by focusing on the biggest losers" (2019), but that a
    batch is what comes of enough candidates, rather than the first so many that are chosen.
    """
    history = torch.empty(0)
    for batch in every_row(run):
        yield batch
        history = torch.cat([history, run.losses[batch.rows]])[-HISTORY:]
    labels = run.pool.labels
    for rows in run.stream(round(run.batch * (SELECTIVITY + 1))):
        losses = F.cross_entropy(run.score(rows), labels[rows], reduction="none")
        history = torch.cat([history, losses])[-HISTORY:]
        mask = _by_percentile(losses, history, run)
        run.decided += len(rows)
        if mask.any():
            yield Batch(rows[mask])


def selective_cached(run: Run) -> Batches:
    """Use the same rule on the losses that rows had when they were last used."""
    yield from every_row(run)
    while True:
        mask = _by_percentile(run.losses, run.losses, run)
        run.decided += run.rows
        for rows in run.parts(mask.nonzero()[:, 0]):
            yield Batch(rows)


def _by_percentile(losses: Tensor, history: Tensor, run: Run) -> Tensor:
    below = torch.searchsorted(history.sort().values, losses, right=True)
    chance = (below / len(history)) ** SELECTIVITY
    return torch.rand(len(losses), generator=run.generator) < chance


def oversample_classes(run: Run) -> Batches:
    """Draw rows with replacement so that classes come equally often."""
    labels = run.pool.labels
    while True:
        for rows in run.parts(oversample(labels, run.generator)):
            yield Batch(rows)


def oversample_losses(run: Run) -> Batches:
    """Draw rows with replacement in proportion to the loss when they were last used."""
    yield from every_row(run)
    while True:
        weights = run.losses + FLOOR * run.losses.mean()
        rows = torch.multinomial(weights, run.rows, replacement=True, generator=run.generator)
        for part in run.parts(rows):
            yield Batch(part)


class Method(NamedTuple):
    """A way to choose and weigh rows."""

    batches: Callable[[Run], Batches]
    forms: dict[str, str]
    """What it is called, by the form whose costs it has: ``"step"`` has no scores, or those of
    steps; ``"fresh"``, ``"bf16"`` and ``"kept"`` are those of `costs`."""
    law: str
    """What a row's use is in proportion to; p̂ evens out the classes, q is the model's probability
    of the label."""


BUDGETS = (0.3, 0.5)
ACCEPTED = "min(1, p̂/(M q))"


def _scored(name: str) -> dict[str, str]:
    """Return the forms of a method whose scores are fresh: its decisions are those of any."""
    named = {"fresh": "fresh", "bf16": "fresh in bf16", "kept": "forward kept"}
    return {form: f"{name}, {how}" for form, how in named.items()}


def _accepting(rate: float) -> dict[str, Method]:
    return {
        f"accept-{rate}-cached": Method(
            partial(accept_cached, rate), {"step": f"accept {rate}, cached"}, f"{ACCEPTED}, q older"
        ),
        f"accept-{rate}-fresh": Method(
            partial(accept_fresh, rate), _scored(f"accept {rate}"), ACCEPTED
        ),
    }


METHODS: dict[str, Method] = {
    "plain": Method(plain, {"step": "plain"}, "1"),
    **_accepting(BUDGETS[0]),
    **_accepting(BUDGETS[1]),
    "accept-0.3-back": Method(
        partial(accept_cached, BUDGETS[0], is_weighed_back=True),
        {"step": "accept 0.3, cached, weighed back"},
        "1, by weights",
    ),
    "selective-cached": Method(
        selective_cached,
        {"step": "selective backprop, cached"},
        "percentile of the loss, squared, older",
    ),
    "selective-fresh": Method(
        selective_fresh, _scored("selective backprop"), "percentile of the loss, squared"
    ),
    "oversample-classes": Method(oversample_classes, {"step": "oversampling of classes"}, "p̂"),
    "oversample-losses": Method(
        oversample_losses, {"step": "oversampling by loss, cached"}, "loss + 0.1 of its mean, older"
    ),
    "weights-importance": Method(
        partial(weighed, "importance"), {"step": "weights p̂/q"}, "p̂/q, by weights"
    ),
}
