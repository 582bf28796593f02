"""The sums that an envelope keeps of a group, and the units they are in; as the C++ core has them.

Weights w = exp(log ratio) overflow, so sums of them are held in units of 2^exponent, where the
exponent follows from the largest ratio: no weight is above one unit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rskernels import _core

# What adds up over batches, groups and ranks: int64 counts, and float64 sums with the power of
# 2^exponent that is their unit.
COUNTS = _core.TALLY_COUNTS
SUMS = _core.TALLY_SUMS
# With the largest ratio, which is the maximum over them, this is the tally of a group.
TALLY = ("max_log_ratio", *COUNTS, *SUMS)
# Log ratios beyond it weigh as much as it: no double tells powers beyond it apart.
LOG_LIMIT = 2.0**40


def exponent_of(max_log_ratio: Tensor) -> Tensor:
    """Return the least integer e with exp(log ratio) <= 2^e, float64; 0 for a ratio of 0."""
    exponent = (max_log_ratio.clamp(-LOG_LIMIT, LOG_LIMIT) * math.log2(math.e)).ceil()
    return torch.where(max_log_ratio == -math.inf, 0.0, exponent)


def unit_factors(before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """Return what takes each of `SUMS` from units of 2^before to those of 2^after, no smaller ones.

    Where nothing has been added ``before`` says nothing, and may be larger.
    """
    raised = (before - after).clamp(max=0.0)
    return {name: power_of_two(power * raised) for name, power in SUMS.items()}


def power_of_two(exponent: Tensor) -> Tensor:
    """Return 2^exponent of whole exponents up to 1023, exact; 0 where that is no double."""
    return torch.ldexp(torch.ones_like(exponent), exponent.clamp(-1100.0, 1023.0))


def merge_tallies(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Merge the tallies of several envelopes, ``[envelopes, groups]``, into ``[groups]``.

    Parameters
    ----------
    columns : dict of str to Tensor
        float64, a column for each of `TALLY`.
    """
    ratios = columns["max_log_ratio"]
    top = ratios.amax(0)
    factors = unit_factors(exponent_of(ratios), exponent_of(top))
    return {
        "max_log_ratio": top,
        **{name: columns[name].sum(0).long() for name in COUNTS},
        **{name: (columns[name] * factor).sum(0) for name, factor in factors.items()},
    }
