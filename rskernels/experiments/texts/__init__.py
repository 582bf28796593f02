"""Texts: a long-tailed set of made-up words, and texts as tokens."""

from rskernels.experiments.texts.bigrams import draw_texts
from rskernels.experiments.texts.tokens import to_tokens

__all__ = ["draw_texts", "to_tokens"]
