"""Speculative steps in Triton: totals of all rows, what they keep, decisions, weights, draws.

All rows are read at once: on a GPU that takes less time than to wait for a request's first
rejection. Nothing waits for the device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from rskernels.kernels.gpu.launch import (
    logits_arguments,
    meta_of,
    on_device,
    target_log_prob,
)
from rskernels.kernels.gpu.speculative.decide import draw_kernel, open_kernel
from rskernels.kernels.gpu.speculative.rows import filter_kernel
from rskernels.kernels.gpu.speculative.weights import weigh_kernel
from rskernels.kernels.layout import RowLayout, as_rows, wide_dtype
from rskernels.law.speculation import Speculated, Speculation, has_own_seeds

NOT_READ = -1  # as the target of rows behind a request's last


class Side(NamedTuple):
    """The target's or the draft's rows, and what is known of them."""

    rows: RowLayout
    totals: Tensor
    """float64 [R, rows, 2]."""
    least: Tensor | None
    """float64 [R, rows], the smallest logit that is kept; None: all are."""
    tops: Tensor
    """int64 [R, rows]: the entry of greedy rows."""

    @property
    def logits(self) -> Tensor:
        """Return what is addressed."""
        return self.rows.tensors[0]


def speculate(
    target: Tensor,
    draft_tokens: Tensor,
    draft: Tensor | None,
    lengths: Tensor | None,
    law: Speculation,
) -> Speculated:
    """Accept draft tokens, draw the one that follows; (tokens, accepted, log_prob, counts)."""
    tokens, accepted, log_prob, is_invalid = run_steps(target, draft_tokens, draft, lengths, law)
    K = draft_tokens.shape[1]
    given = accepted.new_full((), draft_tokens.numel())
    if lengths is not None:
        given = torch.where((lengths < 0) | (lengths > K), 0, lengths).sum()
    counts = torch.stack([accepted.sum(), given.to(torch.int64), is_invalid.sum()])
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
    device, rows_a_request = target.device, K + 1 if law.is_block else 1
    tokens, accepted, bad, ends = (
        torch.empty(shape, dtype=torch.int64, device=device)
        for shape in ((R, K + 1), (R,), (R,), (R,))
    )
    log_prob = torch.empty((R, K + 1), dtype=wide_dtype(target), device=device)
    is_invalid = torch.empty(R, dtype=torch.bool, device=device)
    if R == 0:
        return tokens, accepted, log_prob, is_invalid
    if places is not None and target.shape[1] != K + 1:
        # Of a forced request the row after its draft token is never looked at.
        target = target.expand(R, K + 1, target.shape[2])
    if K == 0:
        draft = None
    draft_tokens = draft_tokens.contiguous()
    lengths = None if lengths is None else lengths.contiguous()
    given = _positions(draft_tokens, lengths, target.shape[2])
    p = _read(target, given, lengths, law, extra=1)
    q = p
    if draft is not None:
        settings = Speculation() if law.is_processed else law
        q = _read(draft, given[:, :K], lengths, settings, extra=0)
    factors = torch.empty((R, K + 1), dtype=torch.float64, device=device)
    meta = meta_of(p.logits)
    parts = triton.cdiv(target.shape[2], meta["LANES"] * meta["STEPS"])
    sums = torch.empty((R, rows_a_request, parts, 2), dtype=torch.float64, device=device)
    few = {"PLACES": max(2, triton.next_power_of_2(K + 1)), "WIDE": meta["WIDE"]}
    common = {
        **logits_arguments(p.rows), **_draft_arguments(q.rows),
        "tokens_ptr": draft_tokens if K else given,
        "p_totals_ptr": p.totals, "p_least_ptr": p.totals if p.least is None else p.least,
        "q_totals_ptr": q.totals, "q_least_ptr": q.totals if q.least is None else q.least,
        "factors_ptr": factors, "K": K, **_temperature(law, p.totals),
        "HAS_DRAFT": draft is not None, "HAS_P_LEAST": p.least is not None,
        "HAS_Q_LEAST": draft is not None and q.least is not None,
        "IS_PROCESSED": law.is_processed, "IS_BLOCK": law.is_block,
    }  # fmt: skip
    key = _key(law, p.totals)
    decided = {"accepted_ptr": accepted, "ends_ptr": ends, "bad_ptr": bad}
    forced = {"IS_FORCED": places is not None, "enable_fp_fusion": False}
    with on_device(device):
        open_kernel[(R,)](
            **common, **key, **decided, **few, **forced, tops_ptr=p.tops,
            lengths_ptr=p.tops if lengths is None else lengths, HAS_LENGTHS=lengths is not None,
            top_k_ptr=law.top_k if isinstance(law.top_k, Tensor) else p.tops,
            top_p_ptr=law.top_p if isinstance(law.top_p, Tensor) else p.totals,
            HAS_TOP_K=isinstance(law.top_k, Tensor), HAS_TOP_P=isinstance(law.top_p, Tensor),
            log_prob_ptr=log_prob, num_warps=1,
        )  # fmt: skip
        weigh_kernel[(R * rows_a_request, parts)](
            **common, places_ptr=accepted, lengths_ptr=ends, sums_ptr=sums,
            rows_a_request=rows_a_request, **meta,
        )  # fmt: skip
        draw_kernel[(R,)](
            **common, **key, **decided, **forced, tops_ptr=p.tops,
            places_ptr=accepted if places is None else places, sums_ptr=sums, out_ptr=tokens,
            log_prob_ptr=log_prob, invalid_ptr=is_invalid, parts=parts,
            rows_a_request=rows_a_request, PLACES=few["PLACES"],
            **{name: value for name, value in meta.items() if name != "enable_fp_fusion"},
        )  # fmt: skip
    return tokens, accepted, log_prob, is_invalid


def _positions(tokens: Tensor, lengths: Tensor | None, V: int) -> Tensor:
    """Return the entry that each row's sum is taken against, int64 [R, K + 1]."""
    K = tokens.shape[1]
    inside = torch.where((tokens >= 0) & (tokens < V), tokens, 0).long()
    inside = torch.nn.functional.pad(inside, (0, 1))
    if lengths is None:
        return inside
    places = torch.arange(K + 1, device=tokens.device)
    return torch.where(places <= lengths[:, None], inside, NOT_READ)


def _read(
    logits: Tensor, given: Tensor, lengths: Tensor | None, law: Speculation, extra: int
) -> Side:
    """Return rows with their totals, and what they keep."""
    T: Tensor | float = law.temperature
    has_greedy = isinstance(T, Tensor) or T == 0.0
    if isinstance(T, Tensor):
        T = torch.where(T == 0.0, 1.0, T)[:, None]
    elif T == 0.0:
        T = 1.0
    given = given.contiguous()
    rows = as_rows(logits)
    if given.numel() == 0:
        empty = torch.empty((*given.shape, 2), dtype=torch.float64, device=logits.device)
        return Side(rows, empty, None, given)
    _, totals = target_log_prob(logits, given, T, NOT_READ)
    has_filter = not (
        isinstance(law.top_k, int) and law.top_k == 0
        and isinstance(law.top_p, float) and law.top_p == 1.0
    )  # fmt: skip
    if not (has_greedy or has_filter):
        return Side(rows, totals, None, given)
    least = torch.empty(given.shape, dtype=torch.float64, device=logits.device)
    tops = torch.empty_like(given)
    number = not isinstance(law.top_k, Tensor), not isinstance(law.top_p, Tensor)
    meta = meta_of(rows.tensors[0])
    with on_device(logits.device):
        filter_kernel[(rows.length,)](
            **logits_arguments(rows),
            lengths_ptr=given if lengths is None else lengths, extra=extra,
            HAS_LENGTHS=lengths is not None, **_temperature(law, totals),
            top_k_ptr=given if number[0] else law.top_k, top_k=law.top_k if number[0] else 0,
            top_p_ptr=totals if number[1] else law.top_p, top_p=law.top_p if number[1] else 1.0,
            HAS_TOP_K=not number[0], HAS_TOP_P=not number[1],
            totals_ptr=totals, least_ptr=least, tops_ptr=tops,
            rows_a_request=given.shape[1], **meta,
        )  # fmt: skip
    return Side(rows, totals, least, tops)


def _draft_arguments(rows: RowLayout) -> dict[str, Any]:
    names = ("inner", "outer_stride", "inner_stride", "stride")
    found = logits_arguments(rows)
    return {"draft_ptr": found["logits_ptr"], **{f"draft_{name}": found[name] for name in names}}


def _temperature(law: Speculation, unused: Tensor) -> dict[str, Any]:
    T = law.temperature
    has_T = isinstance(T, Tensor)
    return {
        "temperature_ptr": T if has_T else unused, "temperature_stride": 1,
        "temperature": 1.0 if has_T else T, "HAS_TEMPERATURE": has_T,
    }  # fmt: skip


def _key(law: Speculation, unused: Tensor) -> dict[str, Any]:
    own = has_own_seeds(law)
    has_seed, has_ids = isinstance(law.seed, Tensor), isinstance(law.row_offset, Tensor)
    return {
        "seed_ptr": law.seed if has_seed else unused, "seed": 0 if has_seed else law.seed,
        "seed_step": int(own), "HAS_SEED": has_seed,
        "ids_ptr": law.row_offset if has_ids else unused,
        "row_offset": 0 if has_ids else law.row_offset, "id_step": int(not own),
        "HAS_IDS": has_ids,
    }  # fmt: skip
