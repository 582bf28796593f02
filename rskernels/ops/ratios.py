"""Decisions about ratios: those that are given, and those of rows that are drawn by ids."""

from __future__ import annotations

import torch
from torch import Tensor

from rskernels._torch import BERNOULLI, DECIDE_RATIOS, Call, decide
from rskernels._torch.fast_path import is_idle, is_plain
from rskernels._torch.sharded import is_sharded, replicated
from rskernels.law.numbers import ACCEPTED, INVALID, VIOLATIONS
from rskernels.law.seeds import CPU, check_row_offset, check_stream
from rskernels.law.streams import Stream
from rskernels.ops.acceptance import Acceptance
from rskernels.ops.arguments import (
    M_argument,
    check_floating,
    ids_argument,
    layout_argument,
    mask_of,
    may_be_odd,
    seed_argument,
)


def bernoulli_mask(
    log_ratio: Tensor,
    M: Tensor | float | None = None,
    *,
    log_space: bool = False,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int = 0,
    stream: int = Stream.ACCEPT,
    mask: Tensor | None = None,
    ids: Tensor | None = None,
) -> Tensor:
    """Accept with probability min(1, exp(log_ratio) / M).

    Parameters
    ----------
    log_ratio : Tensor
        log p - log q, floating ``[...]``; NaN and +inf are rejected, -inf is a ratio of 0. May be
        a DTensor that is sharded along any dimension.
    M : Tensor, float or None
        Envelope constant, above 0; broadcasts to ``log_ratio``. None is 1.
    log_space : bool
        Whether ``M`` is a natural logarithm.
    seed, generator, row_offset
        As in ``accept_mask``; element n in row-major order has row id ``row_offset + n``.
    stream : int
        Which use of randomness, in ``[0, 2**31)``; stream 0 is what the masks use.
    mask : Tensor, optional
        bool, of the shape of ``log_ratio``: which are decided, such as the tokens of padded
        sequences ``[B, T]``. The others are rejected, whatever they are. Ids count them too, so
        that a draw depends on T; those of ``accept_prefix`` do not.
    ids : Tensor, optional
        int64, int32 being refused, of the shape of ``log_ratio``: the row id of each, any 64 bits,
        such as a column of a data set or a hash, in place of those from ``row_offset``. Rows of the
        same id have the same uniform. As a row decides alone, neither order nor shards change a
        decision.

    Returns
    -------
    Tensor
        bool ``[...]``, without gradient.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape, device or Python number is not as above.
    """
    log_ratio = _masked(log_ratio, mask)
    call = _bind(log_ratio, M, log_space, seed, generator, row_offset, stream, ids)
    kept: Tensor = BERNOULLI(call)
    return kept


def bernoulli(
    log_ratio: Tensor,
    M: Tensor | float | None = None,
    *,
    log_space: bool = False,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int = 0,
    stream: int = Stream.ACCEPT,
    mask: Tensor | None = None,
    ids: Tensor | None = None,
) -> Acceptance:
    """Decide as ``bernoulli_mask`` does, and return what the same pass saw as well.

    For log-probabilities that something else computed, such as a fused loss or a server: counts of
    violations and of invalid ratios, and the sums that estimate the bias. Parameters and errors are
    those of ``bernoulli_mask``. In the result ``log_ratio`` is the one given, NaN where invalid,
    and ``log_prob`` is NaN: no model was read. Ignored are the rows that are not in the mask; a
    ratio of NaN in it is counted as invalid. For a DTensor the counts and sums are those of all
    ranks, which takes a collective.

    Examples
    --------
    >>> seen = bernoulli(torch.tensor([0.0, 1.0, torch.nan]), 2.0, seed=0)
    >>> seen.counts[1:3]  # one above log 2, one that is no ratio
    tensor([1, 1])
    """
    log_ratio = _masked(log_ratio, mask)
    call = _bind(log_ratio, M, log_space, seed, generator, row_offset, stream, ids)
    kept, valid, counts, excess = DECIDE_RATIOS(call)
    if mask is not None:
        ignored = replicated((~mask).sum())
        invalid = counts[INVALID] - ignored
        counts = torch.stack([counts[ACCEPTED], counts[VIOLATIONS], invalid, ignored])
    return Acceptance(kept, torch.full_like(valid, torch.nan), valid, counts, excess)


def check_row_ids(ids: Tensor, call: Call) -> None:
    """Raise unless a call is of rows with targets, and ``ids`` has one for each."""
    _, targets, law, *_ = call.arguments
    if targets is None:
        raise ValueError("ids are of rows with targets; entries of rows are numbered by row_offset")
    ids_argument(ids, law.row_offset, targets.device, targets.shape)


def decide_by_ids(call: Call, ids: Tensor) -> Acceptance:
    """Run a call of rows with targets, but decide each row by the draw of its id.

    That is the draw of column 0 and stream 0, as it would be were the id the row's number. The call
    gives the log ratios, and its own decisions are left. Every row is read to its end, so what the
    call says of an order or of early exit is left out.
    """
    source, targets, law, *_ = call.arguments
    seen = Acceptance(*decide(call._replace(arguments=(source, targets, law))))
    second = bernoulli(
        seen.log_ratio, rounded_log_M(law.M, law.log_space, seen.log_ratio), log_space=True,
        seed=law.seed, mask=targets != law.ignore_index, ids=ids,
    )  # fmt: skip
    return second._replace(log_prob=seen.log_prob)


def rounded_log_M(M: Tensor | float, log_space: bool, log_ratio: Tensor) -> Tensor:
    """Return log M rounded to the dtype of log ratios that a model has, as their kernels round it.

    ``bernoulli`` compares with log M as it is given: near its draw a row would else be decided
    otherwise than by its number. What is finite stays so.
    """
    if isinstance(M, Tensor):
        log_M = M.detach().double()
    else:
        # Filled where it is needed: a copy from the host would wait, and is in no CUDA graph.
        log_M = torch.full((), M, dtype=torch.float64, device=log_ratio.device)
    if not log_space:
        log_M = log_M.log()
    dtype = log_ratio.dtype
    most = torch.finfo(dtype).max
    return torch.where(log_M.abs() < torch.inf, log_M.clamp(-most, most), log_M).to(dtype)


def _masked(log_ratio: Tensor, mask: Tensor | None) -> Tensor:
    """Return log ratios that are NaN, which is rejected, where they are not in a mask."""
    if mask is None:
        return log_ratio
    check_floating("log_ratio", log_ratio)
    if is_sharded(mask) != is_sharded(log_ratio):
        raise TypeError("mask and log_ratio must both be DTensors, or neither")
    return torch.where(mask_of("mask", mask, log_ratio), log_ratio.detach(), torch.nan)


def _bind(
    log_ratio: Tensor,
    M: Tensor | float | None,
    log_space: bool,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    row_offset: int,
    stream: int,
    ids: Tensor | None,
) -> Call:
    """Return the call of a decision about ratios, its arguments checked."""
    check_floating("log_ratio", log_ratio)
    idle = is_idle()
    is_direct = idle and is_plain(log_ratio, M, seed, ids)
    device = None if is_direct else log_ratio.device
    M = M_argument(M, device, log_ratio.shape, log_space)
    key = seed_argument(seed, generator, device or CPU, idle)
    layout = None
    given = ids_argument(ids, row_offset, device, log_ratio.shape)
    if not is_direct and may_be_odd(log_ratio, M, key, ids):
        others = {"M": M, "seed": key, "ids": ids}
        layout = layout_argument("log_ratio", log_ratio, log_ratio.shape, seed is None, others)
    numbers = (check_row_offset(row_offset), check_stream(stream), bool(log_space))
    return Call((log_ratio, M, key, *numbers, *given), is_direct, layout)
