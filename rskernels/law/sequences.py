"""What the tokens of a sequence amount to, and what is returned of decisions about sequences."""

from __future__ import annotations

from torch import Tensor

STATISTICS = ("sum", "mean", "max", "mean_k2", "mean_k3", "sum_k2")
"""What a sequence is decided by; see ``accept_sequences``."""
OVERS, TERMS = ("sum", "mean", "max"), ("", "k2", "k3")
SUM, MEAN, MAX = range(len(OVERS))
LOG_RATIO, K2, K3 = range(len(TERMS))
"""The codes of both in kernels: what is done over tokens, and what each of them adds."""


def codes_of(statistic: str) -> tuple[int, int]:
    """Return the codes of a statistic, of ``OVERS`` and of ``TERMS``."""
    over, _, term = statistic.partition("_")
    return OVERS.index(over), TERMS.index(term)


DecidedSequences = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""(mask, token mask, log ratio, lengths, counts, excess, tokens), as backends return them.

``tokens`` is int64 ``[2]``: how many tokens are in accepted sequences, and in all."""
