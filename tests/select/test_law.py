"""What is kept follows the tilted law, in any order and any shards."""

import pytest
import torch

from rskernels.select import rso
from rskernels.select.forms import FORMS

from . import pool


def check_law(form, count=pool.PROPOSALS):
    drawn, ids = pool.proposals(count)
    kept = pool.select(form, drawn, ids)
    pool.assert_law(drawn[kept.mask], pool.law_of(form))
    assert kept.overall["violations"] == kept.overall["invalid"] == kept.overall["unknown"] == 0
    return kept


def check_orders(form, count=60_000):
    """Compare the ids that are kept, whatever rows come with them."""
    drawn, ids = pool.proposals(count)
    want = ids[pool.select(form, drawn, ids).mask].sort().values
    by_reward = pool.REWARDS[drawn].argsort(descending=True)
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    for order, shards in ((by_reward, 1), (by_reward, 3), (shuffled, 1), (shuffled, 8)):
        kept = [
            ids[part][pool.select(form, drawn[part], ids[part]).mask]
            for part in order.tensor_split(shards)
        ]
        assert torch.equal(torch.cat(kept).sort().values, want)


@pytest.mark.parametrize("form", FORMS)
def test_law(form):
    check_law(form)


@pytest.mark.parametrize("form", FORMS)
def test_order_and_shards_change_nothing(form):
    check_orders(form)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_order_and_shards_of_a_million_change_nothing(form):
    check_orders(form, pool.PROPOSALS)


def rso_kept(descending=None, prompts=500):
    """Return what RSO as published keeps, 8 of 64 answers of each prompt, of a sorted file."""
    drawn = pool.proposals(prompts * 64)[0].view(-1, 64)
    if descending is not None:
        rewards = pool.REWARDS[drawn]
        drawn = drawn.gather(1, rewards.argsort(dim=1, stable=True, descending=descending))
    drawn, groups = drawn.reshape(-1), torch.arange(prompts).repeat_interleave(64)
    seen = rso(pool.REWARDS[drawn], 0.5, num=8, groups=groups, answers=drawn, seed=5)
    assert (seen.groups["accepted"] == 8).all()
    return drawn[seen.mask]


def test_rso_as_published_has_another_law_and_depends_on_the_order():
    tilted = pool.BASE * (pool.REWARDS / 0.5).exp()
    tilted /= tilted.sum()
    means = []
    for descending in (None, False, True):
        kept = rso_kept(descending)
        with pytest.raises(AssertionError):
            pool.assert_law(kept, tilted)
        # Of as many draws from the law it is 0.04.
        assert pool.distance(kept, tilted) > 0.3
        means.append(pool.REWARDS[kept].mean())
    assert means[1] + 0.04 < means[0] < means[2] - 0.04
