"""Texts as numbers: by a tokenizer of a folder, or by one that is trained on them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from rskernels._python.extras import LANGUAGE_HINT, framework
from rskernels.rsft.errors import DataError
from rskernels.rsft.say import say

PADDING = -1  # what follows a text that is shorter than others
VOCABULARY = 4096  # at most, of a tokenizer that is trained
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")

Encode = Callable[[list[str]], list[list[int]]]


def to_tokens(parts: Sequence[list[str]], folder: Path | None, most: int) -> list[Tensor]:
    """Return texts as tokens, int64 ``[N, most]``, with −1 behind their ends.

    Parameters
    ----------
    parts : sequence of list of str
        To train on, and to test on. A tokenizer is trained on the first alone.
    folder : Path, optional
        Of a tokenizer. Where it holds none, and with None, a byte-level BPE of at most 4,096
        tokens is trained.
    most : int
        Tokens that are read of a text. That texts are longer is said.

    Raises
    ------
    DataError
        If the tokenizer cannot be read, or a text has no token.
    ModuleNotFoundError
        If transformers, or its tokenizers, are not installed.
    """
    has_one = folder is not None and any((folder / name).is_file() for name in TOKENIZERS)
    with quiet_forks():
        encode = _read(folder) if has_one and folder is not None else _trained(parts[0])
        rows = [encode(part) for part in parts]
    every = [row for part in rows for row in part]
    texts = [text for part in parts for text in part]
    empty = [text for text, row in zip(texts, every, strict=True) if not row]
    if empty:
        raise DataError(f"{len(empty)} texts have no token, {empty[0][:40]!r} first")
    longer = sum(len(row) > most for row in every)
    if longer:
        say(
            f"{longer} of {len(every)} texts have more than max_tokens={most}: the rest is not read"
        )
    return [_padded(part, most) for part in rows]


def _padded(rows: list[list[int]], most: int) -> Tensor:
    width = min(most, max(map(len, rows)))
    padded = torch.full((len(rows), width), PADDING)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = torch.tensor(row[:width])
    return padded


def _read(folder: Path) -> Encode:
    with framework("a tokenizer of transformers", LANGUAGE_HINT):
        from transformers import AutoTokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"the tokenizer of {folder} cannot be read: {error}") from error

    def encode(texts: list[str]) -> list[list[int]]:
        rows: list[list[int]] = tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        return rows

    return encode


def _trained(texts: list[str]) -> Encode:
    with framework("a tokenizer", LANGUAGE_HINT):
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        show_progress=False,
        # With every byte, no text has a character that it cannot write.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return lambda texts: [each.ids for each in tokenizer.encode_batch(texts)]


@contextmanager
def quiet_forks() -> Iterator[None]:
    """Keep tokenizers from starting threads, of which they warn at every fork that follows."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = before or "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
