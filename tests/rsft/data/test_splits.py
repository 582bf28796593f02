import pytest
import torch

from rskernels.experiments.bundled import load_digits
from rskernels.rsft.data.splits import (
    log_class_balance,
    long_tail_counts,
    make_long_tailed,
    split_balanced,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_split_is_disjoint_complete_and_balanced():
    labels = load_digits().labels
    train, test = split_balanced(labels, 0.4, generator())
    assert sorted(torch.cat([train, test]).tolist()) == list(range(1797))
    assert labels[test].bincount().tolist() == [70] * 10


@pytest.mark.parametrize("fraction", [0.0, 0.001, 1.0, 1.2])
def test_split_that_leaves_a_part_empty_is_refused(fraction):
    with pytest.raises(ValueError, match="at least one for train and one for test"):
        split_balanced(load_digits().labels, fraction, generator())


@pytest.mark.parametrize("imbalance", [1, 5, 20, 100])
def test_counts_fall_geometrically_by_the_imbalance(imbalance):
    counts = long_tail_counts(104, 10, imbalance).tolist()
    assert counts == sorted(counts, reverse=True)
    assert counts[0] / counts[-1] == imbalance
    assert counts[0] <= 104
    expected = [counts[0] * imbalance ** (-k / 9) for k in range(10)]
    assert all(abs(n - e) <= 0.5 for n, e in zip(counts, expected, strict=True))


@pytest.mark.parametrize("imbalance", [0.5, 105, float("nan"), float("inf")])
def test_impossible_imbalance_is_refused(imbalance):
    with pytest.raises(ValueError, match="accepted are 1 "):
        long_tail_counts(104, 10, imbalance)


def test_which_class_is_rare_depends_on_the_seed():
    labels = load_digits().labels
    rarest = {
        int(labels[make_long_tailed(labels, 20, generator(seed))].bincount().argmin())
        for seed in range(20)
    }
    assert len(rarest) > 3


def test_class_balance_is_wanted_over_pool_share():
    counts = torch.tensor([60, 30, 10])
    assert log_class_balance(counts).exp().tolist() == pytest.approx([5 / 9, 10 / 9, 10 / 3])
    shares = torch.tensor([6.0, 3.0, 1.0])
    assert log_class_balance(counts, shares).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert log_class_balance(counts, torch.tensor([1.0, 0, 0]))[1] == -torch.inf


@pytest.mark.parametrize("shares", [[1.0, 1.0], [1.0, -1.0, 1.0], [0.0] * 3, [float("nan")] * 3])
def test_class_balance_refuses_what_is_no_density(shares):
    with pytest.raises(ValueError, match="shares must hold 3 non-negative numbers"):
        log_class_balance(torch.tensor([60, 30, 10]), torch.tensor(shares))


def test_class_balance_refuses_an_empty_class():
    with pytest.raises(ValueError, match="every class needs a row"):
        log_class_balance(torch.tensor([60, 0]))
