"""Speculative steps in Numba: the loop of ``decide``, launched."""

from __future__ import annotations

import torch
from torch import Tensor

from rskernels.kernels.cpu.launch import CODE, ROW_WORK
from rskernels.kernels.cpu.parts import BLOCK
from rskernels.kernels.cpu.speculative.decide import SUMS, speculate_kernels
from rskernels.kernels.cpu.threads import run_units
from rskernels.kernels.layout import as_rows, column_stride, wide_dtype
from rskernels.law.speculation import Speculated, Speculation, has_own_seeds

FIRST_PARTS = 4  # at least as many parts as the first block has


def speculate(
    target: Tensor,
    draft_tokens: Tensor,
    draft: Tensor | None,
    lengths: Tensor | None,
    law: Speculation,
) -> Speculated:
    """Accept draft tokens, draw the one that follows; (tokens, accepted, log_prob, counts)."""
    tokens, accepted, log_prob, is_invalid = run_steps(target, draft_tokens, draft, lengths, law)
    given = draft_tokens.numel() if lengths is None else lengths.sum()
    counts = torch.empty(3, dtype=torch.int64, device="cpu")
    counts[0], counts[1], counts[2] = accepted.sum(), given, is_invalid.sum()
    return tokens, accepted, log_prob, counts


def run_steps(
    target: Tensor,
    draft_tokens: Tensor,
    draft: Tensor | None,
    lengths: Tensor | None,
    law: Speculation,
    places: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (tokens, accepted, log_prob, whether a request met a row without a law).

    With ``places`` [R], rows are [R, 1, V] and a request's one draft token is known to be rejected
    there; where its length is 0, it has none and the token after the last is drawn.
    """
    R, K = draft_tokens.shape
    V = target.shape[-1]
    # Copies are named, so that they live until the kernel returns.
    target, target_numbers = _rows_of(target)
    draft_numbers: tuple[int, ...] = (0, target_numbers[1], 1, 0, 0, 0)
    if draft is not None:
        draft, draft_numbers = _rows_of(draft)
    draft_tokens = draft_tokens.contiguous()
    lengths = None if lengths is None else lengths.contiguous()
    tokens = torch.empty((R, K + 1), dtype=torch.int64, device="cpu")
    accepted = torch.empty(R, dtype=torch.int64, device="cpu")
    log_prob = torch.empty((R, K + 1), dtype=wide_dtype(target), device="cpu")
    is_invalid = torch.empty(R, dtype=torch.bool, device="cpu")
    parts = FIRST_PARTS + V // BLOCK
    scratch = torch.empty(R * SUMS * parts, dtype=torch.float64, device="cpu")
    outside = run_units(
        speculate_kernels[target_numbers[1]],
        (R, 1, R),
        R * (K + 1) * (V + ROW_WORK),
        target_numbers,
        draft_numbers,
        (draft_tokens.data_ptr(), CODE[draft_tokens.dtype]),
        (0, CODE[torch.int64]) if lengths is None else (lengths.data_ptr(), CODE[lengths.dtype]),
        (K, V),
        (
            _value_of(law.temperature, float),
            _value_of(law.top_k, int),
            _value_of(law.top_p, float),
        ),
        (_seed_of(law), _ids_of(law)),
        (law.is_block, law.is_processed, 0 if places is None else places.data_ptr()),
        (tokens.data_ptr(), accepted.data_ptr(), log_prob.data_ptr(), is_invalid.data_ptr()),
        scratch.data_ptr(),
    )
    if outside:
        check(draft_tokens, lengths, V)
    return tokens, accepted, log_prob, is_invalid


def _rows_of(logits: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Return logits whose columns lie side by side, and where their rows are."""
    if column_stride(logits) != 1:
        logits = logits.contiguous()
    rows = as_rows(logits)
    logits = rows.tensors[0]
    numbers = (
        logits.data_ptr(), CODE[logits.dtype], rows.inner,
        rows.outer_strides[0], rows.inner_strides[0], logits.shape[1],
    )  # fmt: skip
    return logits, numbers


def _value_of(value: Tensor | float, kind: type) -> tuple[int, float]:
    """Return (address, number) of a setting; the address is 0 where it is a number."""
    if isinstance(value, Tensor):
        return value.data_ptr(), kind(0)
    return 0, kind(value)


def _seed_of(law: Speculation) -> tuple[int, int, int]:
    """Return (address, step, number) of the seeds."""
    if isinstance(law.seed, Tensor):
        return law.seed.data_ptr(), int(has_own_seeds(law)), 0
    return 0, 0, law.seed


def _ids_of(law: Speculation) -> tuple[int, int, int]:
    """Return (address, step, number) of the ids."""
    if isinstance(law.row_offset, Tensor):
        return law.row_offset.data_ptr(), 1, 0
    return 0, int(not has_own_seeds(law)), law.row_offset


def check(tokens: Tensor, lengths: Tensor | None, V: int) -> None:
    """Raise the error of the first length, or else draft token, that is none."""
    R, K = tokens.shape
    L = torch.full((R,), K, device="cpu") if lengths is None else lengths.long()
    wrong = ((L < 0) | (L > K)).nonzero()
    if len(wrong):
        request = int(wrong[0])
        raise ValueError(
            f"lengths must be in [0, {K}], got {int(L[request])} for request {request}"
        )
    is_given = torch.arange(K, device="cpu") < L[:, None]
    outside = (((tokens < 0) | (tokens >= V)) & is_given).nonzero()
    if len(outside):
        request, place = outside[0].tolist()
        raise IndexError(
            f"draft_tokens must be in [0, {V}), got {int(tokens[request, place])} at place {place} "
            f"of request {request}; lengths says how many draft tokens a request has"
        )
