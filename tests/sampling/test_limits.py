"""``rejection_sample``: when it warns, when it gives up, and what it says then."""

import inspect
import math
import time

import pytest
import torch
from torch.distributions import Laplace, Normal, Uniform

from rskernels import RejectionError, rejection_sample
from rskernels.sampling import limits


def test_a_target_without_mass_is_said_soon():
    nothing = lambda x: torch.full_like(x, -math.inf)  # noqa: E731
    with pytest.raises(
        RejectionError,
        match=r"stopped at min_acceptance=1e-05 with 0 of 3 draws: acceptance rate 0 over "
        r"1,\d{3},\d{3} proposals at log M = 2 .*log density was -inf at every other",
    ):
        rejection_sample(nothing, Uniform(0.0, 1.0), 3, log_M=2.0, seed=1)
    with pytest.raises(
        RejectionError, match=r"acceptance rate unknown .* log M = -inf \(1,\d{3},\d{3} pilot"
    ):
        rejection_sample(nothing, Uniform(0.0, 1.0), 3, seed=1)


def test_a_target_of_nan_is_said():
    with pytest.raises(RejectionError, match="every log ratio was NaN or"):
        rejection_sample(lambda x: x * math.nan, Uniform(0.0, 1.0), 3, seed=1, min_acceptance=0.01)


def test_too_large_an_M_is_said():
    with pytest.raises(
        RejectionError,
        match=r"max_proposals=1000 with \d+ of 500 draws: acceptance rate 0.0\d+ over 1,000 "
        r"proposals at log M = 3 .*largest log ratio was 0.27\d+. A smaller M",
    ):
        rejection_sample(
            Normal(0.0, 1.0), Laplace(0.0, 1.0), 500, log_M=3.0, max_proposals=1000, seed=1
        )


def test_min_acceptance_judges_the_rate():
    options = {"log_M": math.log(100.0), "seed": 1}
    target = proposal = Uniform(0.0, 1.0)
    with pytest.raises(RejectionError, match=r"min_acceptance=0.1 with \d+ of 1,000 draws"):
        rejection_sample(target, proposal, 1000, min_acceptance=0.1, **options)
    result = rejection_sample(target, proposal, 1000, min_acceptance=0.01, **options)
    assert result.acceptance_rate == pytest.approx(0.01, abs=0.002)


@pytest.mark.parametrize(
    ("limit", "stopped"),
    [
        ({"max_proposals": 1000}, "max_proposals"),
        ({"max_seconds": 1e-9}, "max_seconds"),
        ({"min_acceptance": 1.0}, "min_acceptance"),
    ],
)
def test_a_partial_result_is_returned_when_asked_for(table, limit, stopped):
    result = table.draw(10_000, log_M=2.0, return_partial=True, **limit)
    assert result.report.stopped == stopped
    assert len(result.samples) == len(result.log_weights) < 10_000
    if stopped == "max_proposals":
        assert result.proposals == result.report.drawn == 1000
        assert torch.equal(
            result.samples, table.accepted_at(table.log_ratio[:1000], result.report.log_M)
        )
    if stopped == "max_seconds":
        assert result.samples.shape == (0,)
        assert math.isnan(result.acceptance_rate)
    with pytest.raises(RejectionError, match=f"{stopped}="):
        table.draw(10_000, log_M=2.0, **limit)


def test_a_partial_result_has_room_for_no_more(table):
    for num_samples in (10**6, 2**62):
        result = table.draw(
            num_samples, log_M=1.3, on_violation="control", return_partial=True, max_proposals=1000
        )
        for tensor in result[:2]:
            assert 0 < tensor.untyped_storage().nbytes() == tensor.numel() * tensor.itemsize


def test_pilot_draws_count_towards_the_limit(table):
    result = table.draw(10_000, pilot=64, max_proposals=100, return_partial=True)
    assert (result.report.pilot, result.proposals) == (64, 36)


@pytest.mark.parametrize("options", [{"log_M": 3.0, "batch_size": 100}, {"pilot": 100}])
def test_a_slow_run_says_so_once(table, monkeypatch, options):
    table.log_ratio[:200] = -math.inf
    monkeypatch.setattr(limits, "PATIENCE", 0.0)
    with pytest.warns(
        UserWarning, match=r"of 500 draws after 0 s: acceptance rate .* log M"
    ) as seen:
        table.draw(**options)
    assert len(seen) == 1
    assert seen[0].filename == inspect.getfile(type(table))


def test_a_warning_names_the_first_caller_outside_of_the_package(table, monkeypatch):
    monkeypatch.setattr(limits, "PATIENCE", 0.0)
    inside = {"__name__": "rskernels.rsft.anything", "sample": rejection_sample}
    exec(compile("def draw(*arguments): sample(*arguments, log_M=3.0)", "inside", "exec"), inside)
    with pytest.warns(UserWarning, match="of 500 draws") as seen:
        inside["draw"](table.target, (table.sample, table.log_prob), 500)
    assert seen[0].filename == __file__


class Slow:
    """A target that takes a time for each draw, and remembers how many came at once."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.sizes = []

    def __call__(self, x):
        self.sizes.append(len(x))
        time.sleep(self.seconds * len(x))
        return Normal(0.0, 1.0).log_prob(x)


def test_pilot_draws_come_by_the_batch():
    target = Slow(0.0)
    rejection_sample(target, Laplace(0.0, 1.0), 100, pilot=300, batch_size=64, seed=1)
    assert target.sizes[:5] == [64, 64, 64, 64, 44]
    assert max(target.sizes) == 64


@pytest.mark.parametrize("log_M", [None, 0.28])
@pytest.mark.parametrize("pair", [False, True])
def test_a_slow_target_stops_in_time(log_M, pair):
    proposal = Laplace(0.0, 1.0)
    if pair:
        proposal = (lambda n: Laplace(0.0, 1.0).sample((n,)), Laplace(0.0, 1.0).log_prob)
    target, begin = Slow(2e-3), time.perf_counter()
    options = {"max_seconds": 0.3, "return_partial": True, "seed": 1, "log_M": log_M}
    result = rejection_sample(target, proposal, 10_000, **options)
    # 4,096 draws take 8 s.
    assert time.perf_counter() - begin < 1.0
    assert result.report.stopped == "max_seconds"
    assert result.report.drawn == sum(target.sizes)


def test_max_seconds_does_not_change_the_draws_by_the_clock():
    options = {"max_seconds": 60.0, "seed": 1}
    one = rejection_sample(Slow(0.0), Laplace(0.0, 1.0), 300, **options)
    two = rejection_sample(Slow(1e-5), Laplace(0.0, 1.0), 300, **options)
    assert torch.equal(one.samples, two.samples)


def test_draws_of_unknown_size_are_not_all_piloted_at_once():
    sizes = []

    def sample(n):
        sizes.append(n)
        return torch.zeros(()).expand(n, 1 << 13)

    log_prob = lambda x: x[:, 0]  # noqa: E731
    result = rejection_sample(log_prob, (sample, log_prob), 3, seed=1)
    assert max(sizes) <= 1024
    assert result.report.pilot == 4096


def test_no_draw_is_made_after_the_last_that_is_allowed():
    calls = []

    def nothing(x):
        calls.append(len(x))
        return torch.full_like(x, -math.inf)

    options = {"log_M": 0.0, "max_proposals": 10, "return_partial": True, "seed": 1}
    result = rejection_sample(nothing, Laplace(0.0, 1.0), 5, **options)
    assert sum(calls) == result.report.drawn == 10
    assert result.samples.shape == (0,)
