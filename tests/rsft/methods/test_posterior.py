"""Rejection in parameter space: batches of models, tuning, seeds, what is refused."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rskernels import RejectionError
from rskernels.envelope import EnvelopeViolation
from rskernels.rsft.data.samples import Samples
from rskernels.rsft.methods.metropolis import chain
from rskernels.rsft.methods.posterior import batched_loss, independent


def quadratic(theta):
    return theta.square().sum(dim=1) / 2


def walk(start=None, **options):
    options = {"steps": 100, "sigma": 1.0, "seed": 3, **options}
    return chain(quadratic, torch.zeros(20, 2) if start is None else start, **options)


def test_the_loss_of_many_models_is_that_of_each():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    samples = Samples(torch.randn(30, 5), torch.randint(3, (30,)))
    theta = torch.randn(7, sum(p.numel() for p in model.parameters()))
    result = batched_loss(model, samples, chunk=3)(theta)
    for row, value in zip(theta, result, strict=True):
        nn.utils.vector_to_parameters(row, model.parameters())
        torch.testing.assert_close(F.cross_entropy(model(samples.inputs), samples.labels), value)


def test_the_loss_falls_without_a_gradient():
    torch.manual_seed(0)
    x = torch.randn(100, 2)
    samples = Samples(x, (x[:, 0] > 0).long())
    loss = batched_loss(nn.Linear(2, 2), samples)
    result = chain(loss, torch.zeros(4, 6), steps=200, burn_in=300, acceptance=0.3, tau=0.02)
    assert result.losses.mean() < 0.3 < math.log(2)
    assert not result.samples.requires_grad


@pytest.mark.parametrize("requested", [0.234, 0.44, 0.7])
@pytest.mark.parametrize("sigma", [1e-3, 30.0])
def test_sigma_is_tuned_to_the_acceptance_in_the_burn_in_alone(sigma, requested):
    start = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    result = walk(start, burn_in=300, sigma=sigma, acceptance=requested, steps=200)
    assert result.acceptance_rate == pytest.approx(requested, abs=0.03)
    assert (
        walk(start, burn_in=300, sigma=sigma, acceptance=requested, steps=20).sigma == result.sigma
    )
    # The same σ, given from the start, is the same walk from there on.
    left_alone = walk(start, burn_in=300, sigma=result.sigma, steps=200)
    assert left_alone.sigma == result.sigma
    assert left_alone.acceptance_rate == pytest.approx(result.acceptance_rate, abs=0.02)


def test_sigma_stays_a_number_whatever_the_loss():
    flat = chain(
        lambda theta: theta[:, 0] * 0, torch.zeros(4, 2), steps=8, burn_in=2000, acceptance=0.3
    )
    assert flat.sigma <= torch.finfo(torch.float32).max
    # σ falls and falls, but not to steps of 0, which would all be accepted.
    nowhere = chain(
        lambda theta: theta[:, 0].where(theta[:, 0] == 0, torch.nan),
        torch.zeros(4, 2),
        steps=8,
        burn_in=3000,
        acceptance=0.3,
    )
    assert nowhere.acceptance_rate == 0.0


def test_a_prior_of_any_scale():
    centre = torch.zeros(2, dtype=torch.float64)
    scaled = [
        independent(
            lambda x, s=scale: quadratic(x / s), 50, centre=centre, prior=scale, sigma=2 * scale
        )
        for scale in (1.0, 2.0**-600)
    ]
    assert torch.equal(scaled[0].samples, scaled[1].samples * 2.0**600)


def test_diagnostics_tell_a_walk_at_home_from_one_on_its_way():
    at_home = walk(torch.randn(20, 1), steps=2000, sigma=2.4)
    assert at_home.r_hat < 1.02
    assert 20 * 2000 / 20 < at_home.ess < 20 * 2000
    on_its_way = walk(torch.linspace(-50, 50, 20)[:, None], steps=100, sigma=0.1)
    assert on_its_way.r_hat > 2
    assert on_its_way.ess < 50


def test_same_seed_same_walk_and_one_step_in_thin_is_kept():
    one, two, other = walk(), walk(), walk(seed=4)
    assert torch.equal(one.samples, two.samples)
    assert not torch.equal(one.samples, other.samples)
    assert one.samples.shape == (100, 20, 2)
    assert one.losses.shape == (100, 20)
    assert torch.equal(walk(thin=7).samples, one.samples[::7])
    assert torch.equal(walk(burn_in=30, steps=70).samples, one.samples[30:])


def test_what_was_kept_stays_as_it_was_and_resumes_more_than_once():
    states = []
    straight = walk(steps=40, burn_in=10, keep=states.append, every=15)
    assert [state["step"] for state in states] == [15, 30, 45]
    for state in 2 * states:
        resumed = walk(steps=40, burn_in=10, resume=state)
        assert resumed.acceptance_rate == straight.acceptance_rate
        assert torch.equal(resumed.samples, straight.samples)
        assert torch.equal(resumed.losses, straight.losses)


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    walk()
    independent(quadratic, 10, centre=torch.zeros(2), prior=1.0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_proposal_without_a_loss_is_never_accepted():
    def loss(theta):
        return quadratic(theta).where(theta[:, 0] > 0, torch.nan)

    result = chain(loss, torch.ones(50, 1), steps=200, sigma=1.0)
    assert (result.samples > 0).all()
    assert result.losses.isfinite().all()
    drawn = independent(loss, 1000, centre=torch.zeros(1), prior=1.0)
    assert (drawn.samples > 0).all()
    assert drawn.report.invalid > 0


def test_independent_draws_by_seed():
    draw = lambda seed: independent(quadratic, 50, centre=torch.zeros(2), prior=1.0, seed=seed)  # noqa: E731
    assert torch.equal(draw(1).samples, draw(1).samples)
    assert not torch.equal(draw(1).samples, draw(2).samples)


def test_a_wider_proposal_accepts_less_by_its_volume():
    near = independent(quadratic, 20_000, centre=torch.zeros(2), prior=1.0)
    far = independent(quadratic, 20_000, centre=torch.zeros(2), prior=1.0, sigma=2.0)
    assert far.report.log_M == pytest.approx(near.report.log_M + 2 * math.log(2))
    assert near.acceptance_rate / far.acceptance_rate == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": torch.zeros(3)}, r"start must be \[chains, d\], got \[3\]"),
        ({"start": torch.zeros(3, 0)}, r"got \[3, 0\]"),
        ({"start": torch.full((2, 1), math.inf)}, "not finite at a start"),
        ({"steps": 3}, "4·thin steps"),
        ({"thin": 50}, "4·thin steps"),
        ({"sigma": 0.0}, "sigma must be positive and finite, got 0.0"),
        ({"tau": math.nan}, "tau must be positive and finite, got nan"),
        ({"acceptance": 0.3}, "needs a burn-in"),
        ({"acceptance": 1.0, "burn_in": 10}, r"must be in \(0, 1\)"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"sigma": 1e39}, r"sigma must be 1.2e-38 to 3.4e\+38, as torch.float32 is, got 1e\+39"),
        ({"start": torch.zeros(3, 1, dtype=torch.int64)}, "must be floating, got torch.int64"),
    ],
)
def test_what_a_chain_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        walk(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.5}, r"sigma=0.5 is below prior=1.0: no finite M"),
        ({"prior": -1.0}, "prior must be positive"),
        ({"tau": 0.0}, "tau must be positive"),
        ({"centre": torch.zeros(1, 1)}, r"centre must be \[d\]"),
        ({"centre": torch.zeros(1, dtype=torch.int64)}, "must be floating, got torch.int64"),
        ({"prior": 1e-200}, "prior must be 1.2e-38 to"),
        ({"sigma": 1e200}, "sigma must be 1.2e-38 to"),
    ],
)
def test_what_independent_draws_refuse(change, message):
    options = {"centre": torch.zeros(2), "prior": 1.0, **change}
    with pytest.raises(ValueError, match=message):
        independent(quadratic, 10, **options)


def test_a_loss_below_its_bound_is_said():
    with pytest.raises(EnvelopeViolation):
        independent(quadratic, 100, centre=torch.zeros(1), prior=1.0, least=0.5)


def test_next_to_no_acceptance_is_said():
    with pytest.raises(RejectionError, match="acceptance rate"):
        independent(
            lambda theta: 100 + quadratic(theta),
            10,
            centre=torch.zeros(1),
            prior=1.0,
            min_acceptance=1e-2,
        )
