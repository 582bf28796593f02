"""``rejection_sample``: the support of a target decides, whatever its log_prob says outside."""

import math

import pytest
import torch
from torch import distributions as D
from torch.distributions import transforms

from rskernels import rejection_sample
from rskernels.sampling.support import density

WIDE = D.Uniform(-1.0, 5.0)
PLANE = D.Independent(D.Uniform(torch.full((2,), -1.0), torch.full((2,), 4.0)), 1)


def flat(sample):
    """Return a proposal of constant density."""
    return sample, lambda x: torch.zeros(len(x))


COUNTS = flat(lambda n: torch.randint(-6, 18, (n,)) / 2)
VECTORS = flat(lambda n: torch.randint(-1, 4, (n, 3)).float())
SIMPLEX = flat(lambda n: torch.where(torch.rand(n, 1) < 0.5, torch.rand(n, 3).softmax(-1), 0.4))
EVEN, PAIR = D.Categorical(torch.ones(2)), torch.tensor([1.0, 3.0])


def is_positive(x):
    return x >= 0


def is_in_unit(x):
    return (x >= 0) & (x <= 1)


def is_count(x):
    return (x >= 0) & (x == x.round())


# name: (target of validate_args, proposal, what is inside)
TARGETS = {
    "exponential": (lambda v: D.Exponential(1.0, v), WIDE, is_positive),
    "chi2": (lambda v: D.Chi2(2.0, v), WIDE, is_positive),
    "weibull": (lambda v: D.Weibull(1.0, 1.5, v), WIDE, is_positive),
    "kumaraswamy": (lambda v: D.Kumaraswamy(2.0, 2.0, v), WIDE, is_in_unit),
    "continuous": (lambda v: D.ContinuousBernoulli(0.3, validate_args=v), WIDE, is_in_unit),
    "pareto": (lambda v: D.Pareto(1.0, 2.0, v), WIDE, lambda x: x >= 1),
    "half normal": (lambda v: D.HalfNormal(1.0, v), WIDE, is_positive),
    "poisson": (lambda v: D.Poisson(2.0, v), COUNTS, is_count),
    "bernoulli": (
        lambda v: D.Bernoulli(0.3, validate_args=v),
        COUNTS,
        lambda x: (x == 0) | (x == 1),
    ),
    "categorical": (
        lambda v: D.Categorical(torch.ones(4), validate_args=v),
        COUNTS,
        lambda x: is_count(x) & (x < 4),
    ),
    "multinomial": (
        lambda v: D.Multinomial(4, torch.ones(3), validate_args=v),
        VECTORS,
        lambda x: is_positive(x).all(-1) & (x.sum(-1) == 4),
    ),
    "dirichlet": (
        lambda v: D.Dirichlet(torch.full((3,), 2.0), v),
        SIMPLEX,
        lambda x: (x.sum(-1) - 1).abs() < 1e-5,
    ),
    "independent": (
        lambda v: D.Independent(D.Exponential(torch.ones(2), v), 1, v),
        PLANE,
        lambda x: is_positive(x).all(-1),
    ),
    "transformed": (
        lambda v: D.TransformedDistribution(
            D.Exponential(1.0, v), transforms.AffineTransform(1.0, 1.0), v
        ),
        WIDE,
        lambda x: x >= 1,
    ),
    "transformed vector": (
        lambda v: D.TransformedDistribution(
            D.Exponential(torch.ones(2), v),
            transforms.AffineTransform(torch.tensor([0.0, 1.0]), 1.0, event_dim=1),
            v,
        ),
        PLANE,
        lambda x: (x >= torch.tensor([0.0, 1.0])).all(-1),
    ),
    "mixture": (
        lambda v: D.MixtureSameFamily(EVEN, D.Uniform(PAIR, PAIR + 1, v), v),
        WIDE,
        lambda x: ((x >= 1) & (x <= 2)) | ((x >= 3) & (x <= 4)),
    ),
}


@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_outside_of_the_support_is_drawn(name, validates):
    target, proposal, is_inside = TARGETS[name]
    result = rejection_sample(target(validates), proposal, 1000, seed=0)
    assert is_inside(result.samples).all()
    assert result.report.invalid == 0
    same = rejection_sample(target(not validates), proposal, 1000, seed=0)
    assert torch.equal(result.samples, same.samples)


def test_each_component_of_a_mixture_has_its_own_support():
    # Without checks Pareto(3, 2) has a density at 2 too, which would add half as much again.
    target = D.MixtureSameFamily(EVEN, D.Pareto(PAIR, torch.tensor([2.0, 2.0]), False), False)
    result = rejection_sample(target, D.Uniform(1.0, 21.0), 2000, seed=0)
    below = 0.5 * (1 - 1 / 9) / (1 - 0.5 / 441 - 0.5 * 9 / 441)
    assert (result.samples < 3).double().mean() == pytest.approx(below, abs=0.06)


class Shifted(D.TransformedDistribution):
    """An exponential from 1 on, as a user writes one."""

    def __init__(self):
        base = D.Exponential(1.0, validate_args=False)
        super().__init__(base, [transforms.AffineTransform(1.0, 2.0)], validate_args=False)


class Mixture(D.MixtureSameFamily):
    """A user's mixture."""


class Logged(Mixture):
    """One that adds to the log density of its class."""

    def log_prob(self, value):
        return super().log_prob(value) + 0.0


class Own(D.Independent):
    """A user's product."""


class Pair(D.Distribution):
    """Two exponentials, whose support speaks of each number, as torch accepts it."""

    support = D.constraints.nonnegative
    arg_constraints = {}  # noqa: RUF012

    def __init__(self):
        super().__init__(event_shape=torch.Size([2]))

    def log_prob(self, value):
        if self._validate_args:
            self._validate_sample(value)
        return -value.sum(-1)


class Sum(D.Distribution):
    """Half an exponential, half a Pareto, held in a list, with a support that nobody told."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, validate_args):
        self.parts = [D.Exponential(1.0, validate_args), D.Pareto(2.0, 1.0, validate_args)]
        super().__init__(validate_args=False)

    def log_prob(self, value):
        return torch.stack([part.log_prob(value) for part in self.parts]).logsumexp(0)


def two(kind=D.MixtureSameFamily, shape=()):
    """Return half a uniform on [0, 1] and half one on [3, 4], ``shape`` times."""
    low = torch.tensor([0.0, 3.0]).expand(*shape, 2)
    weights = D.Categorical(torch.ones(*shape, 2))
    return kind(weights, D.Uniform(low, low + 1, False), validate_args=False)


def is_in_two(x):
    return is_in_unit(x) | is_in_unit(x - 3)


def exponentials(kind=D.Independent):
    return kind(D.Exponential(torch.ones(2), False), 1, validate_args=False)


ROOT = transforms.ComposeTransform(
    [transforms.PowerTransform(torch.tensor(0.5)), transforms.AffineTransform(1.0, 1.0)]
)
COMPOSED = {
    "subclass of transformed": (Shifted(), WIDE, lambda x: x >= 1),
    "subclass of mixture": (two(Mixture), WIDE, is_in_two),
    "mixture of its own density": (two(Logged), WIDE, is_in_two),
    "subclass of independent": (exponentials(Own), PLANE, lambda x: is_positive(x).all(-1)),
    "of each number": (Pair(), PLANE, lambda x: is_positive(x).all(-1)),
    "independent mixture": (
        D.Independent(two(shape=(2,)), 1),
        PLANE,
        lambda x: is_in_two(x).all(-1),
    ),
    "transformed mixture": (
        D.TransformedDistribution(two(), transforms.AffineTransform(0.5, 1.0)),
        WIDE,
        lambda x: is_in_two(x - 0.5),
    ),
    "composed transforms": (
        D.TransformedDistribution(D.Exponential(1.0), ROOT, validate_args=False),
        WIDE,
        lambda x: x >= 1,
    ),
    "mixture of transformed": (
        D.MixtureSameFamily(
            EVEN,
            D.TransformedDistribution(
                D.Uniform(torch.zeros(2), 1.0, False),
                transforms.AffineTransform(torch.tensor([0.0, 3.0]), 1.0),
            ),
            validate_args=False,
        ),
        WIDE,
        is_in_two,
    ),
    "list": (Sum(False), WIDE, is_positive),
    "validated list": (Sum(True), WIDE, is_positive),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_a_users_classes_and_their_parts_have_their_support(name):
    target, proposal, is_inside = COMPOSED[name]
    samples = rejection_sample(target, proposal, 1000, seed=0).samples
    assert is_inside(samples).all()
    if is_inside is is_in_two:
        # Both components, and nothing but them.
        assert (samples > 2).double().mean() == pytest.approx(0.5, abs=0.08)


def pareto(scales):
    return D.Pareto(torch.tensor(scales), torch.full((len(scales),), 3.0), False)


PARETO = D.MixtureSameFamily(EVEN, pareto([1.0, 2.0]), validate_args=False)
ONE = D.Categorical(torch.ones(1))
SINGLE = D.Pareto(torch.tensor([[1.0, 2.0]]), 3.0, False)
ROW = D.MixtureSameFamily(D.Categorical(torch.ones(1, 2)), SINGLE, validate_args=False)
NESTED = {
    "itself": PARETO,
    "subclass": Mixture(EVEN, pareto([1.0, 2.0]), validate_args=False),
    "transformed": D.TransformedDistribution(PARETO, transforms.AffineTransform(0.0, 1.0)),
    "mixture": D.MixtureSameFamily(ONE, ROW, validate_args=False),
    "independent": D.Independent(ROW, 1, validate_args=False),
    "independent of transformed": D.Independent(
        D.TransformedDistribution(ROW, transforms.AffineTransform(0.0, 1.0)), 1
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_a_component_adds_nothing_outside_of_its_own_support(name):
    target = NESTED[name]
    x = torch.tensor([0.5, 1.5, 2.5, math.nan]).reshape(4, *target.event_shape)
    first = torch.tensor([0.0, 1.5 / 1.5**4, 1.5 / 2.5**4])
    second = torch.tensor([0.0, 0.0, 12 / 2.5**4])
    values = density(target)(x)
    torch.testing.assert_close(values[:3], (first + second).log())
    assert values[3].isnan()


def test_rounding_does_not_put_a_long_simplex_outside():
    wide = flat(lambda n: torch.randn(n, 3000).softmax(-1))
    assert rejection_sample(D.Dirichlet(torch.ones(3000)), wide, 200, seed=0).acceptance_rate == 1.0


def test_a_draw_of_nan_is_invalid():
    nan = flat(lambda n: torch.where(torch.arange(n) % 2 == 0, math.nan, 1.0))
    result = rejection_sample(D.Exponential(1.0), nan, 10, log_M=0.0, batch_size=40, seed=1)
    assert (result.samples == 1.0).all()
    assert result.report.invalid > 0


class Unknown(D.Distribution):
    """A distribution that says nothing of its support."""

    arg_constraints = {}  # noqa: RUF012

    def log_prob(self, value):
        return -value * value


class Dependent(Unknown):
    """A distribution whose support only its class has."""

    support = D.constraints.dependent


@pytest.mark.parametrize("kind", [Unknown, Dependent])
def test_a_support_that_is_unknown_is_everything(kind):
    result = rejection_sample(kind(validate_args=False), WIDE, 500, seed=0)
    assert (result.samples < 0).any()


def test_the_target_stays_as_it_was():
    target = TARGETS["transformed"][0](True)
    rejection_sample(target, WIDE, 10, seed=0)
    assert target._validate_args
    assert target.base_dist._validate_args
