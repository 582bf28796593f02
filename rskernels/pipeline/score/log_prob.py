"""Log-probabilities of completions by a language model: a model a worker, and no logits stored."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from rskernels._python.extras import LANGUAGE_HINT, framework
from rskernels.ops import target_log_prob
from rskernels.pipeline.score.causal import check_folder, ends_of, linear_logits, read_causal
from rskernels.pipeline.score.scorer import Row, Scores
from rskernels.rsft.errors import DataError

DTYPES = ("auto", "float32", "bfloat16", "float16")
ROUNDING = {torch.float64: 1e-6, torch.float32: 2e-3}
"""How far two log-probabilities may differ by rounding; 0.25 for other dtypes."""


@dataclass(frozen=True)
class LogProb:
    """The sum of log-probabilities of a completion's tokens given its prompt, and their number.

    Conversations are written by the tokenizer's chat template. Rows are batched by length. Cut into
    the same pieces they have the same scores to the bit, else up to the model's rounding.

    Attributes
    ----------
    model : str
        The folder of a causal language model with its tokenizer, as ``save_pretrained`` writes it.
    with_end : bool
        Whether the token that ends an answer counts, as it does in training and in sampling.
    batch_tokens : int
        About how many tokens go through the model at once, padding included.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        Of the weights; "auto" as they are stored.
    device : str, optional
        None: "cuda" if there is one, else "cpu".

    Raises
    ------
    ValueError
        If ``batch_tokens`` is not positive, or there is no such dtype or device.
    """

    model: str
    with_end: bool = True
    batch_tokens: int = 1 << 14
    dtype: str = "auto"
    device: str | None = None

    def __post_init__(self) -> None:
        if self.batch_tokens < 1:
            raise ValueError(f"batch_tokens must be at least 1, got {self.batch_tokens}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        try:
            torch.device(self.device or "cpu")
        except RuntimeError as error:
            raise ValueError(f"there is no device {self.device!r}") from error

    @property
    def usual_name(self) -> str:
        """What the column of the sum is called if no other name is given."""
        return "log_prob"

    @property
    def more(self) -> tuple[str, ...]:
        """The ending of the column of how many tokens there are."""
        return ("_tokens",)

    def check(self, names: Collection[str]) -> None:
        """Raise DataError if the folder holds no model."""
        check_folder(self.model)

    def __call__(self, rows: Sequence[Row], room: int) -> Scores:
        """Score rows."""
        language = _loaded(self)
        values: list[tuple[float, ...] | None] = [None] * len(rows)
        bad: dict[int, str] = {}
        tokens: dict[int, tuple[list[int], list[int]]] = {}
        for n, row in enumerate(rows):
            try:
                tokens[n] = language.tokens_of(row)
            except ValueError as error:
                bad[n] = str(error)
        if len(bad) > room:
            return Scores(values, bad)
        for places in batched(tokens, self.batch_tokens):
            sums = language.log_probs([tokens[n] for n in places])
            for n, total in zip(places, sums, strict=True):
                if np.isfinite(total):
                    values[n] = (float(total), len(tokens[n][1]))
                else:
                    bad[n] = f"the log-probability is {total}"
        return Scores(values, bad)

    def to_dict(self) -> dict[str, Any]:
        """Return what decides scores, for JSON."""
        return {"log_prob": self.model, "with_end": self.with_end, "dtype": self.dtype}


def batched(tokens: dict[int, tuple[list[int], list[int]]], size: int) -> Iterator[list[int]]:
    """Yield rows of about the same length, which padded have at most ``size`` tokens together."""
    lengths = {n: len(prompt) + len(completion) for n, (prompt, completion) in tokens.items()}
    batch: list[int] = []
    for n in sorted(lengths, key=lambda n: (-lengths[n], n)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > size:
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


class Language:
    """A model and its tokenizer.

    Parameters
    ----------
    causal, tokenizer
        Of transformers.
    with_end : bool
        Whether the token that ends an answer belongs to it.
    """

    def __init__(self, causal: Any, tokenizer: Any, with_end: bool) -> None:
        self.causal, self.tokenizer, self.with_end = causal, tokenizer, with_end
        config = causal.config.get_text_config()
        self.longest = getattr(config, "max_position_embeddings", None)
        self.ends = ends_of(causal, tokenizer)
        if with_end and not self.ends:
            raise DataError(
                "no token ends an answer: the model's generation_config or the tokenizer needs an "
                "eos token, or say --no-end"
            )

    def tokens_of(self, row: Row) -> tuple[list[int], list[int]]:
        """Return the tokens of a prompt and of its completion.

        Raises
        ------
        ValueError
            If the prompt has none, there are too many, or the chat template does not fit.
        """
        prompt, completion = row.prompt, row.completion
        is_chat = not isinstance(prompt, str)
        if is_chat:
            prompt, completion = self._written(prompt, completion)
        # A chat template writes the special tokens itself.
        first = self.tokenizer(prompt, add_special_tokens=not is_chat)["input_ids"]
        # Tokenizers of translation models end a text that they are given.
        while first and not is_chat and first[-1] in self.ends and len(first) > 1:
            first = first[:-1]
        second = self.tokenizer(completion, add_special_tokens=False)["input_ids"]
        if not first:
            raise ValueError("the prompt has no tokens")
        if is_chat:
            # What the template writes after the end of the answer is none of the model's.
            last = max((n for n, token in enumerate(second) if token in self.ends), default=None)
            second = second if last is None else second[: last + self.with_end]
        elif self.with_end:
            second = [*second, self.ends[0]]
        count = len(first) + len(second)
        if self.longest is not None and count > self.longest:
            raise ValueError(f"there are {count} tokens, the model takes {self.longest}")
        return first, second

    @torch.inference_mode()
    def log_probs(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Return the sum of each row's completion, in float64."""
        lengths = [len(prompt) + len(completion) for prompt, completion in rows]
        ids = torch.zeros(len(rows), max(lengths), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        at: list[int] = []
        targets: list[int] = []
        for n, (prompt, completion) in enumerate(rows):
            ids[n, : lengths[n]] = torch.tensor(prompt + completion)
            mask[n, : lengths[n]] = 1
            # The place before a token says how probable it is.
            start = n * ids.shape[1] + len(prompt) - 1
            at += range(start, start + len(completion))
            targets += completion
        device = self.causal.device
        hidden = self.causal.base_model(
            input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False
        ).last_hidden_state
        places = torch.tensor(at, dtype=torch.int64, device=device)
        product = linear_logits(self.causal, hidden.flatten(0, 1)[places])
        wanted = torch.tensor(targets, dtype=torch.int64, device=device)
        each = target_log_prob(product, wanted).double().cpu().numpy()
        ends = np.cumsum([0, *(len(completion) for _, completion in rows)])
        return [float(each[a:b].sum()) for a, b in pairwise(ends)]

    @torch.inference_mode()
    def check_head(self) -> None:
        """Raise DataError if the model's logits are not head times hidden state."""
        head = self.causal.get_output_embeddings()
        if head is None:
            raise DataError("the model has no output layer of its own, so no log-probabilities")
        ids = (torch.arange(4, device=self.causal.device) * 7919 % len(head.weight))[None]
        own = self.causal(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
        hidden = self.causal.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
        ours = target_log_prob(linear_logits(self.causal, hidden), ids[0]).double()
        apart = float((ours - own.gather(1, ids[0][:, None])[:, 0]).abs().max())
        if not apart <= ROUNDING.get(hidden.dtype, 0.25):
            raise DataError(
                "the model's logits are not those of its head and last hidden state (log-"
                f"probabilities are {apart:.3g} apart), so they cannot be scored without storing "
                "them"
            )

    def _written(self, prompt: Any, completion: Any) -> tuple[str, str]:
        """Return a conversation as text, as the chat template writes it."""
        options: dict[str, Any] = {"tokenize": False}
        try:
            first = self.tokenizer.apply_chat_template(
                prompt, add_generation_prompt=True, **options
            )
            whole = self.tokenizer.apply_chat_template(prompt + completion, **options)
        except Exception as error:  # of Jinja's, and what a template raises
            raise ValueError(f"the chat template refuses the row: {error}") from error
        if not whole.startswith(first):
            raise ValueError("the chat template writes the prompt otherwise with its completion")
        return first, whole[len(first) :]


@lru_cache(maxsize=1)
def _loaded(scorer: LogProb) -> Language:
    """Return the model of a folder, which a process loads once."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    what = "log-probabilities of completions"
    with framework(what, LANGUAGE_HINT):
        from transformers.utils import logging
    logging.disable_progress_bar()
    device = scorer.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = scorer.dtype if scorer.dtype == "auto" else getattr(torch, scorer.dtype)
    causal, tokenizer = read_causal(scorer.model, dtype, what)
    language = Language(causal.to(device).eval(), tokenizer, scorer.with_end)
    language.check_head()
    return language
