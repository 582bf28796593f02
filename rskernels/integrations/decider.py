"""Real decisions about rollouts: rules applied, ids counted, M learnt in the right order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels.envelope import Envelope
from rskernels.integrations.rules import PREFIX, SEQUENCE, Rule
from rskernels.law.seeds import check_seed
from rskernels.ops import accept_prefix, accept_sequences, bernoulli
from rskernels.ops.sequences import Tokens

# A token's id is its sequence's, then its place: 15 bits of rank, 28 of sequences, 20 of tokens.
TOKEN_BITS, COUNT_BITS, RANK_BITS = 20, 28, 15

METRICS = (
    "acceptance",
    "violations",
    "invalid",
    "excess",
    "ess",
    "log_M",
    "tokens_kept",
    "pilot",
)
"""Names of the entries of ``Decision.metrics``."""


class Decision(NamedTuple):
    """What was decided about a batch of rollouts, all on its device."""

    token_mask: Any
    """bool, in the layout given: the tokens that are kept."""
    mask: Tensor
    """bool ``[B]``: the sequences of which a token is kept."""
    log_ratio: Tensor
    """float64 of the rows that were decided, ``[B]`` or ``[tokens]``: their log ratio, NaN where
    invalid or outside of the mask."""
    accepted: Tensor
    """bool, of the shape of ``log_ratio``: which were accepted."""
    log_M: Tensor
    """float64 ``[]``: by which they were decided; +inf where there was none yet."""
    counts: Tensor
    """int64 ``[4]``: rows that were accepted, violated M, were invalid, were outside."""
    excess: Tensor
    """float64 ``[2]``: sums of (w/M - 1)+ and w/M over valid rows."""
    metrics: Tensor
    """float64, an entry a name of ``METRICS``, over valid rows and tokens alone."""


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

    A decision is a function of (seed, id of the sequence, its tokens, M), so that two sequences
    must not share an id. Ids that a framework has are given; others are counted here, in a range of
    this rank's own, so that cutting a batch into micro-batches changes nothing where M is given.
    Ranks that hold the same sequences, as of tensor or context parallelism, need the same ``rank``.

    Where M is learnt, the first half of the first batch is a pilot: it is learnt from and rejected.
    From then on a batch is decided by what was learnt before it.

    Parameters
    ----------
    rule : str or Rule
        As ``Rule.parse`` reads it.
    seed : int
        Of all decisions. Give another one when a run is resumed, or ``load_state_dict``.
    rank : int
        In ``[0, 32768)``: which data-parallel rank this is.
    """

    def __init__(self, rule: str | Rule, *, seed: int = 0, rank: int = 0) -> None:
        self.rule = rule if isinstance(rule, Rule) else Rule.parse(rule)
        self.seed = check_seed(seed)
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
        if not isinstance(log_ratio, Tensor):
            log_ratio = list(log_ratio)
        flags: Any = [flag.bool() for flag in mask] if not isinstance(mask, Tensor) else mask.bool()
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
        return numbers

    def _log_M(self, device: torch.device | None) -> Tensor:
        log_M = self.envelope.log_M(device=device)
        # NaN before anything was learnt. An M of 0 would make every row invalid.
        return torch.where(log_M > -math.inf, log_M, math.inf)

    def _part(self, log_ratio: Any, mask: Any, ids: list[int], log_M: Tensor) -> _Part:
        if self.rule.unit == SEQUENCE:
            return self._sequences(log_ratio, mask, ids, log_M)
        return self._tokens(log_ratio, mask, ids, log_M)

    def _sequences(self, log_ratio: Any, mask: Any, ids: list[int], log_M: Tensor) -> _Part:
        seen = [
            accept_sequences(
                log_ratio[begin:end], log_M, log_space=True, mask=mask[begin:end],
                statistic=self.rule.statistic or "sum", seed=self.seed, row_offset=first,
            )
            for begin, end, first in _runs(ids)
        ]  # fmt: skip
        return _Part(
            [row for part in seen for row in part.token_mask],
            torch.cat([part.log_ratio for part in seen]),
            torch.cat([part.mask for part in seen]),
            torch.cat([part.lengths == 0 for part in seen]),
            torch.stack([part.counts for part in seen]).sum(0),
            torch.stack([part.excess for part in seen]).sum(0),
        )

    def _tokens(self, log_ratio: Any, mask: Any, ids: list[int], log_M: Tensor) -> _Part:
        """Decide each token, keyed by its sequence and place, so that padding changes nothing."""
        longest = max((len(row) for row in log_ratio), default=0)
        if longest > 1 << TOKEN_BITS:
            raise ValueError(f"a sequence must have at most 2**{TOKEN_BITS} tokens, got {longest}")
        seen = [
            bernoulli(
                row.detach(), log_M, log_space=True, mask=flags,
                seed=self.seed, row_offset=number << TOKEN_BITS,
            )
            for row, flags, number in zip(log_ratio, mask, ids, strict=True)
        ]  # fmt: skip
        kept = [part.mask for part in seen]
        counts = torch.stack([part.counts for part in seen]).sum(0)
        if self.rule.unit == PREFIX:
            kept = [
                row for run in _runs(ids) for row in self._prefixes(log_ratio, mask, run, log_M)
            ]
            counts = torch.cat([torch.cat(kept).sum()[None], counts[1:]])
        return _Part(
            kept,
            torch.cat([part.log_ratio.double() for part in seen]),
            torch.cat(kept),
            ~torch.cat(list(mask)),
            counts,
            torch.stack([part.excess for part in seen]).sum(0),
        )

    def _prefixes(
        self, log_ratio: Any, mask: Any, run: tuple[int, int, int], log_M: Tensor
    ) -> list[Tensor]:
        begin, end, first = run
        lengths = accept_prefix(
            log_ratio[begin:end], log_M, log_space=True, mask=mask[begin:end],
            seed=self.seed, row_offset=first,
        )  # fmt: skip
        flags = mask[begin:end]
        return [row & (row.cumsum(0) <= n) for row, n in zip(flags, lengths, strict=True)]


def _runs(ids: list[int]) -> list[tuple[int, int, int]]:
    """Return (begin, end, first id) of the stretches of ids that follow each other."""
    breaks = [at for at, (one, other) in enumerate(pairwise(ids), 1) if other != one + 1]
    return [(begin, end, ids[begin]) for begin, end in pairwise([0, *breaks, len(ids)])]


def _nothing(mask: Any) -> Decision:
    """Return the decision about no sequence."""
    device = mask.device if isinstance(mask, Tensor) else None
    numbers = torch.zeros(len(METRICS), dtype=torch.float64, device=device)
    counts = torch.zeros(4, dtype=torch.int64, device=device)
    rows, log_M = numbers[:0], torch.full_like(numbers[0], math.inf)
    return Decision(mask, rows.bool(), rows, rows.bool(), log_M, counts, numbers[:2], numbers)


def _joined(parts: list[_Part], log_M: Tensor, mask: Any, pilot: float) -> Decision:
    rows = [row for part in parts for row in part.token_masks]
    log_ratio = torch.cat([part.log_ratio for part in parts])
    outside = torch.cat([part.outside for part in parts])
    counts = torch.stack([part.counts for part in parts]).sum(0)
    excess = torch.stack([part.excess for part in parts]).sum(0)
    is_valid = ~outside & ~log_ratio.isnan()
    weights = torch.where(is_valid, log_ratio, -math.inf)
    valid = is_valid.sum()
    metrics = torch.stack(
        [
            counts[0] / valid,
            counts[1] / valid,
            counts[2] / (~outside).sum(),
            excess[0] / excess[1],
            (2 * weights.logsumexp(0) - (2 * weights).logsumexp(0)).exp() / valid,
            log_M,
            _total(rows) / _total(mask),
            torch.full_like(log_M, pilot),
        ]
    )
    return Decision(
        torch.stack(rows) if isinstance(mask, Tensor) else rows,
        torch.stack([row.any() for row in rows]),
        log_ratio,
        torch.cat([part.accepted for part in parts]),
        log_M,
        counts,
        excess,
        metrics.nan_to_num(nan=0.0, posinf=math.inf),  # of nothing there is no share
    )


def _total(rows: Any) -> Tensor:
    return torch.stack([row.sum() for row in rows]).sum()
