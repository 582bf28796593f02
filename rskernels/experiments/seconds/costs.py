"""What steps and scores cost, timed part by part in turn, and what a run then comes to."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from rskernels.envelope import Envelope
from rskernels.experiments.seconds.data import CLASSES
from rskernels.experiments.seconds.kept import KeptForward
from rskernels.experiments.seconds.network import Network, parameters_of
from rskernels.ops import bernoulli
from rskernels.rsft.rules import RULES, State

CANDIDATES = 3
"""Rows that are scored for a row that is used, where the parts are timed."""
POOL = 4096
"""Rows that a cached decision is timed on."""


Context = Callable[[], AbstractContextManager[Any]]


class Rounds(NamedTuple):
    """How often each part is timed."""

    number: int
    seconds: float
    """After which no further round begins."""


class Cost(NamedTuple):
    """Seconds of a pass over n rows: ``fixed + row · n``."""

    fixed: float
    row: float

    def of(self, passes: float, rows: float) -> float:
        """Return the seconds of passes over rows in all."""
        return self.fixed * passes + self.row * rows


Costs = Mapping[str, Cost]
"""``step``, forward, backward and update; ``score``, ``bf16`` and ``keep``, a forward pass without
autograd in float32, in bfloat16, and whose products are kept; ``resume``, a step on rows of the
latter; ``decide``, on scores just made, with M; ``recall``, the same on scores of a whole pool."""


def measure(network: Network, rounds: Rounds) -> dict[str, Any]:
    """Time the parts of a step on this thread, each at several sizes.

    Every part is timed once a round, in a new order each round, in seconds of the processor. The
    time of a part at a size is the median over rounds, its cost the least-squares line through its
    sizes.
    """
    parts = _parts(network)
    times: dict[tuple[str, int], list[float]] = {key: [] for key in parts}
    for run in parts.values():
        run()  # what the first call allocates or compiles
    shuffle = torch.Generator().manual_seed(0)
    end = time.process_time() + rounds.seconds
    for number in range(rounds.number):
        if number > 1 and time.process_time() > end:
            break
        keys = list(parts)
        for index in torch.randperm(len(keys), generator=shuffle).tolist():
            if keys[index][0] == "resume":
                parts["keep", network.batch * CANDIDATES]()
            started = time.process_time()
            parts[keys[index]]()
            times[keys[index]].append(time.process_time() - started)
    medians = {key: statistics.median(values) for key, values in times.items()}
    return {
        "parameters": parameters_of(network.make()),
        "batch": network.batch,
        "medians": [[name, size, seconds] for (name, size), seconds in medians.items()],
        "rounds": len(next(iter(times.values()))),
        "threads": torch.get_num_threads(),
    }


def _parts(network: Network) -> dict[tuple[str, int], Callable[[], None]]:
    """Return what is timed, by its name and number of rows."""
    model, batch = network.make(), network.batch
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6, fused=True)
    inputs = network.inputs(batch * CANDIDATES)
    labels = torch.randint(CLASSES, (len(inputs),))
    kept = KeptForward()
    envelope = Envelope("budget", rate=1 / CANDIDATES, half_life=1024)
    halves = Envelope("budget", rate=1 / CANDIDATES, groups=2, half_life=POOL / 2)
    logits = torch.randn(len(inputs), CLASSES)
    ratios, half = torch.randn(POOL), torch.randint(2, (POOL,))
    envelope.update(ratios)
    halves.update(ratios, half)

    def step(rows: slice | torch.Tensor, context: Context) -> None:
        with context():
            out = model(inputs[rows])
        optimizer.zero_grad()
        F.cross_entropy(out, labels[rows]).backward()
        optimizer.step()

    def forward(n: int, context: Context) -> None:
        with torch.no_grad(), context():
            model(inputs[:n])

    def resume(n: int) -> None:
        mask = torch.arange(len(inputs)) < n
        step(mask, lambda: kept.training(mask))

    def decide(n: int) -> None:
        state = State(envelope.log_M(), 0, 0)
        seen = RULES["accept"].select(logits[:n], labels[:n], ratios[:n], state)
        envelope.update(seen.log_ratio, accepted=seen.mask)

    def recall() -> None:
        log_M = halves.log_M(half)
        bernoulli(ratios, log_M, log_space=True, seed=0)
        halves.update(ratios, half)

    def bf16() -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16)

    made: dict[tuple[str, int], Callable[[], None]] = {("recall", POOL): recall}
    for n in (batch // 2, batch, 3 * batch // 2):
        made["step", n] = partial(step, slice(n), nullcontext)
        made["resume", n] = partial(resume, n)
    for n in (batch, 2 * batch, batch * CANDIDATES):
        made["score", n] = partial(forward, n, nullcontext)
        made["bf16", n] = partial(forward, n, bf16)
        made["keep", n] = partial(forward, n, kept.scoring)
        made["decide", n] = partial(decide, n)
    # What is kept last before a resumption is of all rows.
    made["keep", batch * CANDIDATES]()
    return made


def costs_of(piece: Mapping[str, Any]) -> dict[str, Cost]:
    """Return the costs of a network from what was timed: none below 0."""
    costs = {}
    for part in dict.fromkeys(name for name, *_ in piece["medians"]):
        sizes, seconds = zip(
            *((n, s) for name, n, s in piece["medians"] if name == part), strict=True
        )
        costs[part] = _line(sizes, seconds)
    return costs


def _line(sizes: Sequence[int], seconds: Sequence[float]) -> Cost:
    if len(sizes) == 1:
        return Cost(0.0, seconds[0] / sizes[0])
    row, fixed = np.polyfit(sizes, seconds, 1)
    if fixed >= 0:
        return Cost(float(fixed), float(max(row, 0.0)))
    return Cost(0.0, float(np.dot(sizes, seconds) / np.dot(sizes, sizes)))


def seconds_of(form: str, counts: Mapping[str, float], costs: Costs, pool: int) -> float:
    """Return what a run has cost so far.

    Parameters
    ----------
    form : str
        A key of ``Method.forms``.
    counts : mapping
        ``steps``, ``trained``, ``scored``, ``scorings`` and ``decided`` so far.
    costs : mapping
        Of the network.
    pool : int
        Rows of the pool: those of the first pass are trained on without a score.
    """
    steps, trained, scorings = counts["steps"], counts["trained"], counts["scorings"]
    if form == "step":
        return costs["step"].of(steps, trained) + costs["recall"].of(0, counts["decided"])
    decisions = costs["decide"].of(scorings, counts["decided"])
    if form == "kept":
        after = max(trained - pool, 0) if scorings else 0
        return (
            costs["step"].of(steps - scorings, trained - after)
            + costs["keep"].of(scorings, counts["scored"])
            + costs["resume"].of(scorings, after)
            + decisions
        )
    scores = costs["score" if form == "fresh" else form].of(scorings, counts["scored"])
    return costs["step"].of(steps, trained) + scores + decisions
