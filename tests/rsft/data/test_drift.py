"""Class priors that move: the priors, the stream that follows them, and the task made of both."""

import pytest
import torch

import rskernels
from rskernels.experiments.config import GradientConfig
from rskernels.experiments.train import make_task
from rskernels.rsft.data.drift import draw_stream, priors

RANK = torch.tensor([2, 0, 3, 1])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def assert_shares(labels, expected):
    count = labels.bincount(minlength=len(expected)).double()
    error = 5 * (len(labels) * expected * (1 - expected)).sqrt()
    assert ((count - len(labels) * expected).abs() <= error).all()


def test_priors_go_from_a_long_tail_to_its_reverse():
    start, middle, end = (priors(RANK, 8.0, moved) for moved in (0.0, 0.5, 1.0))
    torch.testing.assert_close(start, torch.tensor([2.0, 8, 1, 4]).double() / 15)
    torch.testing.assert_close(middle, torch.full((4,), 0.25).double())
    torch.testing.assert_close(end, torch.tensor([4.0, 1, 8, 2]).double() / 15)
    assert priors(torch.tensor([0]), 8.0, 0.3).tolist() == [1.0]


@pytest.mark.parametrize("moved", [0.0, 0.25, 1.0])
def test_a_stream_follows_its_prior_and_draws_the_rows_of_a_class_alike(moved):
    labels = torch.arange(4).repeat_interleave(torch.tensor([5, 40, 20, 10]))
    prior = priors(RANK, 8.0, moved)
    rows = draw_stream(labels, prior, 100_000, generator())
    assert_shares(labels[rows], prior)
    assert_shares(rows, (prior / labels.bincount())[labels])


def test_the_tasks_stream_moves_and_then_stays_and_its_density_moves_along():
    config = GradientConfig(drift=4, imbalance=20.0, test_fraction=0.8)
    task = make_task(config, generator())
    counts = task.counts
    assert counts.unique().numel() == 1  # the pool is balanced, the stream is not
    source = generator(1)
    shares = []
    for number in (0, 1, 3, 9):
        epochs = [task.order(number, source) for _ in range(300)]
        drawn = task.pool.labels[torch.cat([epoch.rows for epoch in epochs])]
        prior = epochs[0].log_density.double().neg().exp() / len(counts)  # of each row's class
        expected = torch.zeros(10).double().index_put((task.pool.labels,), prior)
        assert expected.sum() == pytest.approx(1)
        assert_shares(drawn, expected)
        shares.append(expected)
    assert shares[0].max() / shares[0].min() == pytest.approx(20)
    torch.testing.assert_close(shares[2], 1 / shares[0] / (1 / shares[0]).sum())
    assert torch.equal(shares[2], shares[3])
    assert torch.equal(task.log_density, task.order(0, source).log_density)
    assert_shares(task.pool.labels[task.pilot], shares[0])


def test_what_is_accepted_of_a_moving_stream_has_balanced_classes():
    """Of a model that knows nothing: q is 1/10 for every label."""
    task = make_task(GradientConfig(drift=4, imbalance=20.0, test_fraction=0.8), generator())
    source = generator(1)
    for number in (0, 2, 3):
        epochs = [task.order(number, source) for _ in range(150)]
        rows = torch.cat([epoch.rows for epoch in epochs])
        log_density = epochs[0].log_density
        mask = rskernels.accept_mask(
            torch.zeros(len(rows), 10),
            log_density[rows],
            float(log_density.max() + torch.tensor(10.0).log()),
            targets=task.pool.labels[rows],
            log_space=True,
            seed=number,
        )
        assert_shares(task.pool.labels[rows[mask]], torch.full((10,), 0.1).double())


@pytest.mark.parametrize("method", ["oversample", "undersample"])
def test_a_baseline_balances_the_epoch_that_there_is(method):
    config = GradientConfig(method=method, drift=4, imbalance=20.0, test_fraction=0.8)
    task = make_task(config, generator())
    labels = task.pool.labels[torch.cat([task.order(0, generator(i)).rows for i in range(300)])]
    if method == "oversample":
        # Within an epoch every class that has come is drawn alike; the rarest may not have come.
        count = labels.bincount(minlength=10)
        assert count.max() < 3 * count.min()
    else:
        rows = task.order(3, generator()).rows
        present = task.pool.labels[rows].bincount(minlength=10)
        assert present[present > 0].unique().numel() == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drift": 1}, "drift=1: accepted is 2 to"),
        ({"drift": 5, "method": "transfer"}, "drift=5: only method plain or .* reads it, got"),
        ({"drift": 5, "data": "multimodal"}, "the priors of 'multimodal' stay"),
        ({"method": "proposal", "selection": "target"}, "no labels of the target"),
        ({"method": "proposal", "selection": "some"}, "accepted are reject, weight, all, target"),
    ],
)
def test_bad_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GradientConfig(**changes)
