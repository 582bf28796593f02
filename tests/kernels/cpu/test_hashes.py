"""XXH64: known answers, and the loops against the definition on sizes around every step."""

import random

import numpy as np
import pytest

from rskernels.kernels.cpu import hashes
from rskernels.kernels.reference.hashes import EMPTY, xxh64, xxh64_fold, xxh64_pair

KNOWN = {
    b"": EMPTY,
    b"a": 0xD24EC4F1A98C6E5B,
    b"abc": 0x44BC2CF5AD770999,
    b"Nobody inspects the spammish repetition": 0xFBCEA83C8A378BF1,
}


def signed(number):
    return number - 2**64 if number >= 2**63 else number


@pytest.mark.parametrize("text", KNOWN)
def test_known_answers(text):
    assert xxh64(text) == KNOWN[text]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_strings_of_every_length(dtype):
    draw = random.Random(0)
    texts = [draw.randbytes(size) for size in (*range(0, 70), 127, 128, 1000)]
    offsets = np.cumsum([0] + [len(text) for text in texts]).astype(dtype)
    data = np.frombuffer(b"".join(texts), np.uint8)
    assert hashes.strings(data, offsets).tolist() == [signed(xxh64(text)) for text in texts]
    # A slice begins within the data.
    assert hashes.strings(data, offsets[5:9]).tolist() == [signed(xxh64(t)) for t in texts[5:8]]


def test_pairs_and_lists():
    draw = np.random.default_rng(0)
    numbers = draw.integers(-(2**63), 2**63 - 1, 20)
    unsigned = [int(n) % 2**64 for n in numbers]
    want = [signed(xxh64_pair(a, b)) for a, b in zip(unsigned[:10], unsigned[10:], strict=True)]
    assert hashes.pairs(numbers[:10], numbers[10:]).tolist() == want
    starts, ends = np.array([0, 3, 3, 19]), np.array([3, 3, 19, 20])
    want = [signed(xxh64_fold(unsigned[a:b])) for a, b in zip(starts, ends, strict=True)]
    assert hashes.fold(numbers, starts, ends).tolist() == want


def test_refusals():
    data, offsets = np.zeros(4, np.uint8), np.array([0, 5])
    with pytest.raises(ValueError, match="at most 4"):
        hashes.strings(data, offsets)
    with pytest.raises(TypeError, match="int16"):
        hashes.strings(data, np.array([0, 2], np.int16))
    with pytest.raises(ValueError, match="as many"):
        hashes.pairs(np.zeros(2, np.int64), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="within"):
        hashes.fold(np.zeros(2, np.int64), np.array([0]), np.array([3]))
