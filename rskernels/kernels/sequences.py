"""What every backend does about sequences around its kernels: sound starts, and empty ones."""

from __future__ import annotations

import torch

from rskernels.law.decision import DecidedRatios
from rskernels.law.numbers import ACCEPTED, INVALID, VIOLATIONS
from rskernels.law.sequences import DecidedSequences


def starts_are_sound(cu_seqlens: torch.Tensor, count: int) -> torch.Tensor:
    """Return whether starts [B + 1] begin at 0, never fall, and end at ``count``; bool []."""
    rises = (cu_seqlens[1:] >= cu_seqlens[:-1]).all()
    return (cu_seqlens[0] == 0) & (cu_seqlens[-1] == count) & rises


def of_sequences(
    decided: DecidedRatios,
    token_mask: torch.Tensor,
    lengths: torch.Tensor,
    is_sound: torch.Tensor | None,
) -> DecidedSequences:
    """Return decisions about sequences, of which those that are empty are counted apart.

    Where the starts are not sound, as ``is_sound`` says, all are invalid.
    """
    mask, log_ratio, counts, excess = decided
    empty = (lengths == 0).sum()
    if is_sound is not None:
        empty = empty * is_sound
    counts = torch.stack([counts[ACCEPTED], counts[VIOLATIONS], counts[INVALID] - empty, empty])
    tokens = torch.stack([(lengths * mask).sum(), lengths.sum()])
    return mask, token_mask, log_ratio, lengths, counts, excess, tokens
