"""What decides a speculative step beside the logits and the draft tokens, as one record."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

Speculated = tuple[Tensor, Tensor, Tensor, Tensor]
"""(tokens [R, K + 1], accepted [R], log_prob [R, K + 1], counts [3]), as backends return them."""
ACCEPTED, GIVEN, INVALID, COUNTS = range(4)
"""The order of the counts, and how many there are."""


class Speculation(NamedTuple):
    """The law of a batch of R speculative steps.

    What may be a tensor has an element a request then, contiguous: float64 but for the integers.
    """

    temperature: Tensor | float = 1.0
    """T: the laws are softmax(logits / T); 0 is greedy."""
    top_k: Tensor | int = 0
    """Keep what is at least the k-th largest logit; 0 keeps all."""
    top_p: Tensor | float = 1.0
    """Of those, keep the largest that together have this probability; 1 keeps all."""
    seed: Tensor | int = 0
    """64 bits, an int64 tensor of one element, or one of a seed for each request."""
    row_offset: Tensor | int = 0
    """Id of the first request; of every request where each has a seed; or the ids, a tensor."""
    is_block: bool = False
    """Whether the draft is verified as a block."""
    is_processed: bool = False
    """Whether the draft's logits are those of its law: no temperature, top_k or top_p."""


def ids_of(law: Speculation, requests: int, device: torch.device) -> Tensor:
    """Return the ids of requests, int64 [R]."""
    if isinstance(law.row_offset, Tensor):
        return law.row_offset
    steps = torch.arange(requests, dtype=torch.int64, device=device)
    return law.row_offset + (steps * 0 if has_own_seeds(law) else steps)


def has_own_seeds(law: Speculation) -> bool:
    """Say whether each request has a seed."""
    return isinstance(law.seed, Tensor) and law.seed.numel() > 1
