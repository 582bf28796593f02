"""``rejection_sample``: any densities, draws and shapes, and what is random about them."""

import math

import pytest
import torch
from torch.distributions import Beta, Categorical, Independent, Laplace, MultivariateNormal, Normal

from rskernels import RejectionError, rejection_sample


def test_densities_need_no_scale():
    for log_scale in (-5000.0, 3000.0):
        target = lambda x: Normal(0.0, 1.0).log_prob(x).double() + log_scale  # noqa: B023, E731
        for log_M in (log_scale + 0.28, None):
            result = rejection_sample(target, Laplace(0.0, 1.0), 2000, log_M=log_M, seed=1)
            assert result.acceptance_rate == pytest.approx(0.76, abs=0.05)
            assert result.report.log_M == pytest.approx(log_scale + 0.2742, abs=0.01)
            assert result.report.max_log_ratio == pytest.approx(result.report.log_M, abs=0.01)


@pytest.mark.parametrize("event", [(), (1,), (3,), (2, 3), (2, 1, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_event_shapes_and_dtypes(event, dtype):
    zero = torch.zeros(event, dtype=dtype)
    proposal = Independent(Normal(zero, zero + 1.2), len(event))
    target = Independent(Normal(zero, zero + 1.0), len(event))
    result = rejection_sample(target, proposal, 70, seed=1)
    assert result.samples.shape == (70, *event)
    assert result.samples.dtype == result.log_weights.dtype == dtype
    assert not result.samples.requires_grad
    empty = rejection_sample(target, proposal, 0, seed=1)
    assert empty.samples.shape == (0, *event)
    assert empty.log_weights.shape == (0,)
    assert math.isnan(empty.acceptance_rate)
    assert empty.proposals == 0


def test_large_draws_come_in_small_batches():
    sizes = []

    def sample(n):
        sizes.append(n)
        return torch.zeros(()).expand(n, 1000)

    log_prob = lambda x: x[:, 0]  # noqa: E731
    rejection_sample(log_prob, (sample, log_prob), 3000, log_M=2.0, seed=1)
    assert sizes[0] <= 1024
    assert max(sizes) == (1 << 22) // 1000


@pytest.mark.parametrize(("num_samples", "first"), [(1, 64), (100, 280), (900, 1024), (5000, 5000)])
def test_the_first_batch_is_no_larger_than_is_needed(num_samples, first):
    sizes = []

    def log_prob(x):
        sizes.append(len(x))
        return Normal(0.0, 1.0).log_prob(x)

    rejection_sample(log_prob, Laplace(0.0, 1.0), num_samples, log_M=0.28, seed=1)
    assert sizes[0] == first


def test_control_weights_keep_their_digits_at_any_scale():
    shifted = lambda x: Normal(0.0, 1.0).log_prob(x) + 1000.0  # noqa: E731
    options = {"log_M": 1000.1, "on_violation": "control", "seed": 1}
    result = rejection_sample(shifted, Laplace(0.0, 1.0), 500, **options)
    assert result.log_weights.min().abs() < 1e-6
    assert result.log_weights.max() == pytest.approx(0.1742, abs=1e-4)


def test_large_pilots_come_in_small_batches():
    sizes = []

    def log_prob(x):
        sizes.append(len(x))
        return x[:, 0] * 0

    proposal = Independent(Normal(torch.zeros(4000), 1.0), 1)
    proposal.log_prob = lambda x: x[:, 0] * 0
    result = rejection_sample(log_prob, proposal, 3, pilot=2500, min_acceptance=0.5, seed=1)
    assert sizes[:3] == [1048, 1048, 404]
    assert result.report.pilot == 2500


def test_large_draws_of_a_distribution_come_in_small_batches_from_the_first():
    sizes = []

    def log_prob(x):
        sizes.append(len(x))
        return proposal.log_prob(x)

    proposal = Independent(Normal(torch.zeros(1 << 14), 1.0), 1)
    rejection_sample(log_prob, proposal, 300, log_M=math.log(2.0), seed=1)
    assert max(sizes) == (1 << 22) >> 14


def test_discrete_draws_keep_their_dtype():
    proposal = Categorical(torch.ones(5))
    result = rejection_sample(Categorical(torch.arange(5.0)), proposal, 300, seed=1)
    assert result.samples.dtype == torch.int64
    assert result.samples.min() == 1  # class 0 has no mass
    assert rejection_sample(proposal, proposal, 0, seed=1).samples.dtype == torch.int64


def test_half_precision_densities_are_compared_in_float32():
    result = rejection_sample(
        lambda x: Normal(0.0, 1.0).log_prob(x).bfloat16(), Laplace(0.0, 1.0), 100, seed=1
    )
    assert result.log_weights.dtype == torch.float32


def test_a_density_with_gradient_gives_draws_without():
    scale = torch.ones((), requires_grad=True)
    result = rejection_sample(Normal(0.0, scale), Laplace(torch.zeros(()), scale), 10, seed=1)
    assert not result.samples.requires_grad


def test_a_multivariate_proposal_outside_the_support_is_rejected():
    result = rejection_sample(
        Independent(Beta(torch.full((2,), 2.0), 2.0, validate_args=False), 1, validate_args=False),
        MultivariateNormal(torch.full((2,), 0.5), 0.2 * torch.eye(2)),
        100,
        seed=1,
    )
    assert ((result.samples > 0) & (result.samples < 1)).all()
    assert result.report.invalid == 0  # a density of 0 is one


# What is random.


def draw(seed=None, generator=None):
    return rejection_sample(
        Normal(0.0, 1.0), Laplace(0.0, 1.0), 50, log_M=0.28, seed=seed, generator=generator
    ).samples


def test_a_seed_decides_all_and_leaves_the_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = draw(seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(draw(seed=7), one)
    assert not torch.equal(draw(seed=8), one)


def test_the_generator_is_put_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RejectionError):
        rejection_sample(lambda x: x - math.inf, Laplace(0.0, 1.0), 5, seed=1, max_proposals=10)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_generator_gives_the_seed():
    generator = torch.Generator().manual_seed(9)
    one, two = draw(generator=generator), draw(generator=generator)
    assert not torch.equal(one, two)
    assert torch.equal(draw(generator=generator.manual_seed(9)), one)


def test_without_either_torch_decides():
    torch.manual_seed(2)
    one, two = draw(), draw()
    assert not torch.equal(one, two)
    torch.manual_seed(2)
    assert torch.equal(draw(), one)
