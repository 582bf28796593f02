"""The intervals, against the published numbers, and their chance of failing."""

import pytest
from scipy import stats

from . import intervals

PUBLISHED = {
    "T1": (intervals.binomial(1 << 24, 5 / 16), (5_232_532, 5_253_231)),
    "T2": (intervals.binomial(1 << 31, 2.0**-26), (7, 67)),
    "T3": (intervals.binomial(1 << 20, 1 / 64, tests=64), (15_609, 17_171)),
    "T4": (intervals.waiting(100_000, 1 / 4), (394_062, 406_005)),
    "T6": (intervals.binomial((1 << 24) - 128, 1 / 2, tests=128), (8_375_728, 8_401_360)),
    "T7": (intervals.hypergeometric(1 << 24, 1 << 23, 1 << 22), (2_092_318, 2_101_986)),
    "T8 accepted": (intervals.binomial(1 << 22, 7 / 16), (1_829_470, 1_840_547)),
    "T8 violations": (intervals.binomial(1 << 22, 1 / 4), (1_043_744, 1_053_413)),
    "T8 heavy": (intervals.binomial(1_000_000, 4 / 7), (568_730, 574_126)),
    "T9": (intervals.binomial(200_000, 1 / 100, tests=2), (1_757, 2_253)),
    "T10": (tuple(map(intervals.flips, (0.0, 0.25, 1.0, 2.0, 4.0))), (6, 6, 10, 13, 19)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published(name):
    computed, published = PUBLISHED[name]
    assert computed == published


def test_t5_published():
    # Published as the largest numbers of seven digits that are below.
    assert 0 <= intervals.distance(1_000_000) - 0.0029582 < 1e-7
    assert 0 <= intervals.distance(1_000_000, tests=5) - 0.0030912 < 1e-7


@pytest.mark.parametrize("tests", [1, 64])
def test_ends_are_inclusive_and_the_narrowest(tests):
    low, high = intervals.binomial(5_000, 0.3, tests)
    law, tail = stats.binom(5_000, 0.3), intervals.CHANCE / tests / 2
    assert law.cdf(low - 1) < tail <= law.cdf(low)
    assert law.sf(high) <= tail < law.sf(high - 1)


def test_sums_of_fair_signs():
    # The bound fails by chance no more often than it says, and not a thousand times less often.
    for draws in (1_000, 100_000):
        half = (draws + intervals.fair_sum(draws, tests=3)) / 2
        chance = 2 * stats.binom(draws, 0.5).sf(half)
        assert intervals.CHANCE / 3_000 < chance <= intervals.CHANCE / 3


def test_a_statistic_outside_fails():
    intervals.assert_inside("T0", 3, (3, 5))
    intervals.assert_inside("T0", 5, (3, 5))
    for value in (2, 6):
        with pytest.raises(AssertionError, match=f"T0: {value} is not in"):
            intervals.assert_inside("T0", value, (3, 5))
