"""The rules in use elsewhere do what they say."""

import math

import pytest
import torch

from rskernels.law.philox import row_uniforms_64
from rskernels.law.streams import Stream
from rskernels.select import rso, soft_best_of_n, threshold, top_k, weights

from . import pool

NAN, INF = math.nan, math.inf


def test_the_best_k_of_each_group():
    rewards, groups = [1.0, 3.0, 3.0, NAN, 2.0, -INF, INF], [0, 0, 0, 0, 1, 1, 1]
    kept = top_k(rewards, 2, groups=groups)
    assert kept.mask.tolist() == [False, True, True, False, True, True, False]
    assert kept.overall["invalid"] == 2
    assert math.isnan(kept.overall["kl"])
    # Ties go to the smaller id.
    ids = torch.tensor([9, 8, 7, 6, 5, 4, 3])
    assert top_k(rewards, 1, groups=groups, ids=ids).mask.nonzero()[:, 0].tolist() == [2, 4]
    assert top_k([1.0, 1.0], 1).mask.tolist() == [True, False]
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    moved = top_k(
        torch.tensor(rewards)[order], 1, groups=torch.tensor(groups)[order], ids=ids[order]
    )
    assert sorted(order[moved.mask].tolist()) == [2, 4]


def test_a_threshold():
    kept = threshold([0.5, 0.4, NAN, INF, 1.0], 0.5, groups=[1, 1, 2, 2, 2])
    assert kept.mask.tolist() == [True, False, False, False, True]
    assert kept.groups["invalid"].tolist() == [0, 2]
    assert kept.groups["acceptance"].tolist() == [0.5, 1.0]


def test_weights_have_a_mean_of_1_in_each_group():
    rewards, groups = torch.tensor([0.0, 2.0, 1e4, 1e4 + 1, NAN]), torch.tensor([0, 0, 1, 1, 1])
    kept = weights(rewards, 2.0, groups=groups)
    w = kept.log_weights.exp()
    torch.testing.assert_close(w[1] / w[0], torch.tensor(math.e).double())
    torch.testing.assert_close(w[:4].view(2, 2).mean(1), torch.ones(2).double())
    assert kept.mask.tolist() == [True] * 4 + [False]
    assert kept.log_weights[4] == -INF
    assert kept.groups["ess"][0] == pytest.approx((1 + math.e) ** 2 / (1 + math.e**2))


def test_soft_best_of_n_draws_by_softmax():
    rewards = torch.tensor([0.0, 1.0, NAN, 2.0, -INF]).repeat(8_000)
    groups = torch.arange(8_000).repeat_interleave(5)
    kept = soft_best_of_n(rewards, 1.0, groups=groups, seed=3)
    assert (kept.groups["accepted"] == 1).all()
    share = kept.mask.view(-1, 5).double().mean(0)
    want = torch.tensor([0.0, 1.0, -INF, 2.0, -INF]).softmax(0).double()
    # 5.3 standard errors of the largest.
    torch.testing.assert_close(share, want, atol=0.0295, rtol=0)
    assert share[2] == share[4] == 0
    again = soft_best_of_n(
        rewards.flip(0), 1.0, groups=groups.flip(0), ids=torch.arange(40_000).flip(0), seed=3
    )
    assert torch.equal(again.mask.flip(0), kept.mask)
    other = soft_best_of_n(rewards, 1.0, groups=groups, seed=4)
    assert not torch.equal(other.mask, kept.mask)


def published(rewards, beta, num, answers, draw):
    """Algorithm 1 of Liu et al. (2023), a row after the other, as it is printed."""
    candidates, places = {}, {}
    for place, (answer, reward) in enumerate(zip(answers, rewards, strict=True)):
        candidates[answer] = reward
        places.setdefault(answer, place)
    accepted, turn = [], 0
    while len(accepted) < num:
        largest, to_remove = max(candidates.values()), []
        for answer, reward in candidates.items():
            if draw(places[answer], turn) > math.exp((reward - largest) / beta):
                continue
            accepted.append(places[answer])
            to_remove.append(answer)
            if len(accepted) == num:
                break
        for answer in to_remove:
            candidates.pop(answer)
        turn += 1
    return sorted(accepted)


def test_rso_is_the_published_algorithm():
    drawn, _ = pool.proposals(30 * 24, seed=2)
    rewards = pool.REWARDS[drawn] + 0.01 * torch.rand(
        len(drawn), generator=torch.Generator().manual_seed(0)
    )
    groups = torch.arange(30).repeat_interleave(24)
    seen = rso(rewards, 0.5, num=5, groups=groups, answers=drawn, seed=7)
    for group in range(30):
        rows = (groups == group).nonzero()[:, 0]

        def draw(place, turn, rows=rows):
            return row_uniforms_64(rows[place], 2 + turn, 7, Stream.SELECT).item()

        want = published(rewards[rows].tolist(), 0.5, 5, drawn[rows].tolist(), draw)
        assert seen.mask[rows].nonzero()[:, 0].tolist() == want
    # A group without enough is kept whole; what has no reward, or a weight of 0, never is.
    few = rso([1.0, NAN, 0.0, -INF, 2.0], 1.0, num=4, seed=0)
    assert few.mask.tolist() == [True, False, True, False, True]
    assert few.overall["invalid"] == 1
    assert "not the tilted law" in few.note


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: top_k([1.0], 0), "k must be at least 1, got 0"),
        (lambda: rso([1.0], 1.0, num=0, seed=0), "num must be at least 1, got 0"),
        (lambda: rso([1.0], 0.0, num=1, seed=0), r"beta must be finite and above 0, got 0\.0"),
        (lambda: weights([1.0], math.inf), "beta must be finite and above 0, got inf"),
        (lambda: threshold([1.0], NAN), "least must be a number, got nan"),
        (lambda: soft_best_of_n([1.0, 1.0], 1.0, ids=[3, 3], seed=0), "ids must differ"),
    ],
)
def test_what_a_rival_does_not_take(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rivals_of_no_rows():
    drawn = soft_best_of_n([], 1.0, seed=0), rso([], 1.0, num=1, answers=[], seed=0)
    for kept in (top_k([], 1), threshold([], 0.0), weights([], 1.0), *drawn):
        assert kept.mask.shape == (0,)
