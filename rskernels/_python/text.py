"""Text where output cannot hold every character: symbols by their names, in ASCII.

A locale that is not UTF-8 has no δ, and printing one would raise.
"""

from __future__ import annotations

import codecs
import sys
import unicodedata
from typing import TextIO

ERRORS = "rskernels.names"

NAMES = {
    "\N{COMBINING CIRCUMFLEX ACCENT}": "^",
    "\N{EN DASH}": "-",
    "\N{MINUS SIGN}": "-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{MIDDLE DOT}": "*",
    "\N{PLUS-MINUS SIGN}": "+/-",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{PROPORTIONAL TO}": "~",
    "\N{INFINITY}": "inf",
    "\N{SQUARE ROOT}": "sqrt",
}


def printable(text: str) -> str:
    """Return a text as standard output can hold it: unchanged where that is UTF-8."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, ERRORS).decode(encoding, "surrogateescape")


def never_fail(stream: TextIO | None) -> None:
    """Let a stream print what its encoding lacks by name, and bytes of file names as they are."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors=ERRORS)


def _name(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what stands for the first character that could not be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character, end = error.object[error.start], error.start + 1
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is not text
        return bytes([ord(character) - 0xDC00]), end
    if character in NAMES:
        return NAMES[character], end
    name = unicodedata.name(character, "")
    if name.startswith("GREEK SMALL LETTER "):
        return name.split()[3].lower(), end
    if name.startswith("GREEK CAPITAL LETTER "):
        return name.split()[3].capitalize(), end
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or "?", end


codecs.register_error(ERRORS, _name)
