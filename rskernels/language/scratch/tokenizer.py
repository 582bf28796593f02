"""Tokenizers that are made here, of words or of characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PAD, BEGIN, END, UNKNOWN = "<pad>", "<begin>", "<end>", "<unknown>"


def word_tokenizer(words: Sequence[str]) -> Any:
    """Return a ``PreTrainedTokenizerFast`` of words with white space between.

    Parameters
    ----------
    words : sequence of str
        All words there are, none twice and none with white space. Any other is ``<unknown>``.

    Returns
    -------
    PreTrainedTokenizerFast
        With ``<pad>``, ``<begin>``, ``<end>`` and ``<unknown>`` as the first four tokens; pads on
        the left, as generation in batches wants it.
    """
    from tokenizers import pre_tokenizers

    return _tokenizer(words, pre_tokenizers.WhitespaceSplit(), None)


def character_tokenizer(characters: str) -> Any:
    """Return a ``PreTrainedTokenizerFast`` with a token a character, as ``word_tokenizer`` does."""
    from tokenizers import Regex, decoders, pre_tokenizers

    return _tokenizer(characters, pre_tokenizers.Split(Regex("."), "isolated"), decoders.Fuse())


def _tokenizer(words: Sequence[str], split: Any, decoder: Any) -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    for word in words:
        if not word or word.split() != [word]:
            raise ValueError(f"words must be without white space and not empty, got {word!r}")
    all_words = [PAD, BEGIN, END, UNKNOWN, *words]
    ids = {word: i for i, word in enumerate(all_words)}
    if len(ids) < len(all_words):
        twice = next(w for i, w in enumerate(all_words) if ids[w] != i)
        raise ValueError(f"words must differ, got {twice!r} twice")
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = split
    if decoder is not None:
        tokenizer.decoder = decoder
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
