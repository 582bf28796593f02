"""What a statistic may be: intervals that fail by chance with probability 5e-8.

They are two-sided and inclusive; a family of several statistics shares the 5e-8.
"""

import math

from scipy import stats

CHANCE = 5e-8


def binomial(draws, probability, tests=1):
    """Return the interval of a count of ``draws`` that each succeed with ``probability``."""
    return _of(stats.binom(draws, probability), tests)


def hypergeometric(draws, marked, taken):
    """Return the interval of how many of ``taken`` are among the ``marked`` of ``draws``."""
    return _of(stats.hypergeom(draws, marked, taken), 1)


def waiting(successes, probability):
    """Return the interval of the draws used up to the last of ``successes``."""
    low, high = _of(stats.nbinom(successes, probability), 1)
    return successes + low, successes + high


def distance(draws, tests=1):
    """Return the largest Kolmogorov-Smirnov distance of ``draws`` from their law."""
    return stats.kstwo.isf(CHANCE / tests, draws)


def fair_sum(draws, tests=1):
    """Return a bound of the size of a sum of ``draws`` fair signs (Hoeffding, 1963)."""
    return (2 * draws * math.log(2 * tests / CHANCE)) ** 0.5


def flips(expected):
    """Return how many decisions may differ where ``expected`` do on average; 6 at least."""
    return int(stats.poisson(max(expected, 0.25)).isf(CHANCE))


def assert_inside(name, value, interval):
    """Fail with the law's name where a statistic is outside its interval."""
    low, high = interval
    value = value if isinstance(value, float) else int(value)
    assert low <= value <= high, f"{name}: {value} is not in [{low}, {high}]"


def _of(law, tests):
    tail = CHANCE / tests / 2
    return int(law.ppf(tail)), int(law.isf(tail))
