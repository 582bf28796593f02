"""The rate, the law and the independence of accepted draws, on the CPU.

Every interval is inclusive and fails by chance with probability 5e-8. Seeds are fixed; with
RSKERNELS_TEST_SEED in the environment they are others.
"""

import math
import os

import pytest
import torch

import rskernels

SEED = int(os.environ.get("RSKERNELS_TEST_SEED", "0"))

# T1: acceptance 5/16 of 2**24.
ACCEPTANCE_ROWS = 1 << 24
ACCEPTANCE_RANGE = (5_232_532, 5_253_231)
# T2: acceptance 2**-26 of 2**31, mean 32.
TINY_DRAWS = 1 << 31
TINY_RANGE = (7, 67)
# T4: proposals used up to the 100,000th acceptance at M = 4.
PROPOSALS_RANGE = (394_062, 406_005)
# T6: ones in the XOR of 2**24 - 128 pairs of fair bits, one of 128 comparisons.
XOR_BITS = (1 << 24) - 128
XOR_RANGE = (8_375_728, 8_401_360)
# T7: of 2**22 accepted of 2**24, those among the first 2**23 rows.
CELL_RANGE = (2_092_318, 2_101_986)


def target_form(rows, ratio):
    # One row of logits, repeated without memory; its class 0 has q = 1/3.
    logits = torch.tensor([[0.0, math.log(2.0)]]).expand(rows, 2)
    targets = torch.zeros(rows, dtype=torch.int32)
    return rskernels.accept_mask(logits, ratio / 3, 1.0, targets=targets, seed=SEED + 1)


def dense_form(rows, ratio):
    logits = torch.zeros(1, 1 << 10).expand(rows >> 10, 1 << 10)
    return rskernels.accept_mask(logits, ratio / (1 << 10), 1.0, seed=SEED + 2)


def verify_form(rows, ratio):
    logits = torch.zeros(1, 1 << 10).expand(rows >> 10, 1 << 10)
    return rskernels.verify_mask(logits, 1 / (ratio * (1 << 10)), targets=None, seed=SEED + 3)


def bernoulli_form(rows, ratio):
    return rskernels.bernoulli_mask(torch.full((rows,), math.log(ratio)), seed=SEED + 4)


@pytest.mark.parametrize("form", [target_form, dense_form, verify_form, bernoulli_form])
def test_t1_rate(form):
    # Sensitive to a wrong ratio, temperature or logarithm: 0.1 % of the rate.
    low, high = ACCEPTANCE_RANGE
    assert low <= form(ACCEPTANCE_ROWS, 5 / 16).sum() <= high


def test_t2_tiny_rate():
    # Sensitive to the resolution of u: 24-bit uniforms would accept 128, those above 0 none.
    columns, rows = 1 << 16, 256
    logits = torch.zeros(1, columns).expand(rows, columns)
    accepted = 0
    for block in range(TINY_DRAWS // (rows * columns)):
        accepted += rskernels.accept_mask(
            logits, 2.0**-26 / columns, 1.0, seed=SEED, row_offset=block * rows
        ).sum()
    low, high = TINY_RANGE
    assert low <= accepted <= high


def test_t4_waiting_time():
    # Sensitive to clustering of acceptances and to M being read the wrong way round.
    logits, targets = torch.zeros(420_000, 3), torch.arange(420_000) % 3
    mask = rskernels.accept_mask(logits, 1 / 3, 4.0, targets=targets, seed=SEED)
    used = int(torch.searchsorted(mask.cumsum(0), 100_000)) + 1
    low, high = PROPOSALS_RANGE
    assert low <= used <= high


def fair_bits(seed=SEED, stream=0, row_offset=0):
    log_ratio = torch.tensor(math.log(0.5)).expand(1 << 24)
    return rskernels.bernoulli_mask(log_ratio, seed=seed, stream=stream, row_offset=row_offset)


def test_t6_independence():
    # Sensitive to a seed used for two streams and to draws that repeat at a lag.
    bits = fair_bits()
    low, high = XOR_RANGE
    lags = [*range(1, 97), *(128 - 1 - n for n in range(4))]
    others = [
        *(fair_bits(seed=SEED + delta) for delta in (1, -1, 2**31, 2**32, 2**33, -(2**62))),
        *(fair_bits(stream=stream) for stream in (1, 2, 3, 2**16, 2**31)),
        *(fair_bits(row_offset=offset) for offset in (2**24, 2**32, 2**40)),
        fair_bits(seed=SEED + 1, row_offset=1),
        fair_bits(seed=SEED + 1, stream=1),
    ]
    # A dense decision's columns, against each other and against the rows.
    square = torch.zeros(1, 1 << 12).expand(1 << 12, 1 << 12)
    dense = rskernels.accept_mask(square, 0.5 / (1 << 12), 1.0, seed=SEED)
    others += [dense.flatten(), dense.T.flatten()]
    pairs = [(bits[lag : lag + XOR_BITS], bits[:XOR_BITS]) for lag in lags]
    pairs += [(other[:XOR_BITS], bits[:XOR_BITS]) for other in others]
    entries = dense.flatten()
    pairs += [
        (entries[lag : lag + XOR_BITS], entries[:XOR_BITS])
        for lag in (1, 2, 3, 8, 15, 16, 17, 32, 64, 128)
    ]
    assert len(pairs) == 128
    for one, other in pairs:
        assert low <= torch.count_nonzero(one ^ other) <= high


def test_t7_the_draw_does_not_know_the_row():
    # Sensitive to a draw keyed by content: two kinds of row with the same ratio.
    half = 1 << 23
    kinds = torch.tensor([[0.0, math.log(2.0)], [5.0, -8.0]])
    ratio, q = 0.2505, kinds.softmax(-1)[:, 0]
    masks = [
        rskernels.accept_mask(
            row.expand(half, 2), ratio * share.item(), 1.0,
            targets=torch.zeros(half, dtype=torch.int32), seed=SEED, row_offset=offset,
        )
        for row, share, offset in zip(kinds, q, (0, half), strict=True)
    ]  # fmt: skip
    accepted = torch.cat(masks).nonzero().flatten()
    assert len(accepted) >= 1 << 22
    # Some more than 2**22 were accepted; which are left out is as random as the count needs.
    generator = torch.Generator().manual_seed(SEED)
    kept = accepted[torch.randperm(len(accepted), generator=generator)[: 1 << 22]]
    low, high = CELL_RANGE
    assert low <= (kept < half).sum() <= high
