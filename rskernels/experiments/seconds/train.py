"""One training run: its accuracy, and what it has done for it."""

from __future__ import annotations

import copy
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rskernels.envelope import Envelope
from rskernels.experiments.seconds.data import Pool, make_pool
from rskernels.experiments.seconds.methods import METHODS, Batch, Run
from rskernels.experiments.seconds.network import ResidualMLP
from rskernels.rsft.rules import RULES, State, log_ratio

AVERAGED = 4
"""Steps between two updates of the weights' running mean."""
MEAN_LIFE = 8
"""Steps after which a weight's value counts half in it."""


class Training(NamedTuple):
    """What is trained, for how long, and how often it is judged."""

    width: int
    largest: int
    imbalance: float
    noise: float
    test: int
    batch: int
    lr: float
    steps: int
    every: int
    """Steps from one judgement to the next."""


def train(method: str, training: Training, seed: int) -> dict[str, Any]:
    """Train by a method, and return the course of accuracy and of what was counted.

    The accuracy is that of a running mean of the weights, as it is steadier from step to step. It
    is taken alike for every method and has no part in the training or its costs.

    Returns
    -------
    dict
        ``accuracy``, and ``trained``, ``scored``, ``scorings`` and ``decided`` so far: a number for
        every judgement, the first before any step.
    """
    pool = make_pool(training.largest, training.imbalance, training.noise, training.test, seed)
    model = ResidualMLP(training.width, seed)
    mean = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.lr, fused=True)
    run = Run(pool, model, seed, torch.Generator().manual_seed(seed), training.batch)
    names = ("accuracy", "trained", "scored", "scorings", "decided")
    course: dict[str, Any] = {name: [] for name in names}
    batches = METHODS[method].batches(run)
    trained, started = 0, time.process_time()
    for step in range(training.steps + 1):
        if step % training.every == 0:
            values = (_accuracy(mean, pool), trained, run.scored, run.scorings, run.decided)
            for name, value in zip(names, values, strict=True):
                course[name].append(value)
        if step < training.steps:
            trained += take_step(run, next(batches), optimizer)
        if step % AVERAGED == 0:
            _average(mean, model, step)
    return {**course, "rows": run.rows, "cpu_seconds": time.process_time() - started}


def compare_scores(training: Training, seed: int) -> dict[str, int]:
    """Count decisions that differ where scores are made in bfloat16.

    A model that plain training has half trained decides one half of its pool twice, by M of
    ``budget:0.3`` from the other half and by the same uniforms.

    Returns
    -------
    dict
        ``asked``, ``accepted`` and ``differing``, rows.
    """
    pool = make_pool(training.largest, training.imbalance, training.noise, training.test, seed)
    model = ResidualMLP(training.width, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.lr, fused=True)
    run = Run(pool, model, seed, torch.Generator().manual_seed(seed), training.batch)
    batches = METHODS["plain"].batches(run)
    for _ in range(training.steps // 2):
        take_step(run, next(batches), optimizer)
    learnt, asked = torch.randperm(run.rows, generator=run.generator).chunk(2)
    envelope = Envelope("budget", rate=0.3)
    with torch.no_grad():
        envelope.update(log_ratio(model(pool.inputs), pool.labels, pool.log_balance)[learnt])
    masks = []
    for is_bf16 in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            logits = model(pool.inputs[asked]).float()
        state = State(envelope.log_M(), seed, 0)
        balance = pool.log_balance[asked]
        masks.append(RULES["accept"].select(logits, pool.labels[asked], balance, state).mask)
    differing = int((masks[0] != masks[1]).sum())
    return {"asked": len(asked), "accepted": int(masks[0].sum()), "differing": differing}


def take_step(run: Run, batch: Batch, optimizer: torch.optim.Optimizer) -> int:
    """Take a gradient step on a batch, keep its losses, and return how many rows it had."""
    rows, labels = batch.rows, run.pool.labels[batch.rows]
    logits = run.model(run.pool.inputs[rows])
    losses = F.cross_entropy(logits, labels, reduction="none")
    run.losses[rows] = losses.detach()
    weights = batch.weights
    if batch.rule is not None:
        state = State(torch.zeros(()), run.seed, 0)
        weights = (
            RULES[batch.rule]
            .select(logits.detach(), labels, run.pool.log_balance[rows], state)
            .weights
        )
    loss = losses.mean() if weights is None else (weights * losses).sum() / weights.sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return len(rows)


def _accuracy(model: nn.Module, pool: Pool) -> float:
    """Return the accuracy on the test set, which is even over the classes."""
    with torch.no_grad():
        logits: Tensor = model(pool.test_inputs)
    return float((logits.argmax(1) == pool.test_labels).float().mean())


@torch.no_grad()
def _average(mean: nn.Module, model: nn.Module, step: int) -> None:
    share = max(1 - 0.5 ** (AVERAGED / MEAN_LIFE), 1 / (step / AVERAGED + 1))
    for kept, new in zip(mean.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, share)
