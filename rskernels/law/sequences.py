"""What the tokens of a sequence amount to, and what is returned of decisions about sequences."""

from __future__ import annotations

from torch import Tensor

STATISTICS = ("sum", "mean", "max", "mean_k2", "mean_k3", "sum_k2")
"""What a sequence is decided by; see ``accept_sequences``."""
SUM, MEAN, MAX, MEAN_K2, MEAN_K3, SUM_K2 = range(len(STATISTICS))
"""Their codes in kernels."""

DecidedSequences = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""(mask, token mask, log ratio, lengths, counts, excess, tokens), as backends return them.

``tokens`` is int64 ``[2]``: how many tokens are in accepted sequences, and in all."""
