"""A vocabulary whose columns are cut over ranks: each knows a part of every row's softmax."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from rskernels.distributed.collectives import all_gather


class Part(NamedTuple):
    """What a rank knows of rows: the softmax of its own columns of the logits over T."""

    log_prob: Tensor
    """``[N]``: of the target among these columns; any number where it is not one of them."""
    totals: Tensor
    """float64 ``[N, 2]``: the reference, and the sum of exp((z - reference) / T). A reference of
    -inf and a sum of 0 where every logit is -inf, NaN where there is no softmax."""
    is_own: Tensor
    """bool ``[N]``: whether the target is one of these columns."""


class Whole(NamedTuple):
    """What all ranks know together, in which each has the same bits."""

    log_prob: Tensor
    """float64 ``[N]``: of the target under the softmax of all columns; NaN without either."""
    totals: Tensor
    """float64 ``[N, 2]``: as of a part."""
    is_own: Tensor
    """bool ``[N]``: whether the target is a column of one rank, and of no other."""
    seed: Tensor
    """int64 ``[1]``: that of the group's first rank."""


def combine(
    part: Part, temperature: Tensor | float, seed: Tensor, group: dist.ProcessGroup | None
) -> Whole:
    """Put together what the ranks know of the same rows; one collective, of 24 bytes a row.

    ``temperature`` is a number or ``[N]``, and ``seed`` an int64 of one element, which the first
    rank's replaces. Every rank adds up in the order of the ranks.
    """
    reference, total = part.totals.unbind(-1)
    reference = reference / temperature
    is_empty = total == 0.0
    # z/T of the target, of which its log-probability and the totals are made.
    logit = torch.where(is_empty, -torch.inf, part.log_prob.double() + reference + total.log())
    logit = torch.where(part.is_own, logit, torch.inf)
    N = len(logit)
    sent = torch.cat([reference, total, logit, seed.reshape(1).view(torch.float64)])
    gathered = all_gather(sent, len(sent), group).to(sent.device)
    references, totals, logits = gathered[:, : 3 * N].view(len(gathered), 3, N).unbind(1)
    top, scaled = _total(references, totals)
    logit = logits.amin(0)
    # Ranks that were given other targets, or columns in common, would seem to agree.
    is_own = (logits != torch.inf).sum(0) == 1
    log_prob = (logit - top - scaled.log()).clamp(max=0.0)
    return Whole(
        torch.where(is_own, log_prob, torch.nan),
        torch.stack([top * temperature, scaled], -1),
        is_own,
        gathered[0, -1:].view(torch.int64),
    )


def _total(references: Tensor, totals: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest reference of ``[ranks, N]``, and the sum of totals in terms of it."""
    top = references.amax(0)
    return top, torch.where(totals == 0.0, 0.0, totals * (references - top).exp()).sum(0)
