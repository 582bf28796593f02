"""``rejection_sample``: no bound that is not one, and a warning where no M bounds the ratios."""

import math
import pickle
import warnings

import pytest
import torch
from torch.distributions import Beta, Cauchy, Independent, Laplace, Normal, StudentT, Uniform

from rskernels import Envelope, RejectionError, rejection_sample
from rskernels.rsft import draw_rows

from ..support.states import columns

NORMAL = Normal(0.0, 1.0)
UNBOUNDED = {
    "cauchy": Cauchy(0.0, 1.0),
    "t3": StudentT(3.0),
    "wider": Normal(0.0, 2.0),
    "laplace": Laplace(0.0, 1.0),
}
BOUNDED = {
    "beta-uniform": (Beta(2.7, 6.3), Uniform(0.0, 1.0)),
    "beta-beta": (Beta(2.7, 6.3), Beta(2.0, 6.0)),
    "normal-wider": (NORMAL, Normal(0.0, 1.2)),
    "normal-laplace": (NORMAL, Laplace(0.0, 1.0)),
    "normal-t": (NORMAL, StudentT(5.0)),
    "rare": (Normal(0.0, 0.03), Uniform(-8.0, 8.0)),
    "ten": tuple(Independent(Normal(torch.zeros(10), s), 1) for s in (1.0, 1.2)),
}


def assert_no_bound(report):
    assert "among the ratios seen, no bound on TV" in str(report)
    assert not {"≤", "≲"} & set(str(report) + str(report.envelope.report()))


@pytest.mark.parametrize("name", UNBOUNDED)
def test_ratios_without_a_largest_are_said(name):
    with pytest.warns(UserWarning, match=r"no finite M seems to bound p/q.* k̂ = 0\.\d") as seen:
        result = rejection_sample(UNBOUNDED[name], NORMAL, 100, seed=1)
    assert seen[0].filename == __file__
    report = result.report
    assert report.is_unbounded
    assert report.pareto_k > 0.3
    assert_no_bound(report)
    assert "no finite M seems to bound p/q" in str(report)


@pytest.mark.parametrize("name", UNBOUNDED)
def test_such_ratios_are_found_for_most_seeds(name):
    # 1 of 25 seeds goes unseen, so that 5 of 12 do by chance with probability 6e-5.
    found = 0
    for seed in range(12):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            rejection_sample(UNBOUNDED[name], NORMAL, 50, seed=seed, max_seconds=60.0)
        found += bool(seen)
    assert found >= 8


@pytest.mark.parametrize("name", BOUNDED)
def test_bounded_ratios_raise_no_alarm(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(4):
            report = rejection_sample(*BOUNDED[name], 100, seed=seed).report
            assert not report.is_unbounded
            assert "no finite M" not in str(report)
            assert_no_bound(report)


def test_a_failure_names_the_tail():
    with pytest.raises(RejectionError, match=r"no finite M seems to bound p/q"):
        rejection_sample(Cauchy(0.0, 1.0), NORMAL, 10**6, seed=1, max_proposals=50_000)


def test_a_policy_that_truncates_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in ({"policy": "budget", "rate": 0.5}, {"policy": "quantile", "level": 0.9}):
            report = rejection_sample(
                Cauchy(0.0, 1.0), NORMAL, 50, log_M=Envelope(**options)
            ).report
            assert not report.is_unbounded
            assert report.delta > 0.0


@pytest.mark.parametrize(
    ("log_M", "draws", "reaction"), [(4.5, 20, "cap"), (5.0, 100, "thin"), (4.0, 100, "cap")]
)
def test_such_ratios_are_said_of_an_M_that_was_given(log_M, draws, reaction):
    # What is estimated of δ is 0 for most seeds; what the draws miss is 0.1 and more.
    for seed in range(4):
        with pytest.warns(UserWarning, match="no finite M seems to bound p/q"):
            report = rejection_sample(
                Cauchy(0.0, 1.0), NORMAL, draws, log_M=log_M, on_violation=reaction, seed=seed
            ).report
        assert report.is_unbounded
        assert_no_bound(report)


def test_a_fixed_M_of_an_envelope_is_no_bound_either():
    envelope = Envelope("fixed", M=math.exp(4.0), on_violation="raise")
    x = NORMAL.sample((3000,)).clamp(-3.0, 3.0)
    envelope.update(Cauchy(0.0, 1.0).log_prob(x) - NORMAL.log_prob(x))
    report = envelope.report()
    assert report.overall["delta"] == 0.0
    assert "TV" not in str(report)
    assert "bound" not in str(report.to_dict()["overall"].keys())


@pytest.mark.parametrize("reaction", ["thin", "cap", "raise"])
def test_an_estimate_of_what_bounds_is_no_bound(table, reaction):
    report = table.draw(log_M=4.0, on_violation=reaction).report
    assert report.delta == 0.0
    assert "excess mass 0 among the ratios seen" in str(report)
    assert_no_bound(report)
    assert not math.isnan(report.pareto_k)
    assert "k̂ = " in str(report)


def test_an_M_that_is_proved_is_not_doubted():
    x = NORMAL.icdf(torch.arange(1, 20_000) / 20_000)
    log_ratio = Cauchy(0.0, 1.0).log_prob(x) - NORMAL.log_prob(x)
    with pytest.warns(UserWarning, match="no finite M"):
        draw_rows(log_ratio, 50, log_M=log_ratio.max().item(), seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # No other row of the pool can be proposed.
        assert not draw_rows(log_ratio, 50, seed=1).report.is_unbounded


@pytest.mark.parametrize(
    ("target", "scale"), [((3.0, 0.01), 2.0), ((0.0, 1.0), 1.15)], ids=["rare", "high"]
)
def test_a_tail_that_does_not_tell_is_undecided(target, scale):
    size = 1 if scale == 2.0 else 30
    normals = (Normal(torch.full((size,), target[0]), target[1]), Normal(torch.zeros(size), scale))
    report = rejection_sample(*(Independent(normal, 1) for normal in normals), 100, seed=1).report
    assert report.pareto_k > 0.0
    for text in (str(report), str(report.envelope.report())):
        assert "no finite M" not in text
        assert "undecided whether a finite M exists" in text


def test_too_few_ratios_decide_nothing():
    report = rejection_sample(NORMAL, NORMAL, 3, log_M=0.0, seed=1).report
    assert "too few ratios for a Pareto shape, undecided" in str(report)
    assert not report.is_unbounded


def test_cap_bounds_nothing_of_a_learnt_M(table):
    report = table.draw(log_M=Envelope("quantile", level=0.9), pilot=200).report
    assert report.delta == report.envelope.report().overall["delta"] > 0.0
    assert f"excess mass {report.delta:.3g} among the ratios seen" in str(report)


def test_control_needs_no_bound_of_M(table):
    report = table.draw(log_M=Envelope(on_violation="control"), pilot=1).report
    assert report.delta == 0.0
    assert "weighted draws follow the target for any M" in str(report)


@pytest.mark.parametrize("reaction", ["thin", "cap", "raise"])
def test_an_envelope_does_not_forget_that_its_fixed_M_is_too_small(table, reaction):
    envelope = Envelope("fixed", M=math.e, on_violation=reaction)
    envelope.update(torch.zeros(4))
    known = Envelope("fixed", M=math.e, on_violation="cap")
    known.update(torch.tensor([3.0, 0.0]))
    envelope = pickle.loads(pickle.dumps(envelope))
    envelope.load_state_dict({**columns(known), "on_violation": reaction})
    table.log_ratio[:] = 0.5
    report = table.draw(log_M=envelope).report
    if reaction == "thin":
        assert (report.log_M, report.delta) == (3.0, 0.0)
    else:
        assert report.delta == envelope.report().overall["delta"] > 0.0


def test_nothing_decided_is_undecided():
    report = rejection_sample(NORMAL, NORMAL, 0, log_M=0.0).report
    assert math.isnan(report.pareto_k)
    assert "undecided" in str(report)
