"""One run of rejection sampling: what has been drawn, decided, accepted and taken back."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rskernels.ops import bernoulli_mask
from rskernels.sampling.bound import Bound
from rskernels.sampling.draws import SAMPLE_STREAM, Batch, Draws
from rskernels.sampling.result import (
    Bar,
    Limits,
    RejectionError,
    RejectionReport,
    RejectionResult,
    failure,
)

FIRST_BATCH = 1 << 10  # at most, where the size of a draw is unknown or few are needed
GROWTH = 16  # of one batch to the next, until the acceptance is known
LEAST_BATCH = 64
# Draws of a batch whose temporaries stay in a core's cache, or keep a GPU busy, and its numbers.
MOST_DRAWS = {"cpu": 1 << 17, "cuda": 1 << 22}
MOST_NUMBERS = {"cpu": 1 << 22, "cuda": 1 << 26}


class _Chunk(NamedTuple):
    """Acceptances among the proposals of ids ``row`` to ``row + length - 1``, of one M."""

    positions: Tensor  # int64 [accepted], from row
    log_ratio: Tensor  # [accepted]
    row: int
    length: int


class Run:
    """One call: batch by batch until there are enough."""

    def __init__(
        self, draws: Draws, bound: Bound, limits: Limits, num_samples: int, key: int
    ) -> None:
        self.draws, self.bound, self.limits, self.key = draws, bound, limits, key
        self.num_samples = num_samples
        self.chunks: list[_Chunk] = []  # what thinning needs, and nothing else
        self.accepted = self.decided = self.thinned = self.pilot = self.drawn = 0
        self.most = FIRST_BATCH if draws.numbers is None else self._most("cpu", draws.numbers)
        # [room, ...], of which ``accepted`` are filled in.
        self.samples: Tensor | None = None
        self.log_weights: Tensor | None = None
        self.origin = 0.0  # what weights are kept relative to: their logarithms may be large

    def learn(self, size: int) -> str | None:
        """Draw pilots while there is no M; return the limit if one is reached before."""
        while not self.bound.has_M:
            stopped = self._learn(size)
            if stopped is not None:
                return stopped
            size = min(2 * size, self.most)
        return None

    def _learn(self, size: int) -> str | None:
        """Draw so many pilots, of large draws a few at a time; return the limit if one is met."""
        end = self.pilot + size
        while self.pilot < end:
            used, without_M = self.pilot + self.decided, 0 if self.bound.has_M else self.pilot
            stopped = self.limits.reached(used, without_M, self.accepted)
            if stopped is not None:
                return stopped
            left = end - self.pilot
            # The size of a pair's draws is unknown before the first.
            is_known = self.draws.numbers is not None or self.drawn > 0
            batch = self._draw(min(left, self.most) if is_known else left, used)
            self.bound.learn(batch.log_ratio)
            self.pilot += len(batch.log_ratio)
            self.limits.warn_if_slow(self.accepted, self.decided, self.bound.log_M(), callers=5)
        return None

    def sample(self, pilot: int, batch_size: int | None, bar: Bar) -> str:
        """Accept until there are enough; return why it stopped."""
        # Of many draws no more than are needed: all may be accepted.
        most = max(FIRST_BATCH, self.num_samples)
        while self.accepted < self.num_samples:
            # A policy may lose its M: a quantile falls to a ratio of 0.
            stopped = self.learn(pilot) or self.limits.reached(
                self.pilot + self.decided, self.decided, self.accepted
            )
            if stopped is not None:
                return stopped
            size = batch_size or self._next_size(most)
            batch = self._draw(size, self.pilot + self.decided)
            samples, log_ratio = batch
            while len(log_ratio) and self.accepted < self.num_samples:
                taken = self._decide(samples, log_ratio)
                samples, log_ratio = samples[taken:], log_ratio[taken:]
            log_M = self.bound.log_M()
            bar.show(self.accepted, self.decided, log_M)
            self.limits.warn_if_slow(self.accepted, self.decided, log_M, callers=3)
            most = size * GROWTH
        return "complete"

    def result(self, stopped: str, return_partial: bool) -> RejectionResult:
        """Put together what was accepted, or raise RejectionError."""
        report = RejectionReport(
            stopped,
            self.bound.log_M(),
            *self.bound.tally(),
            self.thinned,
            self.pilot,
            self.drawn,
            self.limits.seconds,
            self.bound.envelope,
        )
        if stopped != "complete" and not return_partial:
            limit = self.limits.say(stopped)
            raise RejectionError(
                failure(limit, self.num_samples, self.accepted, self.decided, report)
            )
        if self.samples is None or self.log_weights is None:
            self._keep_room(self._draw(1, 0))
            return self.result(stopped, return_partial)
        rate = self.accepted / self.decided if self.decided else math.nan
        log_weights = self.log_weights[: self.accepted]
        # Without an M at the end they stay relative to the first of them.
        if self.bound.weighs and self.accepted and self.bound.has_M:
            log_weights += self.origin - report.log_M
        samples = self.samples[: self.accepted]
        if self.accepted < len(self.samples):
            # The room for the others is given back.
            samples = samples.clone()
            log_weights = log_weights.clone() if self.bound.weighs else log_weights
        return RejectionResult(samples, log_weights, rate, self.decided, report)

    def _draw(self, size: int, used: int) -> Batch:
        left = self.limits.left(used)
        batch = self.draws.draw(size if left is None else min(size, left))
        self.drawn += len(batch.log_ratio)
        device = "cpu" if batch.samples.is_cpu else "cuda"
        self.most = self._most(device, batch.samples[0].numel())
        return batch

    @staticmethod
    def _most(device: str, numbers: int) -> int:
        """Return how many draws of so many numbers a batch may have."""
        return max(LEAST_BATCH, min(MOST_DRAWS[device], MOST_NUMBERS[device] // max(1, numbers)))

    def _keep_room(self, batch: Batch) -> None:
        """Make room for the draws, of the dtype, device and shape of a batch's."""
        samples, log_ratio = batch
        left = self.limits.left(0)
        room = self.num_samples if left is None else min(self.num_samples, left)
        self.samples = samples.new_empty((room, *samples.shape[1:]))
        if self.bound.weighs:
            self.log_weights = log_ratio.new_empty(room)
        else:
            # One number, however many there are.
            self.log_weights = log_ratio.new_zeros(()).expand(room)

    def _next_size(self, most: int) -> int:
        """Return a batch that will most likely do, as far as the acceptance is known."""
        needed = self.num_samples - self.accepted
        rate = (self.accepted + 1) / (self.decided + 2)
        wanted = math.ceil((needed + 4 * math.sqrt(needed)) / rate)
        return max(LEAST_BATCH, min(wanted, most, self.most))

    def _decide(self, samples: Tensor, log_ratio: Tensor) -> int:
        """Decide rows that share an M, up to the last that is needed; return how many."""
        log_M = self.bound.of_rows(log_ratio)
        count = self.bound.constant_rows(log_ratio, log_M)
        mask = self._accepts(log_ratio[:count], log_M, self.decided)
        positions = _positions(mask)
        needed = self.num_samples - self.accepted
        if len(positions) >= needed:
            positions = positions[:needed]
            count = int(positions[-1].item()) + 1
        log_ratio = log_ratio[:count]
        log_M = log_M[:count] if isinstance(log_M, Tensor) else log_M
        self.bound.meet(log_ratio, mask[:count], log_M, self.decided)
        if len(positions):
            self._keep(samples, log_ratio, positions, log_M, count)
        self.decided += count
        if self.bound.thins:
            now = self.bound.log_M()
            least = log_M.min().item() if isinstance(log_M, Tensor) else log_M
            if now > least:
                self._thin(now)
        return count

    def _keep(
        self,
        samples: Tensor,
        log_ratio: Tensor,
        positions: Tensor,
        log_M: float | Tensor,
        count: int,
    ) -> None:
        """Add acceptances among the next ``count`` proposals to those kept."""
        if self.samples is None or self.log_weights is None:
            self._keep_room(Batch(samples, log_ratio))
        assert self.samples is not None
        assert self.log_weights is not None
        room = slice(self.accepted, self.accepted + len(positions))
        torch.index_select(samples, 0, positions, out=self.samples[room])
        if self.bound.thins:
            ratios = log_ratio.index_select(0, positions)
            self.chunks.append(_Chunk(positions, ratios, self.decided, count))
        if self.bound.weighs:
            met = torch.as_tensor(log_M, dtype=torch.float64, device=log_ratio.device)
            weights = torch.maximum(log_ratio.double(), met)[positions]
            if self.accepted == 0:
                self.origin = weights[0].item()
            self.log_weights[room] = weights - self.origin
        self.accepted += len(positions)

    def _accepts(self, log_ratio: Tensor, log_M: float | Tensor, row: int) -> Tensor:
        return bernoulli_mask(
            log_ratio, log_M, log_space=True, seed=self.key, row_offset=row, stream=SAMPLE_STREAM
        )

    def _thin(self, log_M: float) -> None:
        """Take back what the uniforms of its proposals would not accept at this larger M."""
        if self.samples is None:
            return
        chunks = []
        start = end = 0
        for positions, log_ratio, row, length in self.chunks:
            # The operation decides rows of consecutive ids; those that were rejected stay so.
            rows = log_ratio.new_full((length,), -math.inf)
            rows[positions] = log_ratio
            kept = _positions(self._accepts(rows, log_M, row)[positions])
            if len(kept):
                chunks.append(_Chunk(positions[kept], log_ratio[kept], row, length))
                self.samples[end : end + len(kept)] = self.samples[start + kept]
            start, end = start + len(positions), end + len(kept)
        self.chunks = chunks
        self.thinned += self.accepted - end
        self.accepted = end


def _positions(mask: Tensor) -> Tensor:
    """Return where a mask is True, int64."""
    if mask.is_cpu:
        # Several times as fast as torch's.
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]
