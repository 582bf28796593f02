"""Texts of made-up words whose order tells their class: a long-tailed set that needs no file."""

import itertools

import torch
from torch import Tensor

from rskernels.rsft.data.listed import Texts

CLASSES = 10
MOST = 400  # texts of the most frequent class
TESTED = 50  # of each class
SHORTEST, LONGEST = 6, 16  # words
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
WORDS = 120
# Standard deviations of the log probability of a word after another: in all classes, of a class,
# and of a class by the word alone.
SHARED, OWN, TOPIC = 1.0, 0.8, 0.8


def zipf_sizes(classes: int = CLASSES, most: int = MOST) -> Tensor:
    """Return class sizes by Zipf's law, most/1, most/2, …: int64 ``[classes]``."""
    return (most / torch.arange(1, classes + 1)).round().long()


def draw_texts(generator: torch.Generator) -> tuple[Texts, Texts]:
    """Draw texts to train on, Zipf over the classes, and others to test on, of each class alike.

    A text of class c is a chain of 6 to 16 words, w' after w with probability

        P_c(w'|w) ∝ exp(b_ww' + o_cww' + t_cw'),

    b, o and t normal: what all classes share, what the class has of its own, and its topic. Words
    are of two syllables, and mean nothing.

    Parameters
    ----------
    generator : torch.Generator
        Decides the language, which classes are rare, and the texts.

    Returns
    -------
    (Texts, Texts)
        1,171 and 500 of ten classes.
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    log_next = (
        SHARED * normal(1, WORDS, WORDS)
        + OWN * normal(CLASSES, WORDS, WORDS)
        + TOPIC * normal(CLASSES, 1, WORDS)
    )
    following = log_next.softmax(-1)  # [C, WORDS, WORDS]
    rank = torch.randperm(CLASSES, generator=generator)
    words = _words(generator)
    train, test = (
        torch.arange(CLASSES).repeat_interleave(sizes)
        for sizes in (zipf_sizes()[rank], torch.full((CLASSES,), TESTED))
    )
    both = torch.cat([train, test])
    chain = [torch.randint(WORDS, both.shape, generator=generator)]
    for _ in range(LONGEST - 1):
        odds = following[both, chain[-1]]
        chain.append(torch.multinomial(odds, 1, generator=generator)[:, 0])
    lengths = torch.randint(SHORTEST, LONGEST + 1, both.shape, generator=generator).tolist()
    rows = torch.stack(chain, dim=1).tolist()
    texts = [" ".join(words[w] for w in row[:n]) for row, n in zip(rows, lengths, strict=True)]
    return Texts(texts[: len(train)], train), Texts(texts[len(train) :], test)


def _words(generator: torch.Generator) -> list[str]:
    """Return made-up words of two syllables, no two of them alike."""
    syllables = ["".join(pair) for pair in itertools.product(CONSONANTS, VOWELS)]
    numbers = torch.randperm(len(syllables) ** 2, generator=generator)[:WORDS].tolist()
    return [syllables[n // len(syllables)] + syllables[n % len(syllables)] for n in numbers]
