"""Speculative steps on logits that are not stored: few of their rows exist at a time.

Where draft tokens are decided one by one, by whole softmaxes, their log-probabilities are those of
``target_log_prob``, and rows are made only where a token is drawn. All other requests have their
rows made, a few requests at a time: on a GPU that is all of them where a setting is a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels.kernels.product import Product
from rskernels.law.numbers import LEAST_LOG
from rskernels.law.philox import row_uniforms
from rskernels.law.speculation import Speculated, Speculation, has_own_seeds, ids_of
from rskernels.law.streams import Stream

NOT_READ = -100  # as the target of a row


class Backend(NamedTuple):
    """What a backend gives."""

    linear_log_prob: Callable[..., Any]
    """Its ``linear.target_log_prob``."""
    log_prob: Callable[..., Any]
    """Its ``target_log_prob``."""
    logits: Callable[[Product, Tensor], Tensor]
    """Makes the logits [n, V] of rows that are named, int64 [n]."""
    run_steps: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
    check: Callable[[Tensor, Tensor | None, int], None]
    """Raises for draft tokens and lengths that are none, where that can be told."""
    rows: int
    """How many are made at a time."""


def speculate_product(
    backend: Backend,
    product: Product,
    draft_tokens: Tensor,
    draft: Tensor | None,
    lengths: Tensor | None,
    law: Speculation,
) -> Speculated:
    """Accept draft tokens, draw the one that follows; (tokens, accepted, log_prob, counts)."""
    R, K = draft_tokens.shape
    backend.check(draft_tokens, lengths, len(product.weight))
    L = torch.full((R,), K, device=draft_tokens.device) if lengths is None else lengths.long()
    given = torch.where((L < 0) | (L > K), 0, L).sum()
    step = _by_blocks
    plain = R > 0 and _are_plain(law)
    if isinstance(plain, Tensor):
        step = _by_log_prob if plain.all() else _by_both if plain.any() else _by_blocks
    elif plain:
        step = _by_log_prob
    tokens, accepted, log_prob, invalid = step(backend, product, draft_tokens, draft, L, law)
    return tokens, accepted, log_prob, torch.stack([accepted.sum(), given, invalid.sum()])


def _are_plain(law: Speculation) -> Tensor | bool:
    """Say whether requests are decided one by one, by whole softmaxes; of all, or of each."""
    plain: Tensor | bool = not law.is_block
    settings = (
        (law.temperature, lambda T: T > 0),
        (law.top_k, lambda k: k == 0),
        (law.top_p, lambda share: share == 1.0),
    )
    for value, is_plain in settings:
        if isinstance(value, Tensor) and not value.is_cpu:
            return False  # reading it would wait for the device
        plain = plain & is_plain(value)
    return plain


def _by_both(
    backend: Backend,
    product: Product,
    draft_tokens: Tensor,
    draft: Tensor | None,
    L: Tensor,
    law: Speculation,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Take each request's steps as without its neighbours, whose settings are others."""
    (R, K), D = draft_tokens.shape, product.hidden.shape[1]
    plain = torch.as_tensor(_are_plain(law))
    hidden = product.hidden.view(R, K + 1, D)
    if not has_own_seeds(law):
        law = law._replace(row_offset=ids_of(law, R, L.device))
    numbers, seen = [], []
    for step, chosen in ((_by_log_prob, plain), (_by_blocks, ~plain)):
        part = chosen.nonzero().flatten()
        own = product._replace(hidden=hidden[part].view(-1, D))
        own_draft = None if draft is None else draft[part]
        seen.append(step(backend, own, draft_tokens[part], own_draft, L[part], _part_of(law, part)))
        numbers.append(part)
    order = torch.cat(numbers).argsort()
    tokens, accepted, log_prob, invalid = (
        torch.cat(parts)[order] for parts in zip(*seen, strict=True)
    )
    return tokens, accepted, log_prob, invalid


def _by_blocks(
    backend: Backend,
    product: Product,
    draft_tokens: Tensor,
    draft: Tensor | None,
    L: Tensor,
    law: Speculation,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Make all rows of a few requests, and take their steps."""
    R, K = draft_tokens.shape
    V, size = len(product.weight), max(1, backend.rows // (K + 1))
    seen = []
    for start in range(0, max(R, 1), size):
        part = slice(start, min(R, start + size))
        count = part.stop - start
        numbers = torch.arange(start * (K + 1), part.stop * (K + 1), device=L.device)
        z = backend.logits(product, numbers).view(count, K + 1, V)
        own_draft = None if draft is None else draft[part].to(z.dtype)
        own_law = _part_of(law, part)
        seen.append(backend.run_steps(z, draft_tokens[part], own_draft, L[part], own_law))
    tokens, accepted, log_prob, invalid = (torch.cat(parts) for parts in zip(*seen, strict=True))
    return tokens, accepted, log_prob, invalid


def _by_log_prob(
    backend: Backend,
    product: Product,
    draft_tokens: Tensor,
    draft: Tensor | None,
    L: Tensor,
    law: Speculation,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Decide by log-probabilities, then make the rows at which tokens are drawn."""
    R, K = draft_tokens.shape
    V, device = len(product.weight), draft_tokens.device
    row, places = torch.arange(R, device=device), torch.arange(K, device=device)
    misplaced = (L < 0) | (L > K)
    L = torch.where(misplaced, 0, L)
    tokens, is_draft = draft_tokens.long(), places < L[:, None]
    outside = (tokens < 0) | (tokens >= V)
    targets = torch.where(is_draft & ~outside, tokens, NOT_READ)
    log_p, log_q = _log_probs(backend, product, targets, draft, law)

    bad = is_draft & (outside | log_p.isnan() | log_q.isnan())
    first_bad = torch.where(bad, places, K + 1).amin(-1) if K else torch.full_like(L, K + 1)
    first_bad = torch.where(misplaced, 0, first_bad)
    ids = ids_of(law, R, device)
    is_accepted = is_draft & (places < first_bad[:, None])
    for place in range(K):
        u = row_uniforms(ids, place, law.seed, Stream.SPECULATE)
        log_r = log_p[:, place].double() - log_q[:, place].double()
        is_possible = (log_p[:, place] >= LEAST_LOG) & (log_q[:, place] >= LEAST_LOG)
        is_accepted[:, place] &= is_possible & (log_r >= u.double().log())
    accepted = is_accepted.long().cumprod(-1).sum(-1)
    invalid = accepted >= first_bad

    is_rejected = (accepted < torch.minimum(L, first_bad)).long()
    last = accepted.clamp(max=max(K - 1, 0))
    rejected = tokens[row, last, None] if K else torch.zeros(R, 1, dtype=torch.int64, device=device)
    rejected = torch.where((rejected < 0) | (rejected >= V), 0, rejected)
    drawn, log_drawn = [], []
    for start in range(0, R, backend.rows):
        part = slice(start, min(R, start + backend.rows))
        numbers = row[part] * (K + 1) + accepted[part]
        z = backend.logits(product, numbers)[:, None]
        own_draft = None
        if draft is not None and K:
            own_draft = draft[row[part], last[part], None].to(z.dtype)
        seen = backend.run_steps(
            z, rejected[part], own_draft, is_rejected[part], _part_of(law, part), accepted[part]
        )
        drawn.append(seen[0][:, 0])
        log_drawn.append(seen[2][:, 0])
    own, log_own = torch.cat(drawn), torch.cat(log_drawn)
    invalid = invalid | (own < 0)
    own = torch.where(invalid, -1, own)

    places = torch.arange(K + 1, device=device)
    is_before, is_here = places < accepted[:, None], places == accepted[:, None]
    pad = torch.nn.functional.pad
    result = torch.where(is_before, pad(tokens, (0, 1)), torch.where(is_here, own[:, None], -1))
    log_prob = torch.where(is_before, pad(log_p, (0, 1)), log_own[:, None])
    return result, accepted, torch.where(result >= 0, log_prob, torch.nan), invalid


def _log_probs(
    backend: Backend, product: Product, targets: Tensor, draft: Tensor | None, law: Speculation
) -> tuple[Tensor, Tensor]:
    """Return log p and log q [R, K] of the targets, 0 of those that are not read."""
    (R, K), D = targets.shape, product.hidden.shape[1]
    T = law.temperature
    if isinstance(T, Tensor):
        T = T[:, None].expand(R, K).contiguous()
    hidden = product.hidden.view(R, K + 1, D)[:, :K].reshape(R * K, D)
    log_p = backend.linear_log_prob(product._replace(hidden=hidden), targets, T, NOT_READ)[0]
    if draft is None:
        return log_p, torch.zeros_like(log_p)
    T = 1.0 if law.is_processed else T
    return log_p, backend.log_prob(draft, targets, T, NOT_READ)[0]


def _part_of(law: Speculation, part: slice | Tensor) -> Speculation:
    """Return the law of a part of the requests."""
    seed, ids = law.seed, law.row_offset
    if isinstance(ids, Tensor):
        ids = ids[part]
    elif isinstance(part, slice) and not has_own_seeds(law):
        # 64 bits: the ids behind the last go on at the first.
        ids = (ids + part.start + (1 << 63)) % (1 << 64) - (1 << 63)
    if isinstance(seed, Tensor) and has_own_seeds(law):
        seed = seed[part]
    T, top_k, top_p = law.temperature, law.top_k, law.top_p
    return law._replace(
        temperature=T[part] if isinstance(T, Tensor) else T,
        top_k=top_k[part] if isinstance(top_k, Tensor) else top_k,
        top_p=top_p[part] if isinstance(top_p, Tensor) else top_p,
        seed=seed,
        row_offset=ids,
    )
