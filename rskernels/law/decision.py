"""What decides a row beside its logits and its target, as one record, and what is decided."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

Decided = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""(mask, log_prob, log_ratio, counts, excess) of a batch of decisions, as backends return them."""
DecidedWithTotals = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""(log_prob, totals, mask, log_ratio, counts, excess), where the gradient of log_prob is wanted.

It needs the totals, (reference, total) of each row ``[..., 2]``."""
DecidedRatios = tuple[Tensor, Tensor, Tensor, Tensor]
"""(mask, log_ratio, counts, excess) of decisions about ratios, which have no model."""


class Law(NamedTuple):
    """The law of a batch of decisions: accept where log p - log q - log M >= log u.

    The model is the proposal q and ``density`` the target p or, with ``model_is_target``, the other
    way round. ``...`` are the decisions: ``logits.shape[:-1]`` with targets, else ``logits.shape``.
    """

    density: Tensor | float
    """Broadcasts to ``[...]``; the density that is not the model's."""
    M: Tensor | float
    """Broadcasts to ``[...]``; the envelope constant."""
    seed: Tensor | int
    """64 bits, or an int64 tensor of one element on the logits' device."""
    row_offset: int = 0
    """Id of the first row."""
    temperature: Tensor | float = 1.0
    """T: the model is softmax(logits / T). Broadcasts to ``logits.shape[:-1]``."""
    log_space: bool = False
    """Whether ``density`` and ``M`` are natural logarithms."""
    model_is_target: bool = False
    """Whether the model is p and not q."""
    ignore_index: int = -100
    """Rows with this target are rejected and counted apart."""
