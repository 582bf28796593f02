"""Decisions about sequences in Numba: the loops of ``loops.py``, launched."""

from __future__ import annotations

import torch

from rskernels.kernels.cpu.launch import CODE, draw_numbers, row_numbers
from rskernels.kernels.cpu.ratios import decide_ratios
from rskernels.kernels.cpu.sequences.loops import (
    count_sequences,
    prefix_sequences,
    reduce_sequences,
    spread_sequences,
)
from rskernels.kernels.cpu.threads import run_units
from rskernels.kernels.layout import wide_dtype
from rskernels.kernels.sequences import starts_are_sound
from rskernels.law.sequences import DecidedSequences, codes_of

UNIT_TOKENS = 1 << 15  # tokens of a unit, the grain of threads, of sequences of the mean length
TOKEN_WORK, PREFIX_WORK = 4, 32  # logits that a token costs
SPREAD_WORK = 1


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
    B, count = rows[2], log_ratio.numel()
    summed = torch.empty(B, dtype=torch.float64, device="cpu")
    lengths = torch.empty(B, dtype=torch.int64, device="cpu")
    code, outputs = codes_of(statistic), (summed.data_ptr(), lengths.data_ptr())
    run_units(reduce_sequences, rows, count * TOKEN_WORK, tokens, places, code, outputs)
    decided = decide_ratios(summed, M, seed, row_offset, stream, log_space, ids)
    token_mask = torch.empty(log_ratio.shape, dtype=torch.bool, device="cpu")
    chosen, flags = (decided[0].data_ptr(), token_mask.data_ptr()), tokens[2]
    run_units(spread_sequences, rows, count * SPREAD_WORK, flags, places, *chosen)
    mask, of_each, counted, excess = decided
    counts, tokens = torch.empty_like(counted), counted.new_empty(2)
    run_units(
        count_sequences, (1, B, B), B, lengths.data_ptr(), mask.data_ptr(),
        counted.data_ptr(), (counts.data_ptr(), tokens.data_ptr()),
    )  # fmt: skip
    return mask, token_mask, of_each, lengths, counts, excess, tokens


def accept_prefix(
    log_ratio: torch.Tensor,
    M: torch.Tensor | float,
    seed: torch.Tensor | int,
    row_offset: int,
    stream: int,
    log_space: bool,
    mask: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> torch.Tensor:
    """Return how many tokens are accepted before the first that is not, int64 [B]."""
    _named, rows, tokens, places = _laid_out(log_ratio, mask, cu_seqlens)
    lengths = torch.empty(rows[2], dtype=torch.int64, device="cpu")
    M, M_numbers = row_numbers(M, lengths)
    draw, work = draw_numbers(seed, row_offset), log_ratio.numel() * PREFIX_WORK
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
        if not starts_are_sound(starts, count):
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
