"""Small language models that are made here, without a download: tokenizer, network, training.

`start` makes the models that the tasks begin with, from `model` and `tokenizer`.
"""

from rskernels.language.scratch.model import small_gpt
from rskernels.language.scratch.start import starting_policy, supervised, write_start
from rskernels.language.scratch.tokenizer import character_tokenizer, word_tokenizer

__all__ = [
    "character_tokenizer",
    "small_gpt",
    "starting_policy",
    "supervised",
    "word_tokenizer",
    "write_start",
]
