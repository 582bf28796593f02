"""Decisions about sequences of tokens, in float64 torch.

A sequence is a row of a padded tensor [B, T], or tokens [N] from one entry of ``cu_seqlens`` to the
next. Its tokens are those that a mask of the same shape names, in their order. Its id is its place
in the batch, from ``row_offset`` on.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from rskernels.kernels.reference.rows import accepts, decide_ratios, natural_log
from rskernels.kernels.sequences import of_sequences, starts_are_sound
from rskernels.law.philox import row_uniforms
from rskernels.law.sequences import DecidedSequences


def decide_sequences(
    log_ratio: torch.Tensor,  # [B, T], or [N]
    M: torch.Tensor | float,  # broadcasts to [B]
    seed: torch.Tensor | int,
    row_offset: int,
    stream: int,
    log_space: bool,
    mask: torch.Tensor | None,  # as log_ratio
    cu_seqlens: torch.Tensor | None,  # [B + 1]
    statistic: str,
    ids: torch.Tensor | None = None,  # [B]; else they count from row_offset
) -> DecidedSequences:
    """Accept each sequence where its statistic - log M >= log u of its id."""
    places, is_sound = places_of(log_ratio, mask, cu_seqlens)
    values = log_ratio.double().reshape(-1)
    lengths = torch.tensor([len(at) for at in places], dtype=torch.int64, device=values.device)
    of_each = [statistic_of(values[at], statistic) for at in places]
    summed = torch.stack(of_each) if of_each else values.new_empty(0)
    decided = decide_ratios(summed, M, seed, row_offset, stream, log_space, ids)
    token_mask = torch.zeros(log_ratio.shape, dtype=torch.bool, device=values.device)
    for is_accepted, at in zip(decided[0], places, strict=True):
        token_mask.view(-1)[at] = is_accepted
    return of_sequences(decided, token_mask, lengths, is_sound)


def accept_prefix(
    log_ratio: torch.Tensor,  # [B, T], or [N]
    M: torch.Tensor | float,  # broadcasts to [B]
    seed: torch.Tensor | int,
    row_offset: int,
    stream: int,
    log_space: bool,
    mask: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    ids: torch.Tensor | None = None,  # [B]
) -> torch.Tensor:
    """Return how many tokens are accepted before the first that is not, int64 [B].

    Token t, of those that the mask names, has the uniform of its sequence's id and column t.
    """
    places, _ = places_of(log_ratio, mask, cu_seqlens)
    values = log_ratio.double().reshape(-1)
    lengths = torch.zeros(len(places), dtype=torch.int64, device=values.device)
    log_M = natural_log(M, log_space, lengths)
    for n, at in enumerate(places):
        log_w = values[at]
        row = torch.tensor(row_offset + n, device=values.device) if ids is None else ids[n]
        u = row_uniforms(row, torch.arange(len(at), device=values.device), seed, stream)
        valid = (log_w < math.inf) & (log_M[n] > -math.inf)
        accepted = valid & accepts(log_w - log_M[n], u)
        lengths[n] = accepted.long().cumprod(0).sum()
    return lengths


def places_of(
    log_ratio: torch.Tensor, mask: torch.Tensor | None, cu_seqlens: torch.Tensor | None
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return where each sequence's tokens are among all, and whether ``cu_seqlens`` is sound.

    Where it is not, no sequence has a token.
    """
    count = log_ratio.numel()
    at = torch.arange(count, device=log_ratio.device)
    is_sound = torch.ones((), dtype=torch.bool, device=log_ratio.device)
    if cu_seqlens is None:
        T = log_ratio.shape[1]
        ends = [n * T for n in range(log_ratio.shape[0] + 1)]
    else:
        is_sound = starts_are_sound(cu_seqlens, count)
        ends = torch.where(is_sound, cu_seqlens, 0).tolist()
    kept = torch.ones_like(at, dtype=torch.bool) if mask is None else mask.reshape(-1)
    return [at[a:b][kept[a:b]] for a, b in pairwise(ends)], is_sound


def statistic_of(log_ratio: torch.Tensor, statistic: str) -> torch.Tensor:
    """Return what a sequence is decided by: NaN for one that is empty or has an invalid token.

    k2 is (log r)²/2 and k3 is r - 1 - log r, of which what is decided by is the negative.
    """
    if len(log_ratio) == 0 or not bool((log_ratio < math.inf).all()):
        return log_ratio.new_full((), math.nan)
    over, _, of = statistic.partition("_")
    values = terms_of(log_ratio, of)
    return values.amax() if over == "max" else values.mean() if over == "mean" else values.sum()


def terms_of(log_ratio: torch.Tensor, of: str) -> torch.Tensor:
    """Return what each token adds."""
    if of == "k2":
        return -log_ratio.square() / 2
    if of == "k3":
        k3 = log_ratio.expm1() - log_ratio
        # Far below, r is 0 and -log r may be infinite.
        return -k3.clamp(min=0.0)
    return log_ratio
