"""Decisions about sequences of tokens, in the layouts that training and serving have them in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rskernels._torch import ACCEPT_PREFIX, DECIDE_SEQUENCES, Call
from rskernels._torch.fast_path import is_idle, is_plain
from rskernels.law.seeds import CPU, check_row_offset
from rskernels.law.sequences import STATISTICS
from rskernels.law.streams import Stream
from rskernels.ops.arguments import M_argument, ids_argument, seed_argument
from rskernels.ops.batch import Batch, batch_of

Tokens = Tensor | Sequence[Tensor]
"""Padded [B, T], packed [N], or a list of B tensors of one dimension."""


class SequenceAcceptance(NamedTuple):
    """What was decided about B sequences and seen; without gradient, all on their device."""

    mask: Tensor
    """bool ``[B]``: which were accepted."""
    token_mask: Tensor | list[Tensor]
    """bool, in the layout given: the tokens of accepted sequences. A loss is averaged over it by
    ``masked_mean``."""
    log_ratio: Tensor
    """float64 ``[B]``: the statistic that was decided by, before M; of a divergence its negative.
    NaN where invalid or empty."""
    lengths: Tensor
    """int64 ``[B]``: how many tokens each has."""
    counts: Tensor
    """int64 ``[4]``: how many sequences were accepted, violated M, were invalid, were empty."""
    excess: Tensor
    """float64 ``[2]``: the sums over sequences of (w/M - 1)+ and of w/M, where log w is
    ``log_ratio``. With ``"sum"``, their quotient estimates the excess mass."""
    tokens_kept: Tensor
    """int64 ``[]``: tokens of accepted sequences."""
    tokens_given: Tensor
    """int64 ``[]``: tokens of all sequences."""
    sequences_kept: Tensor
    """int64 ``[]``: accepted sequences."""


def accept_sequences(
    log_ratio: Tokens,
    M: Tensor | float | None = None,
    *,
    mask: Tokens | None = None,
    cu_seqlens: Tensor | None = None,
    statistic: str = "sum",
    log_space: bool = False,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int = 0,
    ids: Tensor | None = None,
) -> SequenceAcceptance:
    """Accept each sequence, with all of its tokens, with probability min(1, w/M).

    A sequence's weight w follows from the ratios r = p/q of its tokens by a statistic. Only the
    product of the ratios, ``"sum"``, is the ratio of the sequences' probabilities: with it, what is
    accepted has exactly the law p where M is at least every w. The others are filters:

    - ``"sum"``: w = Π r. Accepted: q·min(1, w/M) ∝ p.
    - ``"mean"``: w = (Π r)^(1/n) of n tokens. Among sequences of length n the accepted law is
      ∝ q^(1-1/n)·p^(1/n) where M is at least every w: the longer, the closer to q.
    - ``"max"``: w = max r. Accepted: q·min(1, max r/M). It rises with the largest ratio alone, so
      that no mean of the accepted is one under p.
    - ``"mean_k2"``, ``"sum_k2"``: w = exp(-k), k the mean or sum of (log r)²/2. With M = 1 nothing
      is above M; what is accepted is q, less where p is far from it either way.
    - ``"mean_k3"``: as ``"mean_k2"`` with k the mean of r - 1 - log r, which is never negative.

    k2 and k3 are the estimators of Kullback-Leibler divergence by Schulman (2020).

    Parameters
    ----------
    log_ratio : Tensor or sequence of Tensor
        log p - log q of each token, float32, float64, bfloat16 or float16: padded ``[B, T]``,
        packed ``[N]`` with ``cu_seqlens``, or a list of B tensors ``[T_b]``. Sums are float64, and
        no token is clamped. A token of NaN or +inf makes its sequence invalid; -inf is a ratio
        of 0.
    M : Tensor, float or None
        Envelope constant of w, above 0: a number or a tensor ``[]`` or ``[B]``. None is 1.
    mask : Tensor or sequence of Tensor, optional
        bool, in the layout of ``log_ratio``: which entries are tokens of their sequence, anywhere
        in it. What else is there, NaN too, is not looked at. None: all are.
    cu_seqlens : Tensor, optional
        int64 or int32 ``[B + 1]``: sequence b is ``log_ratio[cu_seqlens[b]:cu_seqlens[b + 1]]``.
        Begins with 0, never falls, and ends with N.
    statistic : {"sum", "mean", "max", "mean_k2", "mean_k3", "sum_k2"}
        What w is, as above.
    log_space : bool
        Whether ``M`` is a natural logarithm.
    seed, generator
        As in ``accept_mask``.
    row_offset : int
        Id of the first sequence; sequence b has id ``row_offset + b``. The draw, of
        ``Stream.SEQUENCE``, depends on the seed and that id alone, and the sum on the sequence's
        own tokens: padding, packing and how a batch is split change nothing.
    ids : Tensor, optional
        int64 ``[B]``, int32 being refused: the id of each sequence, any 64 bits, in place of those
        from ``row_offset``.

    Returns
    -------
    SequenceAcceptance
        Empty sequences are rejected, and counted apart from invalid ones.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape, device or Python number is not as above. On the CPU
        also if the values of ``cu_seqlens`` are not; on a device all sequences are then rejected
        as invalid, since to look would wait for it.

    Notes
    -----
    DTensors are refused: give each rank's part, its ``to_local()``, with a ``row_offset`` of its
    own. On a GPU a program takes a sequence, so that few long ones leave it idle.

    Examples
    --------
    >>> log_ratio = torch.tensor([[0.5, 0.2, torch.nan], [-torch.inf, 0.0, 0.0]])
    >>> tokens = torch.tensor([[True, True, False], [True, True, True]])
    >>> seen = accept_sequences(log_ratio, 2.0, mask=tokens, seed=0)
    >>> seen.log_ratio
    tensor([0.7000,   -inf], dtype=torch.float64)
    >>> seen.tokens_given
    tensor(5)
    """
    if statistic not in STATISTICS:
        raise ValueError(f"statistic must be one of {', '.join(STATISTICS)}, got {statistic!r}")
    batch = batch_of(log_ratio, mask, cu_seqlens)
    law = (M, log_space, seed, generator, row_offset)
    call = _bind(batch, *law, Stream.SEQUENCE, statistic, ids=ids)
    kept, token_mask, ratios, lengths, counts, excess, tokens = DECIDE_SEQUENCES(call)
    seen = (kept, batch.in_its_layout(token_mask), ratios, lengths, counts, excess)
    return SequenceAcceptance(*seen, tokens[0], tokens[1], counts[0])


def accept_prefix(
    log_ratio: Tokens,
    M: Tensor | float | None = None,
    *,
    mask: Tokens | None = None,
    cu_seqlens: Tensor | None = None,
    log_space: bool = False,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int = 0,
    ids: Tensor | None = None,
) -> Tensor:
    """Accept the tokens of each sequence one after the other, until the first that is rejected.

    Token t is accepted with probability min(1, r/M), r = p/q of the token given what came before
    it. With M = 1 it is how far a draft would be kept by speculative decoding. What is accepted is
    not a draw from p: whoever goes on from a rejection must draw that token from the residual
    (p - q)+ of its position.

    Parameters
    ----------
    log_ratio, mask, cu_seqlens
        As in ``accept_sequences``. A token of NaN or +inf is rejected.
    M : Tensor, float or None
        Envelope constant of a token's ratio, above 0: a number or a tensor ``[]`` or ``[B]``. None
        is 1. One that is no number above 0 accepts nothing.
    log_space : bool
        Whether ``M`` is a natural logarithm.
    seed, generator
        As in ``accept_mask``.
    row_offset : int
        Id of the first sequence. The draw of token t, counted among its sequence's tokens, is that
        of the sequence's id and column t in ``Stream.PREFIX``.
    ids : Tensor, optional
        int64 ``[B]``: the id of each sequence, any 64 bits, as in ``accept_sequences``.

    Returns
    -------
    Tensor
        int64 ``[B]``: how many tokens of each sequence were accepted.

    Raises
    ------
    TypeError, ValueError
        As in ``accept_sequences``; ``cu_seqlens`` of other values on a device accept nothing.

    Examples
    --------
    >>> accept_prefix(torch.tensor([[0.0, 0.0, -torch.inf, 0.0]]), seed=0)
    tensor([2])
    """
    batch = batch_of(log_ratio, mask, cu_seqlens)
    call = _bind(batch, M, log_space, seed, generator, row_offset, Stream.PREFIX, ids=ids)
    lengths: Tensor = ACCEPT_PREFIX(call)
    return lengths


def _bind(
    batch: Batch,
    M: Tensor | float | None,
    log_space: bool,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    row_offset: int,
    stream: Stream,
    *rest: str,
    ids: Tensor | None = None,
) -> Call:
    """Return the call of a decision about sequences, its arguments checked."""
    idle = is_idle()
    is_direct = idle and is_plain(batch.log_ratio, batch.mask, batch.cu_seqlens, M, seed, ids)
    device = None if is_direct else batch.log_ratio.device
    batch.refuse_odd(M=M, seed=seed, ids=ids)
    M = M_argument(M, device, torch.Size((batch.size,)), log_space)
    given = ids_argument(ids, row_offset, device, torch.Size((batch.size,)))
    key = seed_argument(seed, generator, device or CPU, idle)
    law = (M, key, check_row_offset(row_offset), int(stream), bool(log_space))
    return Call((batch.log_ratio, *law, batch.mask, batch.cu_seqlens, *rest, *given), is_direct)
