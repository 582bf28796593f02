"""Proposals with parameters, and their tuning: densities, copies, seeds, what is refused."""

import math

import pytest
import torch
from torch.distributions import (
    Beta,
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Pareto,
)

from rskernels import RejectionError, rejection_sample
from rskernels.rsft.errors import TrainingError
from rskernels.rsft.methods import tuning
from rskernels.rsft.methods.proposals import CouplingProposal, DefensiveProposal, FamilyProposal
from rskernels.rsft.methods.tuning import minimise_kl, tune

TARGET = MixtureSameFamily(
    Categorical(torch.tensor([0.3, 0.7])),
    Independent(Normal(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.5), 1),
)


def wide_normal(scale=3.0):
    return FamilyProposal(Normal, independent=1, loc=torch.zeros(2), scale=torch.full((2,), scale))


def quick(proposal=None, **options):
    options = {"rounds": 2, "draws": 200, "steps": 100, "pilot": 2000, "seed": 3, **options}
    return tune(TARGET, proposal or wide_normal(), **options)


@pytest.mark.parametrize(
    ("family", "parameters"),
    [
        (Beta, {"concentration1": torch.tensor(2.0), "concentration0": torch.tensor(3.0)}),
        (MultivariateNormal, {"loc": torch.ones(3), "scale_tril": 2 * torch.eye(3)}),
        (Categorical, {"logits": torch.zeros(4)}),
    ],
)
def test_a_family_starts_at_its_parameters(family, parameters):
    proposal, distribution = FamilyProposal(family, **parameters), family(**parameters)
    x = proposal.sample(50)
    torch.testing.assert_close(proposal.log_prob(x), distribution.log_prob(x))
    loss = -proposal.log_prob(x).mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in proposal.parameters())


def moved(proposal, seed=0):
    """Move the parameters, so that the couplings are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in proposal.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return proposal


@pytest.mark.parametrize("size", [2, 3, 5])
def test_couplings_start_as_the_base(size):
    base = MultivariateNormal(torch.ones(size), torch.eye(size))
    proposal = CouplingProposal(base, width=8)
    x = base.sample((20,))
    torch.testing.assert_close(proposal.log_prob(x), base.log_prob(x))


def test_couplings_have_the_density_that_they_draw_from():
    base = Independent(Normal(torch.zeros(2), 1.0), 1)
    generator = torch.Generator().manual_seed(0)
    proposal = moved(CouplingProposal(base, layers=3, width=8, generator=generator))
    axis = torch.linspace(-12, 12, 800)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = proposal.log_prob(grid).exp() * (axis[1] - axis[0]) ** 2
        torch.manual_seed(0)
        x = proposal.sample(20_000)
    assert density.sum() == pytest.approx(1.0, abs=0.01)
    mean, spread = density @ grid, (density @ grid.square()).sqrt()
    assert not torch.allclose(mean, torch.zeros(2), atol=0.1)
    torch.testing.assert_close(x.mean(0), mean, atol=0.1, rtol=0)
    torch.testing.assert_close(x.square().mean(0).sqrt(), spread, atol=0.1, rtol=0)


def test_a_defensive_mixture_bounds_the_ratio():
    start, narrow = wide_normal(3.0), wide_normal(0.1)
    x = torch.tensor([[0.0, 0.0], [4.0, 4.0]])
    mixed = DefensiveProposal(narrow, start, 0.1)
    with torch.no_grad():
        assert (mixed.log_prob(x) >= start.log_prob(x) + math.log(0.1) - 1e-6).all()
        want = (0.9 * narrow.log_prob(x).exp() + 0.1 * start.log_prob(x).exp()).log()
        torch.testing.assert_close(mixed.log_prob(x), want)
    torch.manual_seed(0)
    far = (mixed.sample(20_000).abs() > 1.0).any(-1).double().mean()
    assert far == pytest.approx(0.1 * (1 - 0.2611**2), abs=0.01)
    alone = DefensiveProposal(narrow, start, 0.0)
    assert torch.equal(alone.log_prob(x), narrow.log_prob(x))


def test_minimising_kl_finds_the_moments():
    torch.manual_seed(0)
    samples = torch.tensor([2.0, -1.0]) + torch.tensor([0.5, 2.0]) * torch.randn(4000, 2)
    proposal = wide_normal(1.0)
    generator = torch.Generator().manual_seed(0)
    loss = minimise_kl(proposal, samples, 400, 512, 0.05, generator)
    result = proposal.distribution().base_dist
    torch.testing.assert_close(result.loc, samples.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(result.scale, samples.std(0), atol=0.05, rtol=0)
    best = Independent(Normal(samples.mean(0), samples.std(0)), 1)
    assert loss == pytest.approx(-best.log_prob(samples).mean().item(), abs=0.01)


def test_tuning_lowers_M_and_leaves_what_was_given_alone():
    proposal = wide_normal()
    before = {name: value.clone() for name, value in proposal.state_dict().items()}
    tuned = quick(proposal)
    first, *later = tuned.rounds
    assert math.isnan(first.cross_entropy)
    assert first.is_kept
    best = max(tuned.rounds, key=lambda r: r.acceptance_rate)
    assert best.is_kept
    assert best.log_M < first.log_M - 1.0
    assert tuned.gain == best.acceptance_rate / first.acceptance_rate > 3.0
    assert len(later) == 2
    assert tuned.samples.shape == (600, 2)
    assert all(torch.equal(before[name], value) for name, value in proposal.state_dict().items())
    assert not any(p.requires_grad for p in tuned.proposal.parameters())
    # The envelope is the one of the best proposal.
    result = rejection_sample(
        TARGET, (tuned.proposal.sample, tuned.proposal.log_prob), 500, log_M=tuned.envelope, seed=1
    )
    assert result.report.pilot == 0
    assert result.acceptance_rate == pytest.approx(best.acceptance_rate, rel=0.3)


def test_a_network_on_top_of_a_base_gains_too():
    base = Independent(Normal(torch.zeros(2), torch.full((2,), 3.0)), 1)
    generator = torch.Generator().manual_seed(0)
    proposal = CouplingProposal(base, width=16, generator=generator)
    tuned = quick(proposal, rounds=2, draws=300, steps=150)
    assert tuned.gain > 1.5
    assert tuned.rounds[-1].cross_entropy < -base.log_prob(tuned.samples).mean()


def test_a_worse_proposal_is_taken_back(monkeypatch):
    def worsen(proposal, *_):
        with torch.no_grad():
            proposal.free["loc"].add_(2.0)
        return 0.0

    monkeypatch.setattr(tuning, "minimise_kl", worsen)
    tuned = quick(rounds=3)
    assert [r.is_kept for r in tuned.rounds] == [True, False, False, False]
    assert tuned.gain == 1.0
    x = TARGET.sample((5,))
    torch.testing.assert_close(tuned.proposal.log_prob(x), wide_normal().log_prob(x))
    # Their draws are of the target all the same.
    assert len(tuned.samples) == 800


def test_what_was_kept_stays_as_it_was():
    states = []
    straight = quick(keep=states.append)
    for number, state in enumerate(states):
        assert len(state["pool"]) == len(state["rounds"]) == number + 1
        assert torch.equal(quick(resume=state).samples, straight.samples)


def test_a_step_that_is_too_long_is_said():
    with pytest.raises(TrainingError, match=r"after \d+ steps; a smaller lr than 1e\+30 may help"):
        quick(lr=1e30)


def test_a_seed_decides_all():
    one, two, other = quick(), quick(), quick(seed=4)
    drop = lambda tuned: [r._replace(draws_per_second=0.0)[:2] for r in tuned.rounds]  # noqa: E731
    assert torch.equal(one.samples, two.samples)
    assert drop(one) == drop(two)
    assert not torch.equal(one.samples, other.samples)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"share": 1.0}, r"share must be in \[0, 1\), got 1.0"),
        ({"lr": math.nan}, "lr must be above 0, got nan"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        quick(**change)


def test_a_hopeless_proposal_is_said():
    with pytest.raises(RejectionError, match="acceptance rate"):
        tune(TARGET, wide_normal(1e4), draws=100, min_acceptance=1e-3)


def test_what_is_no_family_or_base():
    with pytest.raises(ValueError, match="Normal takes loc, scale, got mean"):
        FamilyProposal(Normal, mean=torch.zeros(2))
    with pytest.raises(ValueError, match=r"is a batch \[2\]; independent makes it part of a draw"):
        FamilyProposal(Normal, loc=torch.zeros(2), scale=torch.ones(2))
    for base in (Normal(0.0, 1.0), MultivariateNormal(torch.zeros(1), torch.eye(1))):
        with pytest.raises(ValueError, match=r"draws \[d\] with d of at least 2"):
            CouplingProposal(base)


def test_a_tuned_support_may_be_narrower_than_the_first():
    parts = (
        FamilyProposal(Pareto, scale=torch.tensor(s), alpha=torch.tensor(2.0)) for s in (2.0, 1.0)
    )
    mixture = DefensiveProposal(*parts, share=0.5)
    pair = (mixture.sample, mixture.log_prob)
    samples = rejection_sample(Pareto(1.0, 2.0), pair, 2000, log_M=math.log(2.0), seed=0).samples
    assert (samples < 2).double().mean() == pytest.approx(0.75, abs=0.06)
