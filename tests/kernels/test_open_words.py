"""Entries of the dense form that their leading word leaves open: the trailing word decides them."""

import math

import pytest
import torch

import rskernels

# Found by search with seed 0: (row, column, leading word). Each of the words is small, so that a
# float32 tells ratios apart that differ in the trailing word alone.
OPEN = [
    (802970, 7, 197),
    (990545, 7, 1106),
    (1358152, 5, 2331),
    (1422055, 2, 3841),
    (1767245, 0, 522),
]


@pytest.mark.parametrize("which", range(len(OPEN)))
def test_the_trailing_word_decides(backend, which):
    check(backend, *OPEN[which], V=8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_trailing_word_decides_in_a_long_row(backend, dtype):
    check(backend, *OPEN[0], V=2049, dtype=dtype)


def check(backend, row, column, lead, V, dtype=torch.float32):
    u = rskernels.uniforms(1, seed=0, row_offset=row, columns=V)[0]
    # The others are accepted and rejected in turns, far from their u.
    want = torch.arange(V) % 2 == 0
    log_r = u.log() + torch.where(want, 0.5, -0.5)
    logits = torch.zeros(1, V, dtype=dtype)
    for step, accepted in ((0.25, True), (-0.25, False)):
        threshold = u[column].item() * 2**32 + step
        assert math.floor(threshold) == lead
        log_r[column], want[column] = math.log(threshold * 2**-32), accepted
        arguments = (logits, None, (log_r - math.log(V))[None], 0.0)
        law = {"seed": 0, "row_offset": row, "log_space": True}
        assert torch.equal(backend.mask(*arguments, **law)[0], want)
        decided = backend.decide(*arguments, **law)
        assert torch.equal(decided.mask[0], want)
        assert decided.counts[0] == want.sum()
