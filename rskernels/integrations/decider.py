"""Decisions about rollouts by real draws: rules applied, ids counted, M learnt in time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels.envelope import Envelope
from rskernels.integrations.metrics import NAMES, DecisionMetrics, decision_metrics
from rskernels.integrations.rules import PREFIX, SEQUENCE, Rule
from rskernels.law.numbers import ACCEPTED, INVALID, VIOLATIONS
from rskernels.law.seeds import check_seed
from rskernels.ops import Acceptance, accept_prefix, accept_sequences, bernoulli
from rskernels.ops.sequences import Tokens

# A token's id is its sequence's, then its place: 15 bits of rank, 28 of sequences, 20 of tokens.
TOKEN_BITS, COUNT_BITS, RANK_BITS = 20, 28, 15

METRICS = (*NAMES, "tokens_kept", "pilot")
"""Names of a decision's metrics. ``tokens_kept`` is the share of the tokens given that are kept,
``pilot`` the share of the sequences that were only learnt from."""

SHARES = (
    "accepted", "valid", "violations", "invalid", "excess",
    "log_M", "has_M", "tokens", "tokens_kept", "pilot",
)  # fmt: skip
"""Numerators and denominators that frameworks may average over batches of decisions, see
``shares``."""


class Decision(NamedTuple):
    """What was decided about a batch of rollouts, all on its device."""

    token_mask: Any
    """bool, in the layout given: the tokens that are kept."""
    mask: Tensor
    """bool ``[B]``: the sequences of which at least one token is kept."""
    log_ratio: Tensor
    """float64, the log ratio of each row that was decided, a sequence ``[B]`` or a token
    ``[tokens]``; NaN where invalid or outside of the mask."""
    accepted: Tensor
    """bool, of the shape of ``log_ratio``: which were accepted."""
    log_M: Tensor
    """float64 ``[]``, by which rows were decided; +inf where there was none: none passed then."""
    counts: Tensor
    """int64 ``[4]``: rows that were accepted, violated M, were invalid, were outside."""
    excess: Tensor
    """float64 ``[2]``: sums of (w/M - 1)+ and w/M over valid rows."""
    metrics: DecisionMetrics
    """With the names ``METRICS``."""
    tokens: Tensor
    """int64 ``[]``: how many tokens were given."""


class _Part(NamedTuple):
    """What was decided about neighbouring sequences."""

    token_masks: list[Tensor]
    log_ratio: Tensor
    accepted: Tensor
    outside: Tensor
    counts: Tensor
    excess: Tensor


class Decider:
    """Decides rollouts by a rule, counts their ids and learns M from them.

    A decision is a function of (seed, id of the sequence, its tokens, M), so two sequences must not
    share an id. Where a framework has ids, give them. Else they are counted here, in a range of
    this rank's own; with an M that is given, it then makes no difference how a batch is cut into
    micro-batches. Ranks that hold the same sequences, as in tensor or context parallelism, need the
    same ``rank``.

    Where M is learnt, the first half of the first batch is a pilot: it is learnt from and rejected.
    From then on a batch is decided by what was learnt before it. Where that has no finite M, as the
    policy "tail" may say of heavy tails, M is +inf: nothing is accepted, and ``log_M`` says so.

    Draws use ``draw_seed``, which follows from ``seed``, the rule and ``place``, so that two rules
    decide independently of each other.

    Parameters
    ----------
    rule : str or Rule
        As ``Rule.parse`` reads it.
    seed : int
        Of all decisions. Give another one when a run is resumed, or ``load_state_dict``.
    rank : int
        In ``[0, 32768)``: which data-parallel rank this is.
    place : str
        A name for where in a run it decides, if a rule decides the same sequences twice.
    """

    def __init__(self, rule: str | Rule, *, seed: int = 0, rank: int = 0, place: str = "") -> None:
        self.rule = rule if isinstance(rule, Rule) else Rule.parse(rule)
        self.seed, self.place = check_seed(seed), place
        text = f"{self.seed}/{self.rule.name}/{self.rule.policy}/{place}".encode()
        digest = hashlib.blake2b(text, digest_size=8).digest()
        self.draw_seed = int.from_bytes(digest, "little", signed=True)
        if not 0 <= rank < 1 << RANK_BITS:
            raise ValueError(f"rank must be in [0, {1 << RANK_BITS}), got {rank}")
        self.rank = rank
        self.count = 0
        self.has_learnt = self.rule.is_fixed
        self.envelope = Envelope.parse(self.rule.policy)

    def decide(self, log_ratio: Tokens, mask: Tokens, ids: Sequence[int] | None = None) -> Decision:
        """Decide B sequences, then learn from them.

        Parameters
        ----------
        log_ratio : Tensor or sequence of Tensor
            log p - log q of each token: padded ``[B, T]``, or a list of B tensors ``[T_b]``.
        mask : Tensor or sequence of Tensor
            Which are tokens of the response, in the same layout: bool, or numbers that are not 0.
        ids : sequence of int, optional
            One of each sequence, in ``[0, 2**43)``. None: counted.

        Raises
        ------
        TypeError, ValueError
            As ``accept_sequences``, and for ids that are none.
        """
        size = len(log_ratio)
        log_ratio, flags = _checked(log_ratio, mask)
        first = self._ids(size, ids)
        if size == 0:
            return _nothing(flags)
        cut = 0 if self.has_learnt else size - size // 2
        parts = []
        for begin, end in ((0, cut), (cut, size)):
            if begin == end:
                continue
            log_M = self._log_M(log_ratio[begin].device)
            part = self._part(log_ratio[begin:end], flags[begin:end], first[begin:end], log_M)
            self.envelope.update(part.log_ratio, accepted=part.accepted, ignored=part.outside)
            parts.append(part)
        self.has_learnt = True
        if ids is None:
            self.count += size
        return _joined(parts, log_M, flags, cut / size)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on as if it had not stopped."""
        return {
            "count": self.count,
            "has_learnt": self.has_learnt,
            "envelope": self.envelope.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
        self.envelope.load_state_dict(state["envelope"])
        self.count, self.has_learnt = state["count"], state["has_learnt"]

    def _ids(self, size: int, ids: Sequence[int] | None) -> list[int]:
        if ids is None:
            if self.count + size > 1 << COUNT_BITS:
                raise ValueError(f"a rank decides at most 2**{COUNT_BITS} sequences of a seed")
            start = (self.rank << COUNT_BITS) + self.count
            return list(range(start, start + size))
        numbers = [int(number) for number in ids]
        if len(numbers) != size:
            raise ValueError(f"ids must be one a sequence, {size}, got {len(numbers)}")
        for number in numbers:
            if not 0 <= number < 1 << (RANK_BITS + COUNT_BITS):
                raise ValueError(f"an id must be in [0, 2**{RANK_BITS + COUNT_BITS}), got {number}")
        if len(set(numbers)) < size:
            twice = next(number for number in numbers if numbers.count(number) > 1)
            raise ValueError(f"ids must differ, or draws are shared; got {twice} twice")
        return numbers

    def _log_M(self, device: torch.device | None) -> Tensor:
        log_M = self.envelope.known_log_M(device=device)
        # It is NaN before anything was learnt; and an M of 0 would make every row invalid.
        return torch.where(log_M > -math.inf, log_M, math.inf)

    def _part(self, log_ratio: Any, mask: Any, ids: list[int], log_M: Tensor) -> _Part:
        if self.rule.unit == SEQUENCE:
            return self._sequences(log_ratio, mask, ids, log_M)
        return self._tokens(log_ratio, mask, ids, log_M)

    def _sequences(self, log_ratio: Any, mask: Any, ids: list[int], log_M: Tensor) -> _Part:
        seen = accept_sequences(
            log_ratio, log_M, log_space=True, mask=mask, statistic=self.rule.statistic or "sum",
            seed=self.draw_seed, ids=_numbers(ids, log_M.device),
        )  # fmt: skip
        rows, empty = list(seen.token_mask), seen.lengths == 0
        return _Part(rows, seen.log_ratio, seen.mask, empty, seen.counts, seen.excess)

    def _tokens(self, log_ratio: Any, mask: Any, ids: list[int], log_M: Tensor) -> _Part:
        """Decide each token, keyed by its sequence and place among the tokens of that."""
        sizes = [len(row) for row in log_ratio]
        longest = max(sizes, default=0)
        if longest > 1 << TOKEN_BITS:
            raise ValueError(f"a sequence must have at most 2**{TOKEN_BITS} tokens, got {longest}")
        ratios, inside = _flat(log_ratio).detach(), _flat(mask)
        # How many tokens of the mask come before each place.
        counted = torch.nn.functional.pad(inside.cumsum(0), (1, 0))
        starts = _numbers([0, *accumulate(sizes[:-1])], ratios.device)
        firsts = (_numbers(ids, ratios.device) << TOKEN_BITS) - counted[starts]
        repeats = _numbers(sizes, ratios.device)
        token_ids = firsts.repeat_interleave(repeats, output_size=len(ratios)) + counted[1:] - 1
        # For prefixes only its ratios, counts and sums are used; the draws are made below.
        seen = bernoulli(
            ratios, log_M, log_space=True, mask=inside, seed=self.draw_seed, ids=token_ids
        )
        kept, accepted, counts = list(seen.mask.split(sizes)), seen.mask, seen.counts
        if self.rule.unit == PREFIX:
            runs = _runs(ids)
            kept = [row for run in runs for row in self._prefixes(log_ratio, mask, run, log_M)]
            accepted = torch.cat(kept)
            counts = torch.cat([accepted.sum()[None], counts[1:]])
        return _Part(kept, seen.log_ratio.double(), accepted, ~inside, counts, seen.excess)

    def _prefixes(
        self, log_ratio: Any, mask: Any, run: tuple[int, int, int], log_M: Tensor
    ) -> list[Tensor]:
        begin, end, first = run
        lengths = accept_prefix(
            log_ratio[begin:end], log_M, log_space=True, mask=mask[begin:end],
            seed=self.draw_seed, row_offset=first,
        )  # fmt: skip
        flags = mask[begin:end]
        if isinstance(flags, Tensor):
            return list(flags & (flags.cumsum(1) <= lengths[:, None]))
        return [row & (row.cumsum(0) <= n) for row, n in zip(flags, lengths, strict=True)]


def _checked(log_ratio: Tokens, mask: Tokens) -> tuple[Any, Any]:
    """Return both in one layout, the mask as bool."""
    if isinstance(log_ratio, Tensor) != isinstance(mask, Tensor):
        one, other = type(mask).__name__, type(log_ratio).__name__
        raise TypeError(f"mask must be in the layout of log_ratio, {other}, got {one}")
    if isinstance(log_ratio, Tensor) and isinstance(mask, Tensor):
        if log_ratio.dim() != 2 or mask.shape != log_ratio.shape:
            shapes = f"{list(log_ratio.shape)} and {list(mask.shape)}"
            raise ValueError(f"log_ratio and mask must both be [B, T], got {shapes}")
        return log_ratio, mask.bool()
    sizes, given = [len(row) for row in log_ratio], [len(row) for row in mask]
    if sizes != given:
        raise ValueError(f"sequences have {sizes} tokens, their masks {given}")
    return list(log_ratio), [row.bool() for row in mask]


def _numbers(values: list[int], device: torch.device) -> Tensor:
    """Return numbers as int64 on a device, without waiting for it."""
    return torch.tensor(values, dtype=torch.int64).to(device, non_blocking=True)


def _runs(ids: list[int]) -> list[tuple[int, int, int]]:
    """Return (begin, end, first id) of the stretches of ids that follow each other."""
    breaks = [at for at, (one, other) in enumerate(pairwise(ids), 1) if other != one + 1]
    return [(begin, end, ids[begin]) for begin, end in pairwise([0, *breaks, len(ids)])]


def shares(decision: Decision) -> Tensor:
    """Return what may be averaged over batches, float64, an entry a name of ``SHARES``.

    Frameworks take means of metrics over batches. A mean of quotients would be wrong, so these are
    numerators and denominators, all finite: divide their means.

    - Of the rows given: ``accepted``, ``valid``, ``violations`` and ``invalid`` are shares, and
      ``excess`` is the mean of (w/M - 1)+. The acceptance is accepted / valid.
    - Of the places given, padding included: ``tokens`` and ``tokens_kept`` are shares.
    - ``has_M`` is 1 where there was a finite M; else it and ``log_M`` are 0. The mean of log M is
      log_M / has_M.
    - ``pilot`` is the share of sequences that were only learnt from.
    """
    counts, ratios = decision.counts, decision.log_ratio
    valid = (~ratios.isnan()).sum()
    has_M = decision.log_M.isfinite()
    # A ratio beyond float64 has an infinite excess, which would spoil the mean of all batches.
    excess = decision.excess[0].clamp(max=1e30)
    of_rows = [counts[ACCEPTED], valid, counts[VIOLATIONS], counts[INVALID], excess]
    kept = _flat(decision.token_mask)
    values = [
        *(term.double() / max(ratios.numel(), 1) for term in of_rows),
        torch.where(has_M, decision.log_M, 0.0).double(),
        has_M.double(),
        *(term.double() / max(kept.numel(), 1) for term in (decision.tokens, kept.sum())),
        decision.metrics.values[METRICS.index("pilot")],
    ]
    return torch.stack(values)


def _nothing(mask: Any) -> Decision:
    """Return the decision about no sequence."""
    device = mask.device if isinstance(mask, Tensor) else None
    rows = torch.zeros(0, dtype=torch.float64, device=device)
    counts = torch.zeros(4, dtype=torch.int64, device=device)
    log_M, excess = torch.full((), math.inf).to(rows), torch.zeros(2).to(rows)
    seen = Acceptance(rows.bool(), rows, rows, counts, excess)
    return Decision(
        mask, seen.mask, rows, seen.mask, log_M, counts, excess,
        metrics=_metrics(seen, log_M), tokens=counts.sum(),
    )  # fmt: skip


def _joined(parts: list[_Part], log_M: Tensor, mask: Any, pilot: float) -> Decision:
    rows: Any = [row for part in parts for row in part.token_masks]
    rows = torch.stack(rows) if isinstance(mask, Tensor) else rows
    log_ratio = torch.cat([part.log_ratio for part in parts])
    accepted = torch.cat([part.accepted for part in parts])
    counts = torch.stack([part.counts for part in parts]).sum(0)
    excess = torch.stack([part.excess for part in parts]).sum(0)
    seen = Acceptance(accepted, log_ratio, log_ratio, counts, excess)
    return Decision(
        rows,
        rows.any(1) if isinstance(rows, Tensor) else torch.stack([row.any() for row in rows]),
        log_ratio,
        accepted,
        log_M,
        counts,
        excess,
        metrics=_metrics(seen, log_M, _total(rows) / _total(mask), pilot),
        tokens=_total(mask),
    )


def _metrics(
    seen: Acceptance, log_M: Tensor, kept: Tensor | None = None, pilot: float = 0.0
) -> DecisionMetrics:
    values = decision_metrics(seen, log_M).values
    kept = torch.full_like(log_M, math.nan) if kept is None else kept.double()
    extra = torch.stack([kept, torch.full_like(kept, pilot)])
    return DecisionMetrics(METRICS, torch.cat([values, extra]))


def _flat(rows: Any) -> Tensor:
    if isinstance(rows, Tensor):
        return rows.flatten()
    return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.bool)


def _total(rows: Any) -> Tensor:
    return _flat(rows).sum()
