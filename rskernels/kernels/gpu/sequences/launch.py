"""Decisions about sequences in Triton: the kernels of ``programs.py``, launched."""

from __future__ import annotations

import torch

from rskernels.kernels.gpu.launch import on_device, row_arguments, seed_arguments
from rskernels.kernels.gpu.ratios import decide_ratios
from rskernels.kernels.gpu.sequences.programs import (
    pack_kernel,
    prefix_kernel,
    reduce_kernel,
    spread_kernel,
)
from rskernels.kernels.layout import row_scalar, wide_dtype
from rskernels.kernels.sequences import of_sequences, starts_are_sound
from rskernels.law.sequences import DecidedSequences, codes_of

LANES = 256  # sums that a sequence's tokens are added to in turns
BLOCK = 1024
TILE = 128  # tokens of a prefix that are decided at a time


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
    flags = None if mask is None else mask.contiguous()
    values, given, B, places, is_sound = _laid_out(log_ratio, flags, cu_seqlens)
    device, (over, term) = log_ratio.device, codes_of(statistic)
    summed = torch.empty(B, dtype=torch.float64, device=device)
    lengths = torch.empty(B, dtype=torch.int64, device=device) if given is None else given
    # Where starts are not sound, no program writes.
    token_mask = torch.zeros(log_ratio.shape, dtype=torch.bool, device=device)
    if B > 0:
        with on_device(device):
            reduce_kernel[(B,)](
                log_ratio_ptr=values, **places, lengths_ptr=lengths, result_ptr=summed,
                LANES=LANES, HAS_LENGTHS=given is not None,
                OVER=over, TERM=term,
                # Fused, a product's rounding would depend on what else a kernel does with it.
                enable_fp_fusion=False,
            )  # fmt: skip
    decided = decide_ratios(summed, M, seed, row_offset, stream, log_space, ids)
    if B > 0:
        with on_device(device):
            spread_kernel[(B,)](
                flags_ptr=values if flags is None else flags, **places,
                accepted_ptr=decided[0], token_mask_ptr=token_mask,
                BLOCK=BLOCK, HAS_FLAGS=flags is not None,
            )  # fmt: skip
    return of_sequences(decided, token_mask, lengths, is_sound)


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
    flags = None if mask is None else mask.contiguous()
    values, given, B, places, _ = _laid_out(log_ratio, flags, cu_seqlens)
    lengths = torch.empty(B, dtype=torch.int64, device=log_ratio.device)
    if B == 0:
        return lengths
    with on_device(log_ratio.device):
        prefix_kernel[(B,)](
            log_ratio_ptr=values, **places,
            **row_arguments("M", row_scalar(M, lengths.shape), log_space, values),
            **seed_arguments(seed, values),
            row_offset=row_offset, stream_id=stream,  # Triton keeps ``stream`` for itself
            ids_ptr=lengths if ids is None else ids.contiguous(), HAS_IDS=ids is not None,
            given_ptr=lengths if given is None else given, lengths_ptr=lengths,
            TILE=TILE, HAS_GIVEN=given is not None, LOG_SPACE=log_space,
        )  # fmt: skip
    return lengths


def _laid_out(log_ratio, flags, cu_seqlens):
    """Return (tokens moved together, their numbers or None, B, the places' arguments, soundness).

    Starts that are not sound become those of sequences without tokens, so that no program reads
    or writes outside; nothing waits for the device to be told.
    """
    values = log_ratio.contiguous()
    starts, T, is_sound = values, 0, None
    if cu_seqlens is None:
        B, T = values.shape
    else:
        B = len(cu_seqlens) - 1
        is_sound = starts_are_sound(cu_seqlens, values.numel())
        starts = torch.where(is_sound, cu_seqlens.long(), 0)
    places = {"starts_ptr": starts, "T": T, "HAS_STARTS": cu_seqlens is not None}
    if flags is None:
        return values, None, B, places, is_sound
    packed = torch.empty(values.shape, dtype=wide_dtype(values), device=values.device)
    lengths = torch.empty(B, dtype=torch.int64, device=values.device)
    if B > 0:
        with on_device(values.device):
            pack_kernel[(B,)](
                log_ratio_ptr=values, flags_ptr=flags, **places,
                packed_ptr=packed, lengths_ptr=lengths, BLOCK=BLOCK,
            )  # fmt: skip
    return packed, lengths, B, places, is_sound
