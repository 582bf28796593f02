"""Law 2: the uniforms, against Python integers and exact fractions."""

import math
import random
from fractions import Fraction

import pytest
import torch

import rskernels
from rskernels.law.philox import word_uniform

WORD = 2**32
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
# Found by search with seed 0: the uniform of this row rounds to 1, and of that one is 2e-9.
ROW_OF_ONE, ROW_OF_TINY = 38471471, 163350662


def philox(counter, key):
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high_0, low_0 = divmod(c0 * 0xD2511F53, WORD)
        high_1, low_1 = divmod(c2 * 0xCD9E8D57, WORD)
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
        k0, k1 = (k0 + 0x9E3779B9) % WORD, (k1 + 0xBB67AE85) % WORD
    return c0, c1, c2, c3


def exact_uniform(w0, w1):
    """Return (w0 * 2**32 + w1 + 1/2) / 2**64 rounded to 24 bits, ties to even."""
    numerator = 2 * (w0 * WORD + w1) + 1
    shift = max(0, numerator.bit_length() - 24)
    kept, lost = divmod(numerator, 1 << shift)
    half = Fraction(1 << shift, 2)
    kept += lost > half or (lost == half and kept % 2 == 1)
    return Fraction(kept << shift, 2**65)


def exact_row_uniform(row, column, stream, seed):
    row, seed = row % 2**64, seed % 2**64
    counter, which = divmod(column, 4)
    lead, trail = (
        philox((row % WORD, row >> 32, counter, use), (seed % WORD, seed >> 32))[which]
        for use in (stream, stream + 2**31)
    )
    return exact_uniform(lead, trail)


def awkward_words():
    edges = [0, 1, 2, 3, WORD // 2 - 1, WORD // 2, WORD // 2 + 1, WORD - 2, WORD - 1]
    firsts = set(edges)
    for bits in range(1, 33):
        firsts |= {2**bits - 1, 2**bits % WORD, (2**bits + 1) % WORD}
        # One bit below the last one kept: a tie but for what follows.
        tie = 2 ** (bits - 1) + (2 ** (bits - 25) if bits >= 25 else 0)
        for unit in (0, 2 ** max(0, bits - 24)):
            firsts |= {tie + unit - 1, tie + unit, tie + unit + 1}
    for bits in range(33):
        edges += [2**bits % WORD, (2**bits - 1) % WORD, (2**bits + 2 ** max(0, bits - 24)) % WORD]
    return [(w0 % WORD, w1) for w0 in firsts for w1 in edges]


def random_words(count, seed=0):
    draw = random.Random(seed)
    # Shifted, so that small words, whose u keeps bits of w1, are as common as large ones.
    return [
        (draw.getrandbits(32) >> draw.randrange(33), draw.getrandbits(32)) for _ in range(count)
    ]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_known_answers(backend, counter, key, words):
    got = backend.philox(torch.tensor([counter]), torch.tensor([key]))
    assert got.tolist() == [list(words)]
    assert philox(counter, key) == words


def test_philox_of_random_words(backend):
    draw = random.Random(1)
    counters = [[draw.getrandbits(32) for _ in range(4)] for _ in range(1500)]
    keys = [[draw.getrandbits(32) for _ in range(2)] for _ in range(1500)]
    got = backend.philox(torch.tensor(counters), torch.tensor(keys))
    assert got.dtype == torch.int64
    assert got.tolist() == [list(philox(c, k)) for c, k in zip(counters, keys, strict=True)]


def test_philox_broadcasts_the_key():
    counters = torch.arange(24).view(2, 3, 4)
    key = torch.tensor([5, 6])
    got = rskernels.philox4x32(counters, key)
    assert got.shape == (2, 3, 4)
    assert got[1, 2].tolist() == list(philox((20, 21, 22, 23), (5, 6)))


@pytest.mark.parametrize("words", [awkward_words(), random_words(20_000)], ids=["edges", "random"])
def test_word_uniform_is_rounded_once(words):
    w0, w1 = torch.tensor(words).unbind(-1)
    got = word_uniform(w0, w1)
    assert got.dtype == torch.float32
    assert [Fraction(u) for u in got.tolist()] == [exact_uniform(*pair) for pair in words]


def test_word_uniform_stays_inside_0_and_1():
    ends = word_uniform(torch.tensor([0, WORD - 1]), torch.tensor([0, WORD - 1]))
    assert ends.tolist() == [2.0**-65, 1.0]


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 2**64 - 1, 0x123456789ABCDEF])
@pytest.mark.parametrize("row_offset", [0, 2**31 - 2, 2**32 - 2, 2**40, 2**63 - 5])
def test_uniforms_follow_the_law(seed, row_offset):
    rows = rskernels.uniforms(5, seed=seed, row_offset=row_offset, stream=7)
    entries = rskernels.uniforms(5, seed=seed, row_offset=row_offset, columns=3)
    assert rows.dtype == entries.dtype == torch.float64
    for n in range(5):
        assert Fraction(rows[n].item()) == exact_row_uniform(row_offset + n, 0, 7, seed)
        for v in range(3):
            assert Fraction(entries[n, v].item()) == exact_row_uniform(row_offset + n, v, 0, seed)


def test_uniforms_shapes():
    flat = rskernels.uniforms(6, seed=3)
    assert torch.equal(rskernels.uniforms((2, 3), seed=3), flat.view(2, 3))
    assert torch.equal(rskernels.uniforms((), seed=3), flat[0])
    assert rskernels.uniforms((2, 0), seed=3).shape == (2, 0)
    assert torch.equal(rskernels.uniforms(6, seed=3, columns=4)[:, 0], flat)
    assert torch.equal(rskernels.uniforms(6, seed=torch.tensor([3])), flat)


@pytest.mark.parametrize(
    ("seed", "row_offset", "stream"),
    [
        (0, 0, 0),
        (0, ROW_OF_ONE - 1, 0),
        (0, ROW_OF_TINY - 1, 0),
        (-1, 2**32 - 1000, 1),
        (2**62 + 12345, 2**40, 2**31 - 1),
        (-(2**63), 2**63 - 2049, 2**30),
    ],
)
def test_kernels_compare_with_these_uniforms(backend, seed, row_offset, stream):
    u = rskernels.uniforms(2049, seed=seed, row_offset=row_offset, stream=stream)
    law = {"seed": seed, "row_offset": row_offset, "stream": stream}
    at, below = around(u)
    assert backend.bernoulli(at, **law).all()
    assert not backend.bernoulli(below, **law).any()


@pytest.mark.parametrize("V", [1, 17, 4099])
@pytest.mark.parametrize("row_offset", [0, 2**32 - 2])
def test_dense_kernels_compare_with_these_uniforms(backend, V, row_offset):
    law = {"seed": 2**40 + 9, "row_offset": row_offset, "log_space": True}
    logits = torch.zeros(3, V, dtype=torch.float64)
    u = rskernels.uniforms(3, seed=law["seed"], row_offset=row_offset, columns=V)
    at, below = (values - math.log(V) for values in around(u))
    assert backend.mask(logits, None, at, 0.0, **law).all()
    assert not backend.mask(logits, None, below, 0.0, **law).any()


def test_target_kernels_compare_with_these_uniforms(backend):
    law = {"seed": 5, "row_offset": ROW_OF_ONE - 2, "log_space": True}
    u = rskernels.uniforms(40, seed=5, row_offset=law["row_offset"])
    logits, targets = torch.zeros(40, 1, dtype=torch.float64), torch.zeros(40, dtype=torch.int64)
    at, below = around(u)
    assert backend.mask(logits, targets, at, 0.0, **law).all()
    assert not backend.mask(logits, targets, below, 0.0, **law).any()


def around(u):
    """Return logarithms just above and below log u, nearer than those of the next float32."""
    log_u = u.log()
    # Enough for the logarithms of different libraries, and 1e-8 of the spacing of u.
    room = 1e-14 * (1 + log_u.abs())
    at = torch.where(u == 1, 0.0, log_u + room)
    return at, torch.where(u == 1, -1e-300, log_u - room)


def test_ratio_of_one_always_accepts_and_of_zero_never(backend):
    law = {"seed": 0, "row_offset": ROW_OF_ONE - 500}
    assert backend.bernoulli(torch.zeros(1000), **law).all()
    law["row_offset"] = ROW_OF_TINY - 500
    assert not backend.bernoulli(torch.full((1000,), -torch.inf), **law).any()
    # A ratio of 2**-28 accepts the one row in a thousand whose u is below it.
    tiny = backend.bernoulli(torch.full((1000,), -28 * math.log(2)), **law)
    assert tiny.nonzero().flatten().tolist() == [500]


def test_seed_tensor_is_the_seed(backend):
    log_ratio = torch.full((512,), -0.7)
    want = backend.bernoulli(log_ratio, seed=-3)
    for seed in (torch.tensor(-3), torch.tensor([-3]), torch.tensor([[7, -3]])[:, 1:]):
        assert torch.equal(backend.bernoulli(log_ratio, seed=seed), want)
    assert not torch.equal(backend.bernoulli(log_ratio, seed=-4), want)
