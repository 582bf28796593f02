"""``rejection_sample``: no bound that is not one, and a warning where no M bounds the ratios."""

import math
import pickle
import warnings

import pytest
import torch
from torch.distributions import Beta, Cauchy, Independent, Laplace, Normal, StudentT, Uniform

from rskernels import Envelope, RejectionError, rejection_sample

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


@pytest.mark.parametrize("name", UNBOUNDED)
def test_ratios_without_a_largest_are_said(name):
    with pytest.warns(UserWarning, match=r"no finite M seems to bound p/q.* k̂ = 0\.\d") as seen:
        result = rejection_sample(UNBOUNDED[name], NORMAL, 100, seed=1)
    assert seen[0].filename == __file__
    report = result.report
    assert report.tv_bound is None
    assert report.pareto_k > 0.3
    assert "no bound on TV" in str(report)
    assert "among the ratios seen" in str(report)
    assert "no finite M" in str(report)
    assert "≤" not in str(report)
    assert math.isnan(report.envelope.report().overall["tv_bound"])


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
            assert report.tv_bound is None
            assert "no bound on TV" in str(report)


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
            assert report.tv_bound is None
            assert report.delta > 0.0


@pytest.mark.parametrize("reaction", ["thin", "cap", "raise"])
def test_an_M_that_was_given_has_the_estimate_of_a_bound(table, reaction):
    report = table.draw(log_M=4.0, on_violation=reaction).report
    assert (report.tv_bound, report.delta) == (0.0, 0.0)
    assert "TV ≤ δ of the M given, estimated as 0" in str(report)
    assert math.isnan(report.pareto_k)


def test_cap_bounds_nothing_of_a_learnt_M(table):
    report = table.draw(log_M=Envelope("quantile", level=0.9), pilot=200).report
    assert report.delta == report.envelope.report().overall["delta"] > 0.0
    assert report.tv_bound is None
    assert f"excess mass {report.delta:.3g} among the ratios seen" in str(report)


def test_control_needs_no_bound_of_M(table):
    report = table.draw(log_M=Envelope(on_violation="control"), pilot=1).report
    assert report.tv_bound == 0.0
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
        assert (report.log_M, report.tv_bound) == (3.0, None)
    else:
        assert report.tv_bound == envelope.report().overall["delta"] > 0.0


def test_nothing_decided_is_no_bound():
    report = rejection_sample(NORMAL, NORMAL, 0, log_M=0.0).report
    assert report.tv_bound is None
