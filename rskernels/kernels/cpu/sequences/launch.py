"""Decisions about sequences in Numba: the loops of ``decide.py`` and ``prefix.py``, launched."""

from __future__ import annotations

import torch

from rskernels.kernels.cpu.launch import CODE, SCALAR_UNIT, draw_numbers, row_numbers
from rskernels.kernels.cpu.sequences.decide import (
    UNIT_COUNTS,
    count_unsound,
    decide_sequence_rows,
    total_sequences,
)
from rskernels.kernels.cpu.sequences.prefix import prefix_sequences
from rskernels.kernels.cpu.threads import run_units
from rskernels.kernels.layout import wide_dtype
from rskernels.law.sequences import DecidedSequences, codes_of

UNIT_TOKENS = 1 << 15  # tokens of a unit, the grain of threads, of sequences of the mean length
TOKEN_WORK, PREFIX_WORK = 4, 32  # logits that a token costs


def decide_sequences(
    log_ratio: torch.Tensor,
    M: torch.Tensor | float,
    seed: torch.Tensor | int,
    row_offset: int,
    stream: int,
    log_space: bool,
    mask: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    statistic: str,
    ids: torch.Tensor | None = None,
) -> DecidedSequences:
    """Accept each sequence where its statistic - log M >= log u of its id."""
    # Copies are named, so that they live until the kernels return.
    _named, rows, tokens, places = _laid_out(log_ratio, mask, cu_seqlens)
    units, _, B = rows
    work = log_ratio.numel() * TOKEN_WORK
    ids = None if ids is None else ids.contiguous()
    accepted = torch.empty(B, dtype=torch.bool, device="cpu")
    M, M_numbers = row_numbers(M, accepted)
    token_mask = torch.empty(log_ratio.shape, dtype=torch.bool, device="cpu")
    # Of each sequence w/M too, and of each unit what happened there.
    ratios, shares, excess = (
        torch.empty(size, dtype=torch.float64, device="cpu") for size in (B, B, 2)
    )
    lengths, summaries, counts, given = (
        torch.empty(size, dtype=torch.int64, device="cpu")
        for size in (B, units * UNIT_COUNTS, 4, 2)
    )
    draw = (*draw_numbers(seed, row_offset), stream, 0 if ids is None else ids.data_ptr())
    parts = shares.data_ptr(), summaries.data_ptr()
    outputs = ratios.data_ptr(), lengths.data_ptr(), accepted.data_ptr(), token_mask.data_ptr()
    law = codes_of(statistic), M_numbers, draw, log_space
    run_units(decide_sequence_rows, rows, work, tokens, places, *law, (*outputs, *parts))
    totals = counts.data_ptr(), excess.data_ptr(), given.data_ptr()
    total_sequences((0, 1, units, SCALAR_UNIT, B), (*parts, totals))
    return accepted, token_mask, ratios, lengths, counts, excess, given


def accept_prefix(
    log_ratio: torch.Tensor,
    M: torch.Tensor | float,
    seed: torch.Tensor | int,
    row_offset: int,
    stream: int,
    log_space: bool,
    mask: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return how many tokens are accepted before the first that is not, int64 [B]."""
    _named, rows, tokens, places = _laid_out(log_ratio, mask, cu_seqlens)
    lengths = torch.empty(rows[2], dtype=torch.int64, device="cpu")
    M, M_numbers = row_numbers(M, lengths)
    ids, work = None if ids is None else ids.contiguous(), log_ratio.numel() * PREFIX_WORK
    draw = (*draw_numbers(seed, row_offset), 0 if ids is None else ids.data_ptr())
    law = M_numbers, draw, log_space
    run_units(prefix_sequences, rows, work, tokens, places, *law, lengths.data_ptr())
    return lengths


def _laid_out(log_ratio, mask, cu_seqlens):
    """Return (what is addressed, rows of `run_units`, the tokens' numbers, the places')."""
    values = log_ratio.to(wide_dtype(log_ratio)).contiguous()
    flags = None if mask is None else mask.contiguous()
    count = values.numel()
    if cu_seqlens is None:
        starts, (B, T) = None, values.shape
    else:
        starts, T = cu_seqlens.long().contiguous(), 0
        B = len(starts) - 1
        if count_unsound((0, 1, 1, 1, B), (starts.data_ptr(), count)):
            _raise_unsound(starts, count)
    unit_rows = max(1, UNIT_TOKENS * max(B, 1) // max(count, 1))
    tokens = values.data_ptr(), CODE[values.dtype], 0 if flags is None else flags.data_ptr()
    places = 0 if starts is None else starts.data_ptr(), T
    return (values, flags, starts), (-(-B // unit_rows), unit_rows, B), tokens, places


def _raise_unsound(starts, count):
    falls = (starts[1:] < starts[:-1]).nonzero()
    got = f"begin at {starts[0]} and end at {starts[-1]}"
    if len(falls) > 0:
        at = int(falls[0])
        got = f"fall from {starts[at]} to {starts[at + 1]} at entry {at + 1}"
    raise ValueError(
        f"cu_seqlens must begin at 0, never fall and end at the number of tokens, {count}; they "
        f"{got}"
    )
