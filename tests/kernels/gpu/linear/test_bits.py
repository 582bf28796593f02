"""A row's bits are its own: alone, in a batch, permuted, split, and beside NaN (law 3)."""

import math

import pytest
import torch

from rskernels.kernels.gpu.linear import tiles
from rskernels.law.decision import Law

from ....support.bits import same_bits
from .cases import FORMS, Linear, draw_product, rows_of

pytestmark = pytest.mark.triton
LINEAR = Linear()
N = 131  # a tile of rows and three


def decided(product, targets, temperature, rows):
    """Return what is told of rows of a batch, whose ids are their places in it."""
    law = Law(-5.0, 0.0, 9, int(rows[0]), temperature[rows], True, True)
    part = rows_of(product, rows)
    result = LINEAR.decide(part, targets[rows], law)
    mask = LINEAR.mask(part, targets[rows], law, is_lazy=True)
    return (*result[:3], mask, *LINEAR.log_prob(part, targets[rows], temperature[rows]))


@pytest.mark.parametrize(
    ("form", "dtype"),
    [("plain", torch.float32), ("all", torch.bfloat16), ("low rank", torch.float64)],
)
def test_alone_split_permuted_and_beside_nan(form, dtype, monkeypatch):
    monkeypatch.setattr("rskernels.kernels.gpu.linear.launch.BLOCK", 256)
    product, targets = draw_product(N, 300, 40, dtype, **FORMS[form])
    temperature = torch.linspace(0.5, 2.0, N)
    every = torch.arange(N)
    want = decided(product, targets, temperature, every)
    assert 0 < want[0].sum() < N
    for rows in (every[:1], every[128:129], every[60:131]):
        got = decided(product, targets, temperature, rows)
        assert same_bits(got, tuple(part[rows] for part in want)), rows
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    got = LINEAR.log_prob(rows_of(product, order), targets[order], temperature[order])
    assert same_bits(got, tuple(part[order] for part in want[4:]))
    product.hidden[1:130] = math.nan
    got = decided(product, targets, temperature, every)
    for rows in (every[:1], every[130:]):
        assert same_bits(tuple(part[rows] for part in got), tuple(part[rows] for part in want))


def test_however_many_programs_take_the_rows(monkeypatch):
    product, targets = draw_product(N, 2100, 16, torch.bfloat16)
    want = LINEAR.log_prob(product, targets)
    for processors, group in ((1, 1), (3, 1), (64, 2)):
        monkeypatch.setattr(
            "rskernels.kernels.gpu.linear.launch.machine_of",
            lambda device, processors=processors: tiles.Machine(90, processors),
        )
        monkeypatch.setattr("rskernels.kernels.gpu.linear.launch.GROUP", group)
        assert same_bits(LINEAR.log_prob(product, targets), want)


def test_rounds_cover_the_blocks_once_and_double():
    for blocks, row_tiles, processors in ((1, 1, 132), (149, 1, 132), (149, 64, 132), (50, 9, 4)):
        rounds = tiles.rounds_of(blocks, row_tiles, processors)
        covered = [place for first, count in rounds for place in range(first, first + count)]
        assert covered == list(range(blocks))
        assert len(rounds) <= 1 + math.ceil(math.log2(blocks))
