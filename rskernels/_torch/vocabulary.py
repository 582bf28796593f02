"""Log-probabilities under a vocabulary that is cut over ranks, with their gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rskernels._torch.autograd import LINEAR_TARGET_LOG_PROB, PARTS
from rskernels._torch.schemas import operator, split
from rskernels.distributed.vocabulary import Part, combine
from rskernels.kernels.layout import wide_dtype

OTHER, IGNORED = -2, -1  # targets that are not this rank's columns
_gradient = operator(LINEAR_TARGET_LOG_PROB.gradient)


class CutLogProb(torch.autograd.Function):
    """log_prob of targets, from this rank's columns and what the other ranks know.

    Takes the fields of a product, targets among this rank's columns, int64 ``[N]``, temperature, a
    seed and a process group. Returns log_prob ``[N]`` as it is returned and, without gradient,
    float64; whether a target is a column of any rank; and the first rank's seed.
    """

    @staticmethod
    def forward(ctx: Any, *fields: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Take the softmax of this rank's columns, and put it together with the others'."""
        *product, targets, temperature, seed, group = fields
        is_own = targets >= 0
        # Any column will do where the target is another's; ignored rows are not read.
        known = targets.masked_fill(targets == OTHER, 0)
        softmax = split(temperature, 1.0)
        log_prob, totals = LINEAR_TARGET_LOG_PROB.eager(*product, known, *softmax, IGNORED)
        whole = combine(Part(log_prob, totals, is_own), temperature, seed, group)
        hidden, weight, bias, scale, softcap, A, B, lora_scale = product
        ctx.numbers, ctx.group = (scale, softcap, lora_scale), group
        ctx.save_for_backward(targets, whole.totals, *softmax[:1], hidden, weight, bias, A, B)
        ctx.temperature = softmax[1]
        exact = whole.log_prob
        ctx.mark_non_differentiable(exact, whole.is_own, whole.seed)
        return exact.to(wide_dtype(hidden), copy=True), exact, whole.is_own, whole.seed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Any, ...]:
        """Return the gradients of the product's fields; those that all ranks share are summed."""
        targets, totals, temperature, hidden, weight, bias, A, B = ctx.saved_tensors
        scale, softcap, lora_scale = ctx.numbers
        product = hidden, weight, bias, scale, softcap, A, B, lora_scale
        names = LINEAR_TARGET_LOG_PROB.fields
        wanted = [ctx.needs_input_grad[names.index(part)] for part in PARTS]
        softmax = temperature, ctx.temperature, IGNORED
        found = iter(_gradient(upstream, *product, targets, totals, wanted, *softmax))
        gradients = {part: next(found) for part, want in zip(PARTS, wanted, strict=True) if want}
        for part in ("hidden", "A"):
            if part in gradients:
                gradients[part] = _sum(gradients[part], ctx.group)
        return tuple(gradients.get(name) for name in names[: len(product)]) + (None,) * 4


def _sum(value: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    total = value.to(wide_dtype(value), copy=True)
    dist.all_reduce(total, group=group)
    return total.to(value.dtype)
