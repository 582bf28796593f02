"""Training on answers that were accepted: cross entropy of their tokens, prompts left out.

A step takes a batch of answers, a micro-batch at a time; processes share its micro-batches. The
loss is a mean over the whole step, so that the size of a micro-batch and the number of processes
change it only by rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rskernels.language.config import LanguageConfig
from rskernels.language.parallel import (
    Ranks,
    accumulating,
    as_number,
    is_sharded,
    whole_model,
    wrapped,
)
from rskernels.language.policy import Policy
from rskernels.law.philox import row_uniforms_64
from rskernels.law.streams import Stream
from rskernels.rsft.errors import TrainingError


class Example(NamedTuple):
    """An answer that is trained on."""

    prompt: list[int]
    answer: list[int]
    """Tokens, with the one that ends it."""
    weight: float
    id: int
    """Determines its place in the random order of a pass."""


class Step(NamedTuple):
    """What a step came to."""

    loss: float
    norm: float
    """Of the gradient, before it is cut."""
    lr: float
    answers: int
    tokens: int
    """How many tokens were trained on."""
    seconds: float


class Trainer:
    """Takes steps on a policy.

    Parameters
    ----------
    policy : Policy
        Trained in place.
    config : LanguageConfig
        How.
    ranks : Ranks
        Who shares the work.
    """

    def __init__(self, policy: Policy, config: LanguageConfig, ranks: Ranks) -> None:
        self.policy, self.config, self.ranks = policy, config, ranks
        self.outline = policy
        if ranks.count > 1 and config.parallel == "fsdp":
            # Filled where a whole model is needed, to generate and to save.
            self.outline = policy.outline()
        self.module = wrapped(policy, config.parallel, ranks)
        self.optimizer = self.new_optimizer()
        self._has_dropout = any(
            isinstance(part, nn.Dropout) and part.p > 0 for part in self.module.modules()
        ) or _says_dropout(policy.causal.config)

    def new_optimizer(self) -> torch.optim.Optimizer:
        """Return an optimiser that has seen nothing."""
        config = self.config
        trained = [part for part in self.module.parameters() if part.requires_grad]
        return torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)

    def whole(self) -> Policy:
        """Return the policy to generate with; every process must call this.

        Of a sharded model it is a copy, gathered on every process, which must have room for the
        model, though not for gradients and optimiser. The copy is without FSDP, under which all
        processes would have to run the same passes, while each generates as much as its part needs.
        """
        if not is_sharded(self.module):
            return self.policy
        policy = self.outline.outline()
        policy.fill(whole_model(self.module, on_first=False))
        return policy

    def run(
        self,
        examples: Sequence[Example],
        number: int,
        start: int,
        show: Callable[[int, int, Step], None],
    ) -> None:
        """Train on the examples of a round.

        Parameters
        ----------
        examples : sequence of Example
            All of them, on every process.
        number : int
            The round.
        start : int
            Steps that are done.
        show : callable
            Called after each step with how many are done, of how many, and what it came to.
        """
        steps = steps_of(examples, self.config)
        for at in range(start, len(steps)):
            lr = self.config.lr
            if self.config.schedule == "linear":
                lr *= 1.0 - at / len(steps)
            show(at + 1, len(steps), self.step(steps[at], (number, at), lr))

    def step(
        self,
        micro: list[list[Example]],
        place: tuple[int, int],
        lr: float,
        *,
        total: float | None = None,
    ) -> Step:
        """Take one step on micro-batches, of which this process runs its own.

        Parameters
        ----------
        micro : list of list of Example
            All micro-batches of the step.
        place : (int, int)
            Round and step in it, for the draws of dropout.
        lr : float
            Learning rate.
        total : float, optional
            What the weighted sum of the losses is divided by. None: the sum of the weights, of all
            tokens or answers, which weights of both signs need not have.
        """
        started = time.perf_counter()
        self.module.train()
        examples = [one for part in micro for one in part]
        of_tokens = self.config.mean == "tokens"
        if total is None:
            total = sum(one.weight * (len(one.answer) if of_tokens else 1) for one in examples)
        count = self.ranks.count
        turns = -(-len(micro) // count)
        value = 0.0
        self.optimizer.zero_grad()
        for turn in range(turns):
            at = turn * count + self.ranks.rank
            # A process without a micro-batch runs the first with weight 0: the others wait for it.
            scale = 1.0 / total if at < len(micro) else 0.0
            at = at if at < len(micro) else 0
            with accumulating(self.module, is_last=turn + 1 == turns):
                with torch.random.fork_rng(devices=self._cuda(), enabled=self._has_dropout):
                    if self._has_dropout:
                        torch.manual_seed(hash((self.config.seed, *place, at)) % (1 << 63))
                    loss = self._loss(micro[at], scale)
                # Gradients are averaged over processes.
                (loss * count).backward()
            value += float(loss.detach())
        value = self.ranks.total(value, self.policy.device)
        if not math.isfinite(value):
            raise TrainingError(
                f"round {place[0]}, step {place[1] + 1}: the loss is {value}; a smaller lr than "
                f"{self.config.lr} may help"
            )
        trained = [part for part in self.module.parameters() if part.requires_grad]
        norm = as_number(nn.utils.clip_grad_norm_(trained, self.config.clip))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        tokens = sum(len(one.answer) for one in examples)
        seconds = time.perf_counter() - started
        return Step(value, norm, lr, len(examples), tokens, seconds)

    def _loss(self, examples: list[Example], scale: float) -> Tensor:
        """Return this micro-batch's part of the loss of its step."""
        device = self.policy.device
        ids, mask, at, targets, weights = laid_out(examples, self.policy.pad)
        log_probs = self.module(ids.to(device), mask.to(device), at.to(device), targets.to(device))
        # In float64, so that how a step is cut hardly changes its sum.
        loss: Tensor = -(weights.to(device) * log_probs.double()).sum() * scale
        return loss

    def _cuda(self) -> list[Any]:
        return [self.policy.device] if self.policy.device.type == "cuda" else []


def steps_of(examples: Sequence[Example], config: LanguageConfig) -> list[list[list[Example]]]:
    """Return the micro-batches of each step of a round: passes in orders that the seed decides.

    Examples of weight 0 are left out. Within a step those of similar length come together.
    """
    held = [one for one in examples if one.weight > 0.0]
    ids = torch.tensor([one.id for one in held], dtype=torch.int64)
    steps = []
    for epoch in range(config.epochs):
        u = row_uniforms_64(ids, epoch, config.seed, Stream.ORDER)
        order = u.argsort(stable=True).tolist()
        for start in range(0, len(order), config.batch_size):
            step = [held[at] for at in order[start : start + config.batch_size]]
            step.sort(key=lambda one: (len(one.prompt) + len(one.answer), one.id))
            cuts = range(0, len(step), config.micro_batch)
            steps.append([step[cut : cut + config.micro_batch] for cut in cuts])
    return steps


def laid_out(examples: list[Example], pad: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return ids and mask ``[batch, length]``, and places, targets and weights of the answers."""
    texts = [one.prompt + one.answer for one in examples]
    # The last token has nothing to foretell.
    longest = max(map(len, texts)) - 1
    ids = torch.full((len(texts), longest), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    at: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    for row, (text, one) in enumerate(zip(texts, examples, strict=True)):
        ids[row, : len(text) - 1] = torch.tensor(text[:-1])
        mask[row, : len(text) - 1] = 1
        first = row * longest + len(one.prompt) - 1
        at += range(first, first + len(one.answer))
        targets += one.answer
        weights += [one.weight] * len(one.answer)
    return ids, mask, torch.tensor(at), torch.tensor(targets), torch.tensor(weights).double()


def _says_dropout(config: Any) -> bool:
    """Say whether a model's configuration has a dropout above 0: not all have modules for it."""
    values = config.to_dict() if hasattr(config, "to_dict") else {}
    return any("drop" in name and isinstance(v, float) and v > 0 for name, v in values.items())
