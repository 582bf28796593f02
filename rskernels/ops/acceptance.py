"""What ``accept``, ``verify`` and ``bernoulli`` return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Acceptance(NamedTuple):
    """What was decided and seen; ``log_prob`` alone may carry a gradient.

    ``...`` is the shape of the decisions: ``logits.shape[:-1]`` with targets, else
    ``logits.shape``; that of the ratios where ``bernoulli`` took them.
    """

    mask: Tensor
    """bool ``[...]``: which were accepted."""
    log_prob: Tensor
    """``[...]``: log q of the model, at most 0; NaN where the row has no softmax or is ignored, and
    where there is no model: of ratios that are given. float64 for float64 logits or ratios, else
    float32. With targets it carries the gradient of ``target_log_prob`` where gradients with
    respect to the logits are recorded; an ignored row's is 0, as is that of every row whose
    upstream gradient is 0: leave rows out by ``log_prob[mask]``, since NaN times 0 is NaN."""
    log_ratio: Tensor
    """``[...]``: log p - log q, before M and without gradient; NaN where invalid or ignored. dtype
    as ``log_prob``, to which log M is rounded too before the two are compared."""
    counts: Tensor
    """int64 ``[4]``: how many were accepted, violated M (log ratio > log M), were invalid, were
    ignored."""
    excess: Tensor
    """float64 ``[2]``: the sums of (w/M - 1)+ and of w/M with w = p/q. Their quotient estimates
    the excess mass, which for an M fixed in advance bounds the total variation between p and the
    accepted law."""
