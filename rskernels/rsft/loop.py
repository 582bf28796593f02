"""The gradient loop: score a batch, decide which samples are used, step on them, learn M from it.

`rskernels.rsft.run.train` runs it in a folder, with metrics and checkpoints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rskernels.envelope import Envelope
from rskernels.rsft.artifacts.metrics import evaluate
from rskernels.rsft.balance import Balance
from rskernels.rsft.config import LoopConfig, make_envelope
from rskernels.rsft.errors import TrainingError
from rskernels.rsft.rules import Selection, State, log_ratio
from rskernels.rsft.state import LoopState, Step, Totals
from rskernels.rsft.task import Epoch, Task

NO_ENVELOPE = "fixed:1"  # of a rule that reads no M


class ScoredBatch(NamedTuple):
    """Rows of the pool, and what the model makes of them before it is decided on them."""

    rows: Tensor
    """int64 ``[N]``."""
    inputs: Tensor
    labels: Tensor
    targets: Tensor
    """int64 ``[N]``, the column of the logits that each row is judged by."""
    log_density: Tensor
    logits: Tensor
    """``[N, K]``, without autograd where the rule rejects."""
    group: Tensor | None
    """int64 ``[N]``, of the envelope; None for one group."""


class DecidedBatch(NamedTuple):
    """What a rule selected of a batch, and by which M."""

    selection: Selection
    M: float | None
    """The largest; None for a rule that rejects nothing."""
    delta: float


class Loop:
    """The algorithm: `pilot` once, then, batch by batch, score, decide, step, learn.

    Parameters
    ----------
    task : Task
        Model, data and densities.
    config : LoopConfig
        The rule, and how it is trained.
    generator : torch.Generator
        Source of the order of the rows.
    """

    def __init__(self, task: Task, config: LoopConfig, generator: torch.Generator) -> None:
        self.task, self.config, self.rule = task, config, config.rule
        self.policy = self.rule.envelope or config.envelope or NO_ENVELOPE
        balance = Balance(task.modality, task.modalities, has_M=self.rule.balances)
        trained = [p for p in task.model.parameters() if p.requires_grad]
        self.state = LoopState(
            task.model,
            torch.optim.SGD(trained, lr=config.lr, momentum=config.momentum),
            make_envelope(
                self.policy,
                None if self.rule.envelope else config.half_life,
                default=balance.fewest(len(task.pilot)),
                groups=balance.groups,
            ),
            balance,
            generator,
            Totals(),
        )

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from what ``state.state_dict`` returned."""
        if self.config.freeze:
            self.state.envelope = Envelope("fixed", M=saved["envelope"]["M"])
        self.state.load_state_dict(saved)

    def pilot(self) -> None:
        """Learn M from the untrained model, so that the first batch does not decide its own."""
        if not self.rule.rejects or self.rule.envelope is not None:
            return
        started = time.perf_counter()
        task, state = self.task, self.state
        with torch.no_grad():
            ratios = torch.cat(
                [
                    log_ratio(
                        state.model(task.pool.inputs[rows]),
                        task.pool.labels[rows],
                        task.log_density[rows],
                    )
                    for rows in torch.split(task.pilot, self.config.batch_size)
                ]
            )
        # One update: what comes after it counts as decided with its M.
        state.envelope.update(ratios, state.balance.group(task.pilot))
        state.balance.update(task.pilot, ratios)
        if self.config.freeze:
            state.envelope = Envelope("fixed", M=float(state.envelope.M()))
        state.totals.seconds += time.perf_counter() - started

    def epoch(self, show: Callable[[Step, float], None]) -> dict[str, Any]:
        """Pass over the rows of an epoch, and return its record.

        Parameters
        ----------
        show : callable
            Called after each step with what it came to, and its part of the epoch.
        """
        epoch = self.task.order(self.state.epoch, self.state.generator)
        log_density = self.task.log_density if epoch.log_density is None else epoch.log_density
        batches = torch.split(epoch.rows, self.config.batch_size)
        steps = []
        for rows in batches:
            step = self.batch(rows, log_density)
            self.state.totals.add(step)
            show(step, 1 / len(batches))
            steps.append(step)
        self.state.epoch += 1
        return self.record(epoch, steps)

    def batch(self, rows: Tensor, log_density: Tensor) -> Step:
        """Take one step: on rows of the pool, int64 ``[N]``, by log p̂ of all of it."""
        started = time.perf_counter()
        scored = self.score(rows, log_density)
        decided = self.decide(scored)
        loss, squared_weights = self.step(scored, decided.selection)
        self.learn(scored, decided.selection)
        accepted, violations, invalid, _ = decided.selection.counts.tolist()
        return Step(
            len(rows),
            accepted,
            violations,
            invalid,
            loss=loss,
            delta=decided.delta,
            M=decided.M,
            squared_weights=squared_weights,
            seconds=time.perf_counter() - started,
        )

    def score(self, rows: Tensor, log_density: Tensor) -> ScoredBatch:
        """Gather rows of the pool, int64 ``[N]``, and run the model on them."""
        task = self.task
        inputs = task.pool.inputs[rows]
        if task.logits is None:
            # Where samples are rejected the gradient pass is of the accepted ones alone.
            with torch.set_grad_enabled(not self.rule.rejects):
                logits = self.state.model(inputs)
        else:
            logits = task.logits[rows]
        return ScoredBatch(
            rows,
            inputs,
            labels=task.pool.labels[rows],
            targets=task.targets[rows],
            log_density=log_density[rows],
            logits=logits,
            group=self.state.balance.group(rows),
        )

    def decide(self, batch: ScoredBatch) -> DecidedBatch:
        """Select samples by the rule, with the M in force before this batch."""
        state, ratios = self.state, None
        if self.rule.rejects and state.envelope.policy == "leave_one_out":
            ratios = log_ratio(batch.logits, batch.targets, batch.log_density)
        log_M = state.envelope.log_M(batch.group, log_ratio=ratios)  # [N], or one of all
        if batch.group is not None:
            log_M = log_M.maximum(state.balance.log_M(state.envelope.log_M())[batch.group])
        selection = self.rule.select(
            batch.logits.detach(),
            batch.targets,
            batch.log_density,
            State(log_M, self.config.seed, state.totals.rows),
        )
        M = float(log_M.max().exp()) if self.rule.rejects else None
        self._check(selection, float(log_M.max()), M)
        excess, mass = selection.excess.tolist()
        return DecidedBatch(selection, M, excess / mass if mass else 0.0)

    def step(self, batch: ScoredBatch, selection: Selection) -> tuple[float | None, float]:
        """Take a gradient step on what was selected.

        Returns
        -------
        (float or None, float)
            The loss, None where nothing was selected, and Σv² of the samples' shares.
        """
        keep = selection.mask
        if not keep.any():
            return None, 0.0
        is_scored_apart = self.rule.rejects or self.task.logits is not None
        logits = self.state.model(batch.inputs[keep]) if is_scored_apart else batch.logits[keep]
        weights = selection.weights[keep]
        each = F.cross_entropy(logits, batch.labels[keep], reduction="none")
        each = each.where(weights > 0, 0)  # 0 times an infinite loss is NaN
        loss = (weights * each).sum() / weights.sum()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._error(f"the loss is {value}; {self._advice}")
        self.state.optimizer.zero_grad()
        loss.backward()
        self.state.optimizer.step()
        share = weights / weights.sum()
        return value, float(share.square().sum())

    def learn(self, batch: ScoredBatch, selection: Selection) -> None:
        """Take the batch's ratios into M, after the decision: else they bias what is accepted."""
        if self.rule.rejects:
            self.state.envelope.update(selection.log_ratio, batch.group, accepted=selection.mask)
        self.state.balance.update(batch.rows, selection.log_ratio, selection.mask)

    def record(self, epoch: Epoch, steps: list[Step]) -> dict[str, Any]:
        """Score the model, and return what is written of the epoch that has ended."""
        state, totals = self.state, self.state.totals
        scores = evaluate(state.model, self.task.test, self.task.counts)
        losses = [step.loss for step in steps if step.loss is not None]
        return {
            "kind": "epoch",
            "step": totals.steps,
            "epoch": state.epoch,
            "loss": sum(losses) / len(losses) if losses else None,
            **scores._asdict(),
            "gradient_samples": totals.gradient_samples,
            "acceptance": totals.acceptance,
            "skipped_steps": totals.skipped_steps,
            "violations": totals.violations,
            "invalid": totals.invalid,
            "delta": totals.delta / totals.steps,
            "gradient_ess": totals.gradient_ess,
            "M": steps[-1].M,
            "envelope": state.envelope.report().to_dict() if self.rule.rejects else None,
            **state.balance.measures(),
            **self.task.measure(state.model),
            **epoch.measures,
            "seconds": totals.seconds,
        }

    def _check(self, selection: Selection, log_M: float, M: float | None) -> None:
        """Raise TrainingError if a batch cannot be decided."""
        if int(selection.counts[2]) == len(selection.mask):
            raise self._error(f"no row of the logits is finite; {self._advice}")
        if self.rule.rejects and math.isnan(log_M):
            raise self._error(
                f"the envelope {self.policy!r} has seen too few rows to know an M for all of "
                "these; another policy needs fewer"
            )
        if not all(map(math.isfinite, (M or 0.0, *selection.excess.tolist()))):
            raise self._error(
                f"training diverged: M, exp({log_M:.4g}), or a p̂/q of the batch is too large for a "
                f"float; {self._advice}"
            )

    @property
    def _advice(self) -> str:
        return f"a smaller lr than {self.config.lr} may help"

    def _error(self, text: str) -> TrainingError:
        return TrainingError(f"step {self.state.totals.steps + 1}: {text}")
