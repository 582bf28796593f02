"""The definition of a speculative step, in float64 torch.

R requests of up to K draft tokens. p are the laws of the target's rows, q those of the draft's:
after temperature, top_k and top_p. Shapes: rows are [R, K + 1] of the target, [R, K] of the draft.
"""

from __future__ import annotations

import math

import torch

from rskernels.kernels.reference.rows import accepts, log_softmax
from rskernels.law.numbers import LEAST_LOG
from rskernels.law.philox import row_uniforms, row_uniforms_64
from rskernels.law.speculation import Speculated, Speculation, ids_of
from rskernels.law.streams import Stream


def speculate(
    target: torch.Tensor,  # [R, K + 1, V]
    draft_tokens: torch.Tensor,  # [R, K]
    draft: torch.Tensor | None,  # [R, K, V]
    lengths: torch.Tensor | None,  # [R]
    law: Speculation,
) -> Speculated:
    """Accept draft tokens, draw the one that follows; (tokens, accepted, log_prob, counts).

    A request ends at the first row that has no law: nothing is drawn there.
    """
    R, K, V = draft_tokens.shape[0], draft_tokens.shape[1], target.shape[-1]
    places = torch.arange(K + 1, device=target.device)
    L = torch.full((R,), K, device=target.device) if lengths is None else lengths.long()
    misplaced = (L < 0) | (L > K)
    L = torch.where(misplaced, 0, L)

    p, bad = processed(target, law)
    bad |= misplaced[:, None]
    outside = (draft_tokens < 0) | (draft_tokens >= V)
    tokens = torch.where(outside, 0, draft_tokens).long()
    if draft is None:
        q, draft_is_bad = torch.zeros_like(p[:, :K]).scatter_(-1, tokens[..., None], 1.0), outside
    else:
        q, draft_is_bad = processed(draft, Speculation() if law.is_processed else law)
        # Where the target is certain, what the draft was drawn from does not matter.
        draft_is_bad = (draft_is_bad & ~is_greedy(law, R, p.device)[:, None]) | outside
    bad[:, :K] |= draft_is_bad & (places[:K] < L[:, None])
    first_bad = torch.where(bad & (places <= L[:, None]), places, K + 1).amin(-1)
    L = torch.minimum(L, first_bad)

    ids = ids_of(law, R, target.device)
    u = p.new_zeros(R, K)
    for k in range(K):
        u[:, k] = row_uniforms(ids, k, law.seed, Stream.SPECULATE)
    p_of = p[:, :K].gather(-1, tokens[..., None])[..., 0]
    q_of = q.gather(-1, tokens[..., None])[..., 0]
    if law.is_block:
        accepted, factor = by_block(p, q, p_of, q_of, u, L)
    else:
        # A token that the draft cannot have drawn is rejected.
        log_ratio = torch.where(q_of > 0, p_of.log() - q_of.log(), -math.inf)
        is_accepted = accepts(log_ratio, u) & (places[:K] < L[:, None])
        accepted = is_accepted.long().cumprod(-1).sum(-1)
        factor = torch.ones_like(p[:, 0, 0])
    is_greedy_row = is_greedy(law, R, p.device)
    matches = ((p_of == 1.0) & (places[:K] < L[:, None])).long().cumprod(-1).sum(-1)
    accepted = torch.where(is_greedy_row, matches, accepted)

    row = torch.arange(R, device=target.device)
    p_here, invalid = p[row, accepted], accepted >= first_bad
    is_rejected = (accepted < L) & ~is_greedy_row
    q_here = q[row, accepted.clamp(max=K - 1)] if K else torch.zeros_like(p_here)
    weights = weights_of(p_here, q_here, factor, is_rejected)
    drawn = draw(weights, row_uniforms_64(ids, accepted, law.seed, Stream.RESIDUAL))
    drawn = torch.where(invalid, -1, drawn)

    before, here = places < accepted[:, None], places == accepted[:, None]
    padded = torch.nn.functional.pad(tokens, (0, 1))
    result = torch.where(before, padded, torch.where(here, drawn[:, None], -1))
    log_prob = p.gather(-1, result.clamp(min=0)[..., None])[..., 0].log()
    log_prob = torch.where(result >= 0, log_prob, math.nan)
    given = torch.where(misplaced, 0, K if lengths is None else lengths.long()).sum()
    return result, accepted, log_prob, torch.stack([accepted.sum(), given, invalid.sum()])


def by_block(
    p: torch.Tensor,  # [R, K + 1, V]
    q: torch.Tensor,  # [R, K, V]
    p_of: torch.Tensor,  # [R, K]
    q_of: torch.Tensor,  # [R, K]
    u: torch.Tensor,  # [R, K]
    L: torch.Tensor,  # [R]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how many tokens block verification accepts, and what p is multiplied by where it ends.

    Sun et al., "Block verification accelerates speculative decoding", 2024, algorithm 2: with
    c_0 = 1, c_i = min(1, c_{i-1} p/q) of token i, and s_i the sum of (c_i p - q)+ over the row that
    follows, the first i tokens are accepted with probability s_i / (s_i + 1 - c_i), the last ones
    with c_L; the longest prefix that is accepted counts.
    """
    accepted, kept = torch.zeros_like(L), torch.ones_like(p_of[:, 0]) if p_of.shape[1] else None
    if kept is None:
        return accepted, torch.ones_like(p[:, 0, 0])
    factor = kept
    for i in range(1, p_of.shape[1] + 1):
        ratio = torch.where(q_of[:, i - 1] > 0, p_of[:, i - 1] / q_of[:, i - 1], 0.0)
        factor = (factor * ratio).clamp(max=1.0)
        h = factor
        if i < p_of.shape[1]:
            s = residual_of(p[:, i], q[:, i], factor).sum(-1)
            h = torch.where(i < L, certainty_of(s, factor), factor)
        is_longest = (u[:, i - 1].double() <= h) & (i <= L)
        accepted = torch.where(is_longest, i, accepted)
        kept = torch.where(is_longest, factor, kept)
    return accepted, kept


def certainty_of(s: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return s / (s + 1 - c); 1 where both are 0: the laws agree, a longer prefix is certain."""
    rest = s + 1 - factor
    return torch.where(rest > 0, s / rest, 1.0)


def residual_of(p: torch.Tensor, q: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return (c p - q)+ of rows [R, V]."""
    return (factor[:, None] * p - q).clamp(min=0)


def weights_of(
    p: torch.Tensor, q: torch.Tensor, factor: torch.Tensor, is_rejected: torch.Tensor
) -> torch.Tensor:
    """Return what a token is drawn by: the residual where one was rejected, if there is any."""
    residual = residual_of(p, q, factor)
    has_residual = is_rejected & (residual.sum(-1) > 0)
    return torch.where(has_residual[:, None], residual, p)


def processed(logits: torch.Tensor, law: Speculation) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probabilities of rows [R, k, V] after all settings, and which rows have none."""
    R = logits.shape[0]
    T, k, top_p = (
        torch.as_tensor(value, dtype=dtype, device=logits.device).expand(R)[:, None]
        for value, dtype in (
            (law.temperature, torch.float64),
            (law.top_k, torch.int64),
            (law.top_p, torch.float64),
        )
    )
    z, greedy = logits.double(), is_greedy(law, R, logits.device)[:, None]
    log_p, bad = log_softmax(logits, torch.where(greedy, 1.0, T))
    bad |= (k < 0) | ~((top_p > 0) & (top_p <= 1))
    ranked, order = z.sort(-1, descending=True)
    last = torch.where(k > 0, k, logits.shape[-1]).clamp(1, logits.shape[-1]).long() - 1
    least = ranked.gather(-1, last.expand(bad.shape)[..., None])
    log_p = torch.where(z >= least, log_p, -math.inf).log_softmax(-1)
    mass = log_p.gather(-1, order).exp().cumsum(-1)
    enough = mass >= top_p[..., None] * mass[..., -1:]
    nucleus = ranked.gather(-1, enough.long().argmax(-1)[..., None])
    nucleus = torch.where(top_p[..., None] < 1, nucleus, -math.inf)
    p = torch.where(z >= nucleus, log_p, -math.inf).softmax(-1)
    p = torch.where(p.log() < LEAST_LOG, 0.0, p)
    top = torch.zeros_like(p).scatter_(-1, z.argmax(-1, keepdim=True), 1.0)
    return torch.where(greedy[..., None], top, p), bad


def is_greedy(law: Speculation, requests: int, device: torch.device) -> torch.Tensor:
    """Return which requests take the largest logit, bool [R]."""
    return torch.as_tensor(law.temperature, device=device).expand(requests) == 0


def draw(weights: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Return the first entry [R] by which the weights [R, V] sum to u of their total."""
    sums = weights.cumsum(-1)
    return (sums >= u[:, None] * sums[:, -1:]).long().argmax(-1)
