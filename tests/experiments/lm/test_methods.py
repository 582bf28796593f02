"""What the methods train on, against the law that each is defined by."""

import math

import pytest
import torch

from rskernels.experiments.lm.laws import Enumerated
from rskernels.experiments.lm.methods import BETAS, METHODS, NAMED, Asked
from rskernels.experiments.lm.train import advantages, cut, passes
from rskernels.language.choose import Scored
from rskernels.language.rollouts import Rollout
from rskernels.language.train import Example
from rskernels.rsft.errors import TrainingError
from rskernels.select import tilt

# Each statistic below fails by chance with probability 5e-8.
SIGMAS = 5.5
LAW = torch.tensor([0.4, 0.25, 0.15, 0.12, 0.08], dtype=torch.float64)
REWARD = torch.tensor([0.0, 0.3, 0.5, 0.8, 1.0], dtype=torch.float64)
GROUPS = 40_000


def draw(samples, law=LAW, reward=REWARD, groups=GROUPS):
    """Draw answers to prompts that are all alike: which each is, and as they are scored."""
    generator = torch.Generator().manual_seed(samples)
    which = torch.multinomial(law, groups * samples, replacement=True, generator=generator)
    places = torch.arange(groups * samples)
    return which, Scored(reward[which], places // samples, places, which)


def deviation(select, law, *, samples, reward=REWARD, form="bounded"):
    """Return by how many standard errors the shares of what is kept are off from a law."""
    which, rows = draw(samples, reward=reward)
    selection = select(rows, Asked(form, samples, 7))
    count = int(selection.mask.sum())
    assert count > 1000
    assert not selection.log_weights[selection.mask].any()
    shares = which[selection.mask].bincount(minlength=len(law)) / count
    errors = (law * (1 - law) / count).sqrt()
    # What the law leaves out is not to come at all.
    assert not shares[law == 0].any()
    return float(((shares - law).abs() / errors)[law > 0].max())


def tilted(beta, reward=REWARD):
    w = LAW * (reward / beta).exp()
    return w / w.sum()


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("samples", [1, 8])
def test_the_exact_tilt_keeps_the_tilted_law(beta, samples):
    assert deviation(NAMED[f"tilt-{beta:g}"].select, tilted(beta), samples=samples) < SIGMAS


@pytest.mark.parametrize("beta", BETAS)
def test_the_exact_tilt_keeps_the_tilted_law_of_a_verifier(beta):
    right = (REWARD > 0.4).double()
    select = NAMED[f"tilt-{beta:g}"].select
    law = tilted(beta, right)
    assert deviation(select, law, samples=8, reward=right, form="verifier") < SIGMAS


def test_all_right_answers_keep_the_odds_that_they_had():
    right = (REWARD > 0.4).double()
    law = LAW * right / (LAW @ right)
    for reward in (REWARD, right):
        keeps = LAW * (reward > 0) / (LAW @ (reward > 0).double())
        assert deviation(NAMED["rft"].select, keeps, samples=8, reward=reward) < SIGMAS
    assert deviation(NAMED["rft"].select, law, samples=8, reward=right) < SIGMAS


def test_a_tilt_by_the_largest_of_the_pool_is_found_out():
    """The planted fault: M from the rows that it decides."""

    def faulty(rows, asked):
        groups = int(rows.groups.max()) + 1
        largest = torch.zeros(groups, dtype=torch.float64)
        largest = largest.scatter_reduce(0, rows.groups, rows.rewards, "amax")
        return tilt(
            rows.rewards - largest[rows.groups],
            0.5, form="bounded", bound=0.0, seed=asked.seed, groups=rows.groups, ids=rows.ids,
        )  # fmt: skip

    assert deviation(faulty, tilted(0.5), samples=8) > 2 * SIGMAS


def test_the_best_of_two_follows_its_law():
    # Larger rewards come later: the best is y if neither answer is after y and one is y.
    after = LAW.cumsum(0)
    law = after**2 - (after - LAW) ** 2
    assert deviation(NAMED["raft"].select, law, samples=2) < SIGMAS


def test_the_soft_best_of_two_follows_its_law():
    w = (REWARD / 0.5).exp()
    pairs = LAW[:, None] * LAW * 2 * w[:, None] / (w[:, None] + w)
    assert deviation(NAMED["soft"].select, pairs.sum(1), samples=2) < SIGMAS


def test_weights_make_means_of_the_tilted_law():
    samples = 4000
    which, rows = draw(samples, groups=50)
    selection = NAMED["weights"].select(rows, Asked("bounded", samples, 7))
    assert bool(selection.mask.all())
    weights = selection.log_weights.exp().view(50, samples)
    torch.testing.assert_close(weights.mean(1), torch.ones(50, dtype=torch.float64))
    means = torch.stack([(weights * (which == y).view(50, -1)).mean(1) for y in range(len(LAW))], 1)
    errors = means.std(0) / math.sqrt(50)
    # Self-normalised, a group's mean is off by the order of 1/4000.
    assert float(((means.mean(0) - tilted(0.5)).abs() / (errors + 1e-3)).max()) < SIGMAS


def test_rso_keeps_one_in_eight_and_no_answer_twice():
    which, rows = draw(32, groups=200)
    mask = NAMED["rso"].select(rows, Asked("bounded", 32, 7)).mask
    kept = mask.view(200, 32).sum(1)
    different = torch.tensor([len(set(of.tolist())) for of in which.view(200, 32)])
    assert torch.equal(kept, different.clamp(max=4))


def test_advantages_make_the_gradient_of_the_mean_reward():
    """Of a table of logits, E[A (1(y = j) - q_j)] is (1 - 1/K) q_j (r_j - V)."""
    samples = 4
    which, rows = draw(samples)
    answers = [
        Rollout(prompt, 0, [], True, 0.0, "", reward)
        for prompt, reward in zip(rows.groups.tolist(), rows.rewards.tolist(), strict=True)
    ]
    advantage = torch.tensor(advantages(answers), dtype=torch.float64)
    score = torch.nn.functional.one_hot(which, len(LAW)).double() - LAW
    each = (advantage[:, None] * score).view(GROUPS, samples, -1).mean(1)
    true = (1 - 1 / samples) * LAW * (REWARD - LAW @ REWARD)
    errors = each.std(0) / math.sqrt(GROUPS)
    assert float(((each.mean(0) - true).abs() / errors).max()) < SIGMAS


def examples(count):
    return [Example([1], [2] * (1 + n % 3), 1.0, n) for n in range(count)]


def test_a_pass_has_every_example_once_in_an_order_of_its_own():
    given = examples(20)
    taken = passes(given, 3)
    first, second = [[next(taken).id for _ in given] for _ in range(2)]
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    again = passes(given[::-1], 3)
    assert [next(again).id for _ in given] == first
    with pytest.raises(TrainingError, match="nothing to train on"):
        next(passes([], 3))


def test_what_is_accepted_is_cut_at_the_tokens_that_are_left():
    given = examples(6)  # of 1, 2, 3, 1, 2 and 3 tokens
    mask = [True, False, True, True, True, True]
    assert [one.id for one in cut(given, mask, 5)] == [0, 2, 3]
    assert [one.id for one in cut(given, mask, 4)] == [0, 2]
    assert len(cut(given, mask, 100)) == 5


def test_methods_have_names_of_their_own():
    assert len(NAMED) == len(METHODS) == len({method.title for method in METHODS})


@pytest.fixture
def known():
    """Two prompts of three cells each: two walks, and what is none."""
    law = torch.tensor([0.3, 0.1, 0.2, 0.4, 0.6, 0.4], dtype=torch.float64)
    reward = torch.tensor([0.9, 0.5, 0.7, 0.2, 0.0, 0.0], dtype=torch.float64)
    return Enumerated([], torch.tensor([0, 0, 1, 1]), 2, reward, law)


def test_a_tilt_has_the_least_divergence_of_its_mean_reward(known):
    for beta in (0.1, 0.5, 3.0):
        law = known.tilted(beta)
        sums = torch.zeros(2, dtype=torch.float64).index_add(0, known.cells, law)
        torch.testing.assert_close(sums, torch.ones(2, dtype=torch.float64))
        odds = (law / known.law).log() - known.reward / beta
        torch.testing.assert_close(odds[[0, 1]], odds[[4, 4]])
        least = known.least_divergence(known.mean_reward(law))
        assert least == pytest.approx(known.divergence(law, known.law), rel=1e-6)
        # A rule of another kind, of the same mean reward, is farther off.
        mixed = (law + torch.tensor([0.0, 0.1, 0.0, 0.0, -0.1, 0.0])).clamp(min=1e-3)
        mixed = mixed / torch.zeros(2).double().index_add(0, known.cells, mixed)[known.cells]
        reached = known.least_divergence(known.mean_reward(mixed))
        assert known.divergence(mixed, known.law) > reached
    assert math.isnan(known.least_divergence(0.0))
