"""Data sets by their name: what they hold, how they are split, and what is refused."""

import sys

import pytest
import torch

from rskernels.experiments.bundled import load_digits
from rskernels.experiments.datasets import load
from rskernels.experiments.multimodal.data import load_spoken_digits


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_digits_are_the_1797_real_images():
    images, labels = load_digits()
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == torch.float32
    assert images.min() == 0
    assert images.max() == 1
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_pool_is_long_tailed_and_shares_no_image_with_the_test_set():
    loaded = load("digits", imbalance=20, test_fraction=0.4, generator=generator())
    pool, test, counts = loaded.data
    assert counts.max() / counts.min() == 20
    assert pool.labels.bincount().tolist() == counts.tolist()
    assert test.labels.bincount().tolist() == [70] * 10
    # Digits has no two equal images, so equal pixels would mean a shared row.
    rows = torch.cat([pool.inputs, test.inputs]).flatten(1)
    assert len(rows.unique(dim=0)) == len(rows)


def test_speech_is_tested_on_speakers_that_are_not_trained_on():
    spoken = load_spoken_digits()
    pool, test, counts = load("speech", imbalance=20, test_fraction=0.4, generator=generator()).data
    assert counts.max() / counts.min() == 20
    assert test.labels.bincount().tolist() == [72] * 10  # 12 speakers, 6 times each
    rows = spoken.samples.inputs.flatten(1)
    heard = [
        set(spoken.speakers[(rows[:, None] == part.inputs.flatten(1)).all(2).any(1)].tolist())
        for part in (pool, test)
    ]
    assert len(heard[1]) == 12
    assert not heard[0] & heard[1]


def test_unknown_data_set_is_refused_with_the_accepted_ones():
    with pytest.raises(ValueError, match="'cifar': accepted are digits, wine, breast_cancer"):
        load("cifar", imbalance=20, test_fraction=0.4, generator=generator())


def test_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"sklearn.*pip install '\.\[train\]' in a clone"):
        load_digits()
