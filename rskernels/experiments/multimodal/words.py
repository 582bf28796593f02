"""Written words of the ten digits, with errors of typing."""

import torch
from torch import Tensor

from rskernels.rsft.errors import DataError

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Of a word each error makes at most one letter more.
ERRORS = 2
LONGEST = max(map(len, WORDS)) + ERRORS
ATTEMPTS = 1000  # at one word more, before there are held to be no others

# Each row of a QWERTY keyboard is a quarter, then a half, of a key right of the one above.
KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
OFFSETS = (0.0, 0.25, 0.75)
PLACES = {
    key: (column + offset, float(row))
    for row, (keys, offset) in enumerate(zip(KEYBOARD, OFFSETS, strict=True))
    for column, key in enumerate(keys)
}
NEIGHBOURS = {
    key: [
        other
        for other, (i, j) in PLACES.items()
        if other != key and (x - i) ** 2 + (y - j) ** 2 < 1.6
    ]
    for key, (x, y) in PLACES.items()
}


def mistype(word: str, generator: torch.Generator) -> str:
    """Return a word with one error, equally likely of four kinds, at a place drawn at random.

    A letter becomes one of its neighbours on the keyboard, is left out, is typed twice, or changes
    places with the next.
    """

    def draw(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    kind, at = draw(4), draw(len(word))
    letter = word[at]
    if kind == 0:
        near = NEIGHBOURS[letter]
        return word[:at] + near[draw(len(near))] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    if kind == 2:
        return word[:at] + letter + word[at:]
    at = min(at, len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def draw_words(
    counts: Tensor, generator: torch.Generator, without: frozenset[str] = frozenset()
) -> tuple[list[str], Tensor]:
    """Draw words of each digit with one or two errors, no two of them alike.

    Parameters
    ----------
    counts : Tensor
        int64 ``[10]``, how many of each digit.
    generator : torch.Generator
        Source of the errors.
    without : frozenset of str
        Words that must not be drawn.

    Returns
    -------
    (list of str, Tensor)
        The words, and int64 ``[N]``, their digits; in the order of the digits.

    Raises
    ------
    DataError
        If there are not so many.
    """
    drawn: dict[str, int] = {}
    taken = {*without, *WORDS}
    for digit, (word, count) in enumerate(zip(WORDS, counts.tolist(), strict=True)):
        for _ in range(count):
            for _ in range(ATTEMPTS):
                typed = mistype(word, generator)
                if int(torch.randint(2, (), generator=generator)):
                    typed = mistype(typed, generator)
                if typed not in taken:
                    break
            else:
                raise DataError(f"there are not {count} ways to mistype {word!r}")
            taken.add(typed)
            drawn[typed] = digit
    return list(drawn), torch.tensor([*drawn.values()])


def encode(words: list[str]) -> Tensor:
    """Return words as one letter a column of ones, float32 ``[N, 26, LONGEST]``; 0 where it ends.

    Raises
    ------
    ValueError
        If a word is longer than ``LONGEST``, or holds anything but a to z.
    """
    encoded = torch.zeros(len(words), len(LETTERS), LONGEST)
    for row, word in enumerate(words):
        if len(word) > LONGEST:
            raise ValueError(f"{word!r} has more than {LONGEST} letters")
        for place, letter in enumerate(word):
            encoded[row, LETTERS.index(letter), place] = 1
    return encoded
