"""The hash by which text becomes an id: XXH64 with seed 0, of bytes and of pairs of hashes."""

from __future__ import annotations

MASK = 2**64 - 1
P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P4, P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
STARTS = ((P1 + P2) & MASK, P2, 0, -P1 & MASK)
EMPTY = 0xEF46DB3751D8E999
"""Of no bytes."""


def xxh64(data: bytes) -> int:
    """Return XXH64 of bytes, in ``[0, 2**64)``.

    Yann Collet, "xxHash fast digest algorithm", format of version 0.8.
    """
    size, at = len(data), 0
    if size >= 32:
        parts = list(STARTS)
        for at in range(0, size - 31, 32):
            parts = [_round(part, _word(data, at + 8 * k, 8)) for k, part in enumerate(parts)]
        at += 32
        turns = (1, 7, 12, 18)
        total = sum(_rotated(part, turn) for part, turn in zip(parts, turns, strict=True)) & MASK
        for part in parts:
            total = ((total ^ _round(0, part)) * P1 + P4) & MASK
    else:
        total = P5
    total = (total + size) & MASK
    while at + 8 <= size:
        total = (_rotated(total ^ _round(0, _word(data, at, 8)), 27) * P1 + P4) & MASK
        at += 8
    if at + 4 <= size:
        total = (_rotated(total ^ _word(data, at, 4) * P1 & MASK, 23) * P2 + P3) & MASK
        at += 4
    for byte in data[at:]:
        total = _rotated(total ^ byte * P5 & MASK, 11) * P1 & MASK
    total = (total ^ total >> 33) * P2 & MASK
    total = (total ^ total >> 29) * P3 & MASK
    return total ^ total >> 32


def xxh64_pair(first: int, second: int) -> int:
    """Return XXH64 of the sixteen bytes of two numbers of 64 bits, the low byte first."""
    return xxh64(first.to_bytes(8, "little") + second.to_bytes(8, "little"))


def xxh64_fold(numbers: list[int]) -> int:
    """Return the hash of a list: that of no bytes, paired with each number in turn."""
    total = EMPTY
    for number in numbers:
        total = xxh64_pair(total, number)
    return total


def _word(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _round(part: int, word: int) -> int:
    return _rotated((part + word * P2) & MASK, 31) * P1 & MASK


def _rotated(value: int, turn: int) -> int:
    return (value << turn | value >> (64 - turn)) & MASK
