"""T7: the draw does not know what is in the row, only which row it is."""

import math

import pytest
import torch

from ..intervals import assert_inside, hypergeometric

RATIO = 0.25
KINDS = torch.tensor([[0.0, math.log(2.0)], [5.0, -8.0]])
WIDTH = 1 << 12


def check_content(subject, seed, form="target", draws=1 << 18):
    """Sensitive to a draw keyed by content: two kinds of row with the same ratio.

    Given how many are accepted in all, those of either kind are as if drawn without replacement.
    """
    decide = _targets if form == "target" else _entries
    half = draws // 2
    accepted = [
        int(decide(subject, kind, half, seed, kind * half).count_nonzero()) for kind in (0, 1)
    ]
    assert sum(accepted) > 0, "T7: nothing is accepted"
    assert_inside("T7", accepted[0], hypergeometric(draws, half, sum(accepted)))


def _targets(subject, kind, rows, seed, first):
    logits = KINDS[kind]
    density = RATIO * logits.softmax(0)[0].item()
    targets = torch.zeros(rows, dtype=torch.int32)
    return subject.mask(logits.expand(rows, 2), targets, density, seed=seed, row_offset=first)


def _entries(subject, kind, draws, seed, first):
    logits = KINDS[kind].repeat(WIDTH // 2)
    rows, density = draws // WIDTH, RATIO * logits.softmax(0)
    return subject.mask(
        logits.expand(rows, WIDTH), None, density, seed=seed, row_offset=first // WIDTH
    )


@pytest.mark.parametrize("form", ["target", "dense"])
def test_t7_content(subject, size, seed, form):
    slow = 1 << 7 if form == "target" else 1 << 18
    check_content(subject, seed, form, size(1 << 24, reference=1 << 18, interpreted=slow))
