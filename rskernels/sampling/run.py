"""One run of rejection sampling: what has been drawn, decided, accepted and taken back."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rskernels.law.streams import Stream
from rskernels.ops import bernoulli_mask
from rskernels.sampling.bound import Bound
from rskernels.sampling.draws import DrawSource, ScoredDraws
from rskernels.sampling.limits import Limits, SamplingCounts, warn_of_no_finite_M
from rskernels.sampling.options import SamplingOptions
from rskernels.sampling.progress import ProgressBar
from rskernels.sampling.result import RejectionError, RejectionReport, RejectionResult
from rskernels.sampling.seeding import Generators

FIRST_BATCH = 1 << 10  # at most, where the size of a draw is unknown or few are needed
GROWTH = 16  # of one batch to the next, until the acceptance is known
LEAST_BATCH = 64
# Draws of a batch whose temporaries stay in a core's cache, or keep a GPU busy, and its numbers.
MOST_DRAWS = {"cpu": 1 << 17, "cuda": 1 << 22}
MOST_NUMBERS = {"cpu": 1 << 22, "cuda": 1 << 26}


class _Acceptances(NamedTuple):
    """Those among the proposals of ids ``row`` to ``row + length - 1``, of one M."""

    positions: Tensor  # int64 [accepted], from row
    log_ratio: Tensor  # [accepted]
    row: int
    length: int


class SamplingRun:
    """One call: batch by batch until there are enough.

    Parameters
    ----------
    source : DrawSource
        Where proposals and their log ratios come from.
    bound : Bound
        The M that decides them.
    options : SamplingOptions
        How many draws, and how far to go for them.
    seed : int
        64 bits, of the acceptances.
    generators : Generators
        What the proposals are drawn from.
    """

    def __init__(
        self,
        source: DrawSource,
        bound: Bound,
        options: SamplingOptions,
        seed: int,
        generators: Generators,
    ) -> None:
        self.source, self.bound, self.options = source, bound, options
        self.seed, self.generators = seed, generators
        self.limits, self.counts = Limits(options), SamplingCounts()
        self.kept: list[_Acceptances] = []  # what thinning needs, and nothing else
        numel = source.draw_numel
        self.most = FIRST_BATCH if numel is None else _most_draws("cpu", numel)
        self.form: ScoredDraws | None = None  # an empty batch
        # [room, ...], of which ``counts.accepted`` are filled in.
        self.samples: Tensor | None = None
        self.log_weights: Tensor | None = None
        self.origin = 0.0  # what weights are kept relative to: their logarithms may be large

    def sample(self, bar: ProgressBar) -> str:
        """Accept until there are enough; return why it stopped."""
        counts, options = self.counts, self.options
        # Of many draws no more than are needed: all may be accepted.
        most = max(FIRST_BATCH, options.num_samples)
        while counts.accepted < options.num_samples:
            # A policy may lose its M: a quantile falls to a ratio of 0.
            stopped = self._learn() or self.limits.reached(
                counts.used, counts.decided, counts.accepted
            )
            if stopped is not None:
                return stopped
            size = options.batch_size or self._next_size(min(most, self._most_now()))
            batch = self._draw(size, counts.used)
            while len(batch.log_ratio) and counts.accepted < options.num_samples:
                decided = self._decide(batch)
                batch = ScoredDraws(batch.samples[decided:], batch.log_ratio[decided:])
            log_M = self.bound.log_M()
            bar.update(counts.accepted, rate=counts.rate_text(), log_M=log_M)
            self.limits.warn_if_slow(counts, log_M)
            most = size * GROWTH
        return "complete"

    def result(self, stopped: str) -> RejectionResult:
        """Put together what was accepted, or raise RejectionError."""
        counts, met = self.counts, self.bound.report()
        report = RejectionReport(
            stopped=stopped,
            log_M=self.bound.log_M(),
            max_log_ratio=met.max_log_ratio,
            violations=met.violations,
            invalid=met.invalid,
            delta=met.delta,
            pareto_k=met.pareto_k,
            is_unbounded=met.is_unbounded,
            thinned=counts.thinned,
            pilot=counts.pilot,
            drawn=counts.drawn,
            seconds=self.limits.seconds,
            envelope=self.bound.envelope,
        )
        if stopped != "complete" and not self.options.return_partial:
            raise RejectionError(self.limits.failure(counts, report))
        if report.is_unbounded and counts.accepted:
            warn_of_no_finite_M(report)
        if self.samples is None or self.log_weights is None:
            # Their form is known from the draws that were rejected; without any, one is drawn.
            self._keep_room(self.form or self._draw(1, 0))
        assert self.samples is not None
        assert self.log_weights is not None
        log_weights = self.log_weights[: counts.accepted]
        # Without an M at the end they stay relative to the first of them.
        if self.bound.weighs and counts.accepted and self.bound.has_M:
            log_weights += self.origin - report.log_M
        samples = self.samples[: counts.accepted]
        if counts.accepted < len(self.samples):
            # The room for the others is given back.
            samples = samples.clone()
            log_weights = log_weights.clone() if self.bound.weighs else log_weights
        return RejectionResult(samples, log_weights, counts.rate, counts.decided, report)

    def _learn(self) -> str | None:
        """Draw pilots while there is no M; return the limit if one is reached before."""
        size = self.options.pilot
        while not self.bound.has_M:
            stopped = self._pilot(size)
            if stopped is not None:
                return stopped
            size = min(2 * size, self.most)
        return None

    def _pilot(self, size: int) -> str | None:
        """Draw so many pilots, of large draws a few at a time; return the limit if one is met."""
        counts = self.counts
        end = counts.pilot + size
        while counts.pilot < end:
            judged = 0 if self.bound.has_M else counts.pilot
            stopped = self.limits.reached(counts.used, judged, counts.accepted)
            if stopped is not None:
                return stopped
            left = end - counts.pilot
            size = min(left, self.options.batch_size or self._most_now())
            batch = self._draw(size, counts.used)
            self.bound.learn(batch.log_ratio)
            counts.pilot += len(batch.log_ratio)
            self.limits.warn_if_slow(counts, self.bound.log_M())
        return None

    def _draw(self, size: int, used: int) -> ScoredDraws:
        left = self.limits.left(used)
        batch = self.source.draw(size if left is None else min(size, left), self.generators)
        self.counts.drawn += len(batch.log_ratio)
        self.form = ScoredDraws(batch.samples[:0], batch.log_ratio[:0])
        device = "cpu" if batch.samples.is_cpu else "cuda"
        self.most = _most_draws(device, batch.samples[0].numel())
        return batch

    def _keep_room(self, batch: ScoredDraws) -> None:
        """Make room for the draws, of the dtype, device and shape of a batch's."""
        left, room = self.limits.left(0), self.options.num_samples
        room = room if left is None else min(room, left)
        self.samples = batch.samples.new_empty((room, *batch.samples.shape[1:]))
        if self.bound.weighs:
            self.log_weights = batch.log_ratio.new_empty(room)
        else:
            # One number, however many there are.
            self.log_weights = batch.log_ratio.new_zeros(()).expand(room)

    def _most_now(self) -> int:
        """Return how many may be drawn at once."""
        if self.options.max_seconds is None:
            return self.most
        # What a draw takes is unknown: each batch takes about a quarter of the time so far. Sizes
        # that went by the clock would give other draws at every call.
        return min(self.most, 1 + self.counts.drawn // 4)

    def _next_size(self, most: int) -> int:
        """Return a batch that will most likely do, as far as the acceptance is known."""
        needed = self.options.num_samples - self.counts.accepted
        rate = (self.counts.accepted + 1) / (self.counts.decided + 2)
        likely = math.ceil((needed + 4 * math.sqrt(needed)) / rate)
        return min(max(LEAST_BATCH, likely), most)

    def _decide(self, batch: ScoredDraws) -> int:
        """Decide rows that share an M, up to the last that is needed; return how many."""
        log_ratio, counts = batch.log_ratio, self.counts
        log_M = self.bound.for_rows(log_ratio)
        count = self.bound.constant_rows(log_ratio, log_M)
        mask = self._accepts(log_ratio[:count], log_M, counts.decided)
        positions = _positions(mask)
        needed = self.options.num_samples - counts.accepted
        if len(positions) >= needed:
            positions = positions[:needed]
            count = int(positions[-1].item()) + 1
        log_ratio = log_ratio[:count]
        log_M = log_M[:count] if isinstance(log_M, Tensor) else log_M
        self.bound.update(log_ratio, mask[:count], log_M, counts.decided)
        if len(positions):
            self._keep(ScoredDraws(batch.samples, log_ratio), positions, log_M)
        counts.decided += count
        if self.bound.thins:
            log_M_now = self.bound.log_M()
            least = log_M.min().item() if isinstance(log_M, Tensor) else log_M
            if log_M_now > least:
                self._thin(log_M_now)
        return count

    def _keep(self, decided: ScoredDraws, positions: Tensor, log_M: float | Tensor) -> None:
        """Add the acceptances among the proposals just decided to those kept."""
        if self.samples is None or self.log_weights is None:
            self._keep_room(decided)
        assert self.samples is not None
        assert self.log_weights is not None
        counts, log_ratio = self.counts, decided.log_ratio
        room = slice(counts.accepted, counts.accepted + len(positions))
        torch.index_select(decided.samples, 0, positions, out=self.samples[room])
        if self.bound.thins:
            ratios = log_ratio.index_select(0, positions)
            self.kept.append(_Acceptances(positions, ratios, counts.decided, len(log_ratio)))
        if self.bound.weighs:
            decided_by = torch.as_tensor(log_M, dtype=torch.float64, device=log_ratio.device)
            weights = torch.maximum(log_ratio.double(), decided_by)[positions]
            if counts.accepted == 0:
                self.origin = weights[0].item()
            self.log_weights[room] = weights - self.origin
        counts.accepted += len(positions)

    def _accepts(self, log_ratio: Tensor, log_M: float | Tensor, row: int) -> Tensor:
        return bernoulli_mask(
            log_ratio,
            log_M,
            log_space=True,
            seed=self.seed,
            row_offset=row,
            stream=Stream.SAMPLE,
        )

    def _thin(self, log_M: float) -> None:
        """Take back what the uniforms of its proposals would not accept at this larger M."""
        if self.samples is None:
            return
        kept = []
        start = end = 0
        for positions, log_ratio, row, length in self.kept:
            # The operation decides rows of consecutive ids; those that were rejected stay so.
            rows = log_ratio.new_full((length,), -math.inf)
            rows[positions] = log_ratio
            still = _positions(self._accepts(rows, log_M, row)[positions])
            if len(still):
                kept.append(_Acceptances(positions[still], log_ratio[still], row, length))
                self.samples[end : end + len(still)] = self.samples[start + still]
            start, end = start + len(positions), end + len(still)
        self.kept = kept
        self.counts.thinned += self.counts.accepted - end
        self.counts.accepted = end


def _most_draws(device: str, numel: int) -> int:
    """Return how many draws of so many numbers a batch may have."""
    return max(LEAST_BATCH, min(MOST_DRAWS[device], MOST_NUMBERS[device] // max(1, numel)))


def _positions(mask: Tensor) -> Tensor:
    """Return where a mask is True, int64."""
    if mask.is_cpu:
        # Several times as fast as torch's.
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]
