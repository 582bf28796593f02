"""The definition of every operation, in float64 torch. Read this file first.

Every backend module offers these functions with these names and arguments. Shapes: ``...`` are the
leading dimensions of the logits, V the classes; row ids count the leading dimensions in row-major
order from ``row_offset``. ``targets=None`` is the dense form, where every entry is a decision.
"""

from __future__ import annotations

import math

import torch

from rskernels.kernels.layout import wide_dtype
from rskernels.law.decision import Decided, DecidedRatios, Law
from rskernels.law.numbers import LEAST_TEMPERATURE, MOST_TEMPERATURE
from rskernels.law.philox import philox4x32, row_uniforms
from rskernels.law.streams import Stream


def decide(
    logits: torch.Tensor,  # [..., V]
    targets: torch.Tensor | None,  # [...]
    law: Law,
) -> Decided:
    """Decide every row, or every entry, and return (mask, log_prob, log_ratio, counts, excess)."""
    log_q, row_is_bad = log_softmax(logits, law.temperature)
    u = draw(log_q, law, is_dense=targets is None)
    if targets is None:
        log_prob, undefined = log_q, row_is_bad[..., None].expand_as(log_q)
        ignored = torch.zeros_like(undefined)
    else:
        log_prob, outside = of_targets(log_q, targets)
        ignored = targets == law.ignore_index
        undefined = (row_is_bad | outside) & ~ignored

    log_density = natural_log(law.density, law.log_space, log_prob)
    log_M = natural_log(law.M, law.log_space, log_prob)
    valid, log_ratio, log_r = ratios(log_prob, log_density, log_M, law.model_is_target)
    valid &= ~(undefined | ignored)

    mask = valid & accepts(log_r, u)
    violation = valid & (log_ratio > log_M)
    r = torch.where(valid, log_r.exp(), 0.0)
    counts = torch.stack([mask.sum(), violation.sum(), (~valid & ~ignored).sum(), ignored.sum()])
    excess = torch.stack([excess_of(r).sum(), r.sum()])
    log_prob = torch.where(undefined | ignored, math.nan, log_prob)
    log_ratio = torch.where(valid, log_ratio, math.nan)
    return mask, log_prob, log_ratio, counts, excess


def mask(
    logits: torch.Tensor,
    targets: torch.Tensor | None,
    law: Law,
    is_lazy: bool = False,
    order: torch.Tensor | None = None,
) -> torch.Tensor:
    """Decide every row, or every entry, and return only the mask.

    Where ``is_lazy``, a kernel reads a row until its decision is certain, and where an ``order``
    of its blocks is given, int64 [blocks], it reads them in that order. Neither is seen here.
    """
    return decide(logits, targets, law)[0]


def bernoulli(
    log_ratio: torch.Tensor,  # [...]
    M: torch.Tensor | float,  # broadcasts to [...]
    seed: torch.Tensor | int,
    row_offset: int,
    stream: int,
    log_space: bool,
    ids: torch.Tensor | None = None,  # [...]; else they count from row_offset
) -> torch.Tensor:
    """Accept element n of ``log_ratio`` where log r - log M >= log u of row n; bool [...]."""
    log_ratio = log_ratio.double()
    rows = row_ids(row_offset, log_ratio) if ids is None else ids
    u = row_uniforms(rows, 0, seed, stream)
    log_M = natural_log(M, log_space, log_ratio)
    valid = (log_ratio < math.inf) & (log_M > -math.inf)
    return valid & accepts(log_ratio - log_M, u)


def decide_ratios(
    log_ratio: torch.Tensor,  # [...]
    M: torch.Tensor | float,
    seed: torch.Tensor | int,
    row_offset: int,
    stream: int,
    log_space: bool,
    ids: torch.Tensor | None = None,
) -> DecidedRatios:
    """Decide as ``bernoulli`` does, and return (mask, log_ratio, counts, excess).

    Violations and excess are counted against log M rounded to the dtype of the ratios, so that an
    M that equals the largest of them is not violated.
    """
    mask = bernoulli(log_ratio, M, seed, row_offset, stream, log_space, ids)
    dtype = wide_dtype(log_ratio)
    log_ratio = log_ratio.double()
    log_M = natural_log(M, log_space, log_ratio)
    valid = (log_ratio < math.inf) & (log_M > -math.inf)
    log_r = log_ratio - rounded(log_M, dtype)
    r = torch.where(valid, log_r.exp(), 0.0)
    counts = [mask.sum(), (valid & (log_r > 0)).sum(), (~valid).sum(), torch.zeros_like(mask).sum()]
    excess = torch.stack([excess_of(r).sum(), r.sum()])
    log_ratio = torch.where(valid, log_ratio, math.nan).to(dtype)
    return mask, log_ratio, torch.stack(counts), excess


def target_log_prob(
    logits: torch.Tensor,  # [..., V]
    targets: torch.Tensor,  # [...]
    temperature: torch.Tensor | float,  # broadcasts to [...]
    ignore_index: int,
) -> torch.Tensor:
    """Return log q of the target, [...]: 0 where ignored, NaN where undefined."""
    log_q, row_is_bad = log_softmax(logits, temperature)
    log_prob, outside = of_targets(log_q, targets)
    log_prob = torch.where(row_is_bad | outside, math.nan, log_prob)
    return torch.where(targets == ignore_index, 0.0, log_prob)


def philox(counter: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return the Philox4x32-10 words, int64 [N, 4], of counters [N, 4] and keys [N, 2]."""
    return philox4x32(counter, key)


def log_softmax(
    logits: torch.Tensor, temperature: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log q [..., V] in float64 and which rows are no distribution [...]."""
    z = logits.double()
    T = torch.as_tensor(temperature, dtype=torch.float64, device=z.device).expand(z.shape[:-1])
    has_T = (T >= LEAST_TEMPERATURE) & (T <= MOST_TEMPERATURE)
    top = z.amax(-1, keepdim=True)
    row_is_bad = z.isnan().any(-1) | (top.squeeze(-1) == math.inf) | (top.squeeze(-1) == -math.inf)
    # The maximum leaves before the division, so that no temperature overflows.
    log_q = torch.log_softmax((z - top) / torch.where(has_T, T, math.nan)[..., None], -1)
    return log_q, row_is_bad | ~has_T


def of_targets(log_q: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the targets' log q [...] and which targets lie outside of ``[0, V)``."""
    outside = (targets < 0) | (targets >= log_q.shape[-1])
    index = torch.where(outside, 0, targets).long()
    return log_q.gather(-1, index[..., None]).squeeze(-1), outside


def natural_log(value: torch.Tensor | float, log_space: bool, like: torch.Tensor) -> torch.Tensor:
    """Return the natural logarithm of a density or M, float64, expanded to the decisions."""
    value = torch.as_tensor(value, dtype=torch.float64, device=like.device)
    return (value if log_space else value.log()).expand(like.shape)


def ratios(
    log_prob: torch.Tensor, log_density: torch.Tensor, log_M: torch.Tensor, model_is_target: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (whether it may decide, log ratio before M, log r).

    A target density of 0 is a ratio of 0, whatever the proposal's. A density of NaN or +inf fails
    the comparisons, whichever side of the ratio it is on.
    """
    numerator, denominator = log_density, log_prob
    if model_is_target:
        numerator, denominator = log_prob, log_density
    log_ratio = torch.where(numerator == -math.inf, -math.inf, numerator - denominator)
    valid = (log_density < math.inf) & (log_prob < math.inf)
    valid &= (log_ratio < math.inf) & (log_M > -math.inf)
    return valid, log_ratio, log_ratio - log_M


def rounded(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return float64 rounded to a dtype; what is finite stays so."""
    most = torch.finfo(dtype).max
    finite = value.clamp(-most, most).to(dtype).double()
    return torch.where(value.abs() < math.inf, finite, value)


def row_ids(row_offset: int, rows: torch.Tensor) -> torch.Tensor:
    """Return the ids of rows, int64, in the shape of ``rows``."""
    return row_offset + torch.arange(rows.numel(), device=rows.device).view(rows.shape)


def draw(log_q: torch.Tensor, law: Law, is_dense: bool) -> torch.Tensor:
    """Return the uniform of every row, or of every entry: a function of where it is alone."""
    rows = row_ids(law.row_offset, log_q[..., 0])
    if not is_dense:
        return row_uniforms(rows, 0, law.seed, Stream.ACCEPT)
    columns = torch.arange(log_q.shape[-1], device=log_q.device)
    return row_uniforms(rows[..., None], columns, law.seed, Stream.ACCEPT)


def accepts(log_r: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Return where log r >= log u."""
    return log_r >= u.double().log()


def excess_of(r: torch.Tensor) -> torch.Tensor:
    """Return by how much ratios exceed M, as a part of M."""
    return (r - 1).clamp(min=0)
