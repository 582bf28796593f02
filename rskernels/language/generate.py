"""Answers of a model, sampled in batches, with draws that do not depend on the batch.

The uniform of a token follows from the seed, the row's id (made of round, prompt and sample number)
and the token's place in the answer. So neither the size of a batch, nor its order, nor the number
of processes changes an answer, as long as the model's probabilities are the same: to the bit where
batches are cut alike, and up to rounding where they are not.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels._python.extras import LANGUAGE_HINT, framework
from rskernels.language.policy import WHAT, Policy
from rskernels.law.philox import row_uniforms_64
from rskernels.law.streams import Stream
from rskernels.rsft.errors import TrainingError

MOST_NUMBERS = 1 << 22  # entries of the laws that are in memory as float64 at a time
AHEAD = 32  # tokens whose uniforms are made together
WORTH_DROPPING = 0.75  # once no more of a batch still run, the others are dropped from its cache


class Answer(NamedTuple):
    """An answer of the model."""

    tokens: list[int]
    """With the token that ended it, if one did."""
    ended: bool
    """Whether a token ended it; False if it was cut at the longest length."""
    log_prob: float
    """Sum over its tokens, by the law that they were drawn from; 0 of the most likely answer."""


@torch.no_grad()
def generate(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    ids: Tensor | None,
    *,
    seed: int,
    temperature: float,
    max_new_tokens: int,
) -> list[Answer]:
    """Sample answers to prompts, all in one batch.

    Parameters
    ----------
    policy : Policy
        The model is put into eval mode.
    prompts : sequence of sequence of int
        Tokens of each.
    ids : Tensor or None
        int64 ``[prompts, K]`` on the CPU: the id of each answer. None asks for the most likely
        token at every place, and one answer to each prompt.
    seed : int
        63 bits.
    temperature : float
        Above 0: what logits are divided by.
    max_new_tokens : int
        At least 1.

    Returns
    -------
    list of Answer
        K to each prompt, prompt by prompt.
    """
    policy.causal.eval()
    K = 1 if ids is None else ids.shape[1]
    rows = len(prompts) * K
    state = _Batch(policy, prompts, K)
    names = None if ids is None else ids.flatten().to(policy.device)
    tokens = torch.zeros(rows, max_new_tokens, dtype=torch.int64)
    lengths = torch.zeros(rows, dtype=torch.int64)
    ended = torch.zeros(rows, dtype=torch.bool)
    log_probs = torch.zeros(rows, dtype=torch.float64)
    ends = torch.tensor(policy.ends, device=policy.device)
    u = torch.empty(0)
    for place in range(max_new_tokens):
        rows_left = state.rows  # [left], on the CPU: which rows still run
        if names is None:
            drawn = state.logits.argmax(-1)
        else:
            if place % AHEAD == 0:
                columns = torch.arange(place, place + AHEAD, device=policy.device)
                u = row_uniforms_64(names[:, None], columns, seed, Stream.GENERATE)
            drawn, log_prob = draw(state.logits, u[state.on_device, place % AHEAD], temperature)
            log_probs[rows_left] += log_prob.cpu()
        is_end = torch.isin(drawn, ends)
        tokens[rows_left, place] = drawn.cpu()
        lengths[rows_left] += 1
        ended[rows_left] = is_end.cpu()
        if not state.advance(drawn, ~is_end, is_last=place + 1 == max_new_tokens):
            break
    listed, counts = tokens.tolist(), lengths.tolist()
    return [
        Answer(row[:count], end, log_prob)
        for row, count, end, log_prob in zip(
            listed, counts, ended.tolist(), log_probs.tolist(), strict=True
        )
    ]


def draw(logits: Tensor, u: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Draw an entry of each row by its uniform, through the inverse of the distribution function.

    Parameters
    ----------
    logits : Tensor
        Floating ``[N, V]``.
    u : Tensor
        float64 ``[N]`` in (0, 1].
    temperature : float
        What logits are divided by.

    Returns
    -------
    (Tensor, Tensor)
        int64 ``[N]``, the smallest v with F(v) at least u, and float64 ``[N]``, its
        log-probability.

    Raises
    ------
    TrainingError
        If a row has a NaN or +inf logit, or only -inf.
    """
    step = max(1, MOST_NUMBERS // logits.shape[-1])
    drawn, log_probs = [], []
    for part, of in zip(logits.split(step), u.split(step), strict=True):
        law = (part.double() / temperature).softmax(-1)
        distribution = law.cumsum(-1)
        if not bool(distribution[:, -1].isfinite().all()):
            raise TrainingError(
                "no token follows from the model's logits, which are NaN or infinite; a smaller lr "
                "may help"
            )
        # Scaled by the sum as it is rounded, so that no draw lies beyond it.
        level = (of * distribution[:, -1])[:, None].minimum(distribution[:, -1:])
        index = torch.searchsorted(distribution, level).clamp(max=law.shape[-1] - 1)
        drawn.append(index[:, 0])
        log_probs.append(law.gather(-1, index)[:, 0].log())
    return torch.cat(drawn), torch.cat(log_probs)


class _Batch:
    """Rows that still run: their cache of keys and values, and the logits of their next token."""

    def __init__(self, policy: Policy, prompts: Sequence[Sequence[int]], K: int) -> None:
        with framework(WHAT, LANGUAGE_HINT):
            from transformers import DynamicCache
        self.policy = policy
        longest = max(map(len, prompts))
        filled = [[policy.pad] * (longest - len(p)) + list(p) for p in prompts]
        present = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
        device = policy.device
        # Models without this argument count places by the mask.
        named = inspect.signature(policy.causal.forward).parameters
        self._takes_places = "position_ids" in named
        self._cache_name = "cache" if "cache" in named else "past_key_values"
        self.cache: Any = DynamicCache(config=policy.causal.config)
        self.mask = torch.tensor(present, device=device)
        logits = self._run(torch.tensor(filled, device=device), self.mask.cumsum(-1) - 1)
        # A prompt is read once for all its answers.
        if K > 1:
            self.cache.batch_repeat_interleave(K)
        self.logits = logits.repeat_interleave(K, 0)
        self.mask = self.mask.repeat_interleave(K, 0)
        self.places = self.mask.sum(-1)  # of the next token
        self.rows = torch.arange(len(prompts) * K)
        self.on_device = self.rows.to(device)
        self._held = self.on_device  # the rows of the cache, of which some may have ended
        self._left = torch.ones_like(self._held, dtype=torch.bool)

    def advance(self, drawn: Tensor, runs: Tensor, *, is_last: bool) -> bool:
        """Run the rows that have not ended on the tokens drawn; say whether there is a next token.

        Rows that have ended stay in the cache until they are many.
        """
        token = torch.full_like(self._held, self.policy.pad)
        token[self._left] = drawn
        left = self._left.clone()
        left[self._left] = runs
        count = int(left.sum())
        if count == 0 or is_last:
            return False
        if count <= WORTH_DROPPING * len(left):
            kept = left.nonzero()[:, 0]
            self.cache.batch_select_indices(kept)
            token, self.mask, self.places = token[kept], self.mask[kept], self.places[kept]
            self._held, left = self._held[kept], torch.ones_like(kept, dtype=torch.bool)
        self._left = left
        self.mask = torch.cat([self.mask, torch.ones_like(token)[:, None]], -1)
        logits = self._run(token[:, None], self.places[:, None])
        self.places = self.places + 1
        self.logits, self.on_device = (logits, self._held) if left.all() else (
            logits[left], self._held[left]
        )  # fmt: skip
        self.rows = self.on_device.cpu()
        return True

    def _run(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Return the logits of the token after the last, ``[rows, V]``."""
        given: dict[str, Any] = {self._cache_name: self.cache}
        if self._takes_places:
            given["position_ids"] = positions.clamp(min=0)
        logits: Tensor = self.policy.causal(
            input_ids=ids,
            attention_mask=self.mask,
            use_cache=True,
            logits_to_keep=1,
            **given,
        ).logits[:, -1]
        return logits
