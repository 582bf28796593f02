"""Oversampling and undersampling: how often each class and each row comes."""

import pytest
import torch

from rskernels.rsft.data.resample import RESAMPLERS, oversample, undersample

LABELS = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
REPEATS = 400


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def within_5_sigma(count, draws, share):
    return (count.double() - draws * share).abs() <= 5 * (draws * share * (1 - share)) ** 0.5


def test_oversampling_draws_every_class_alike():
    source = generator()
    drawn = torch.cat([oversample(LABELS, source) for _ in range(REPEATS)])
    assert len(drawn) == REPEATS * len(LABELS)
    assert within_5_sigma(LABELS[drawn].bincount(), len(drawn), 1 / 3).all()
    rows = drawn.bincount(minlength=len(LABELS))
    for label in range(3):
        of_class = label == LABELS
        assert within_5_sigma(rows[of_class], len(drawn), 1 / (3 * int(of_class.sum()))).all()


def test_undersampling_takes_of_every_class_what_the_rarest_has():
    source = generator()
    rows = torch.zeros(len(LABELS), dtype=torch.long)
    first = set()
    for _ in range(REPEATS):
        chosen = undersample(LABELS, source)
        assert LABELS[chosen].bincount().tolist() == [10, 10, 10]
        assert len(chosen.unique()) == 30
        first.add(int(LABELS[chosen[0]]))
        rows[chosen] += 1
    assert first == {0, 1, 2}
    assert within_5_sigma(rows[:60], REPEATS, 1 / 6).all()
    assert within_5_sigma(rows[60:90], REPEATS, 1 / 3).all()
    assert (rows[90:] == REPEATS).all()


@pytest.mark.parametrize("name", RESAMPLERS)
def test_rows_are_those_of_the_generator_alone(name):
    resample = RESAMPLERS[name]
    state = torch.get_rng_state()
    assert torch.equal(resample(LABELS, generator()), resample(LABELS, generator()))
    assert not torch.equal(resample(LABELS, generator()), resample(LABELS, generator(1)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", RESAMPLERS)
def test_a_class_that_is_absent_or_alone_is_no_fault(name):
    labels = torch.tensor([2, 0, 2, 2])
    chosen = RESAMPLERS[name](labels, generator())
    assert set(labels[chosen].tolist()) <= {0, 2}
    alone = RESAMPLERS[name](labels[2:], generator())
    assert set(alone.tolist()) <= {0, 1}
    assert len(alone) == 2
