"""Launches of more programs than the interpreter can run: only the first and the last of each run.

So the addresses that a Triton kernel makes of its program's number are proved beyond 2**31
elements, in what it reads and in what it writes, without a GPU.
"""

import numpy as np
import pytest
import torch

from ..support.bits import same_bits
from ..support.interpreter import together

N, V = 70_000, 32_768  # 2**31 logits end in row 65,535
ENDS = [0, 1, 65_534, 65_535, 65_536, N - 1]
LAW = {"seed": 21, "row_offset": 2**32 - 2}


@pytest.fixture
def launched(gpu, monkeypatch):
    """Run only the programs that a test names, and leave fresh memory untouched."""
    if not gpu.is_slow:
        pytest.skip("a GPU runs every program; see gpu/test_device.py")
    chosen = set()

    def some(size):
        every = range(size)
        return every if size < 1000 else sorted(chosen.intersection(every))

    # The interpreter's loop over the programs of a launch.
    monkeypatch.setattr(together, "numbers", some)
    # Filled, the results would take gigabytes.
    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, getattr(torch, name).__wrapped__)
    return chosen


def untouched(*shape):
    return torch.from_numpy(np.zeros(shape, np.int16)).view(torch.bfloat16)


@pytest.fixture(scope="module")
def logits():
    """Return bfloat16 [N, V], of which only some rows are more than untouched zeros."""
    values = untouched(N, V)
    generator = torch.Generator().manual_seed(0)
    values[ENDS] = torch.randn(len(ENDS), V, generator=generator).bfloat16()
    return values


def parts_of(rows, part):
    """Return the programs that sum the parts of rows."""
    return {row * (V // part) + at for row in rows for at in range(V // part)}


def test_decisions_of_targets(gpu, launched, logits):
    targets = torch.arange(N) % V
    launched.update(ENDS)
    got = gpu.decide(logits, targets, 1 / V, 1.5, **LAW)
    mask = gpu.mask(logits, targets, 1 / V, 1.5, **LAW)
    for n in ENDS:
        law = {**LAW, "row_offset": LAW["row_offset"] + n}
        alone = gpu.decide(logits[n : n + 1], targets[n : n + 1], 1 / V, 1.5, **law)
        assert same_bits([part[n : n + 1] for part in got[:3]], alone[:3])
        assert mask[n] == alone.mask[0]


def test_dense_decisions(gpu, launched, logits):
    M = torch.linspace(0.5, 2, N)[:, None]
    launched.update(ENDS)
    got = gpu.decide(logits, None, 1 / V, M, **LAW)
    for n in ENDS:
        law = {**LAW, "row_offset": LAW["row_offset"] + n}
        alone = gpu.decide(logits[n : n + 1], None, 1 / V, M[n : n + 1], **law)
        for part, want in zip(got[:3], alone[:3], strict=True):
            for columns in (slice(0, 4096), slice(V - 4096, V)):
                assert same_bits(part[n, columns], want[0, columns])


def test_gradients(gpu, launched, logits):
    targets, upstream = torch.arange(N) % V, torch.linspace(-1, 1, N)
    launched.update(ENDS)
    got = gpu.gradient(upstream, logits, targets)
    for n in ENDS:
        rows = slice(n, n + 1)
        want = gpu.gradient(upstream[rows], logits[rows], targets[rows])[0]
        for columns in (slice(0, 4096), slice(V - 4096, V)):
            assert same_bits(got[n, columns], want[columns])


def test_partials(gpu, launched, logits, monkeypatch):
    # As many rows as these are never split into parts by themselves.
    monkeypatch.setattr(gpu.launch, "FEW_ROWS", 1 << 30)
    launch = gpu.launch
    launched.update(ENDS, parts_of(ENDS, launch.LANES * launch.STEPS))
    targets = torch.arange(N) % V
    got = gpu.log_prob(logits, targets)
    for n in ENDS:
        assert same_bits(got[n : n + 1], gpu.log_prob(logits[n : n + 1], targets[n : n + 1]))
    launched.update(parts_of(ENDS, launch.DENSE_LANES * launch.DENSE_STEPS))
    mask = gpu.mask(logits, None, 1 / V, 1.5, **LAW)
    for n in ENDS:
        law = {**LAW, "row_offset": LAW["row_offset"] + n}
        assert torch.equal(mask[n], gpu.mask(logits[n : n + 1], None, 1 / V, 1.5, **law)[0])


def test_bernoulli(gpu, launched):
    count = 2**31 + 2048
    log_ratio = untouched(count)
    last = (count - 1) // gpu.launch.BLOCK
    launched.update((0, last - 1, last))
    log_ratio[-2048:] = torch.linspace(-3, 0, 2048)
    log_ratio[:1024] = torch.linspace(-2, 0, 1024)
    mask = gpu.bernoulli(log_ratio, seed=3)
    for begin, size in ((0, 1024), (count - 2048, 2048)):
        rows = slice(begin, begin + size)
        assert torch.equal(mask[rows], gpu.bernoulli(log_ratio[rows], seed=3, row_offset=begin))
