"""``rejection_sample``: its decisions to the bit, its limits, its errors and what it reports."""

import math

import pytest
import torch
from torch.distributions import Laplace, Normal, Uniform

import rskernels
from rskernels import Envelope, RejectionError, rejection_sample
from rskernels.envelope import EnvelopeViolation, NoFiniteM
from rskernels.sampling import result as sampling_result
from rskernels.sampling import run as sampling_run
from rskernels.sampling.draws import SAMPLE_STREAM

TABLE = 20_000
WANTED = 500


class Table:
    """Proposals that are the same however many are drawn at a time: rows 0, 1, 2, ..."""

    def __init__(self, log_ratio):
        self.log_ratio = log_ratio
        self.next = 0

    def sample(self, n):
        rows = torch.arange(self.next, self.next + n)
        self.next += n
        return rows.clamp(max=TABLE - 1)

    def log_prob(self, rows):
        return torch.zeros(len(rows))

    def target(self, rows):
        return self.log_ratio[rows]

    def draw(self, wanted=WANTED, **options):
        self.next = 0
        return rejection_sample(
            self.target, (self.sample, self.log_prob), wanted, seed=5, **options
        )


@pytest.fixture
def table():
    """Log ratios of which a twentieth is above 1, and of which no test needs more."""
    return Table(0.6 * torch.randn(TABLE, generator=torch.Generator().manual_seed(1)))


def accepted_at(log_ratio, log_M):
    u = rskernels.uniforms(len(log_ratio), seed=5, stream=SAMPLE_STREAM)
    return (log_ratio.double() - log_M >= u.log()).nonzero()[:, 0]


def test_the_first_accepted_by_the_uniforms_of_their_index(table):
    found = table.draw(log_M=4.0, on_violation="cap", max_proposals=TABLE, wanted=50)
    rows = accepted_at(table.log_ratio, 4.0)[:50]
    assert torch.equal(found.samples, rows)
    assert found.proposals == rows[-1] + 1
    assert found.acceptance_rate == 50 / found.proposals
    assert torch.equal(found.log_weights, torch.zeros(50))
    assert found.report.stopped == "complete"
    assert (found.report.violations, found.report.thinned) == (0, 0)


ENVELOPES = {
    "given": lambda reaction: {"log_M": 1.3, "on_violation": reaction},
    "fixed": lambda reaction: {"log_M": Envelope("fixed", M=math.e, on_violation=reaction)},
    "max": lambda reaction: {"log_M": Envelope("max", on_violation=reaction), "pilot": 3},
}


@pytest.mark.parametrize("reaction", ["thin", "cap", "control"])
@pytest.mark.parametrize("kind", ENVELOPES)
def test_batches_change_nothing(table, same_bits, kind, reaction):
    results = {}
    for batch_size in (None, 1, 7, 64, 1000, 3000):
        found = table.draw(**ENVELOPES[kind](reaction), batch_size=batch_size)
        report = found.report
        # drawn, seconds and sums of floats follow the batches.
        counts = (report.log_M, report.violations, report.invalid, report.thinned, report.pilot)
        results[batch_size] = (*found[:2], torch.tensor([found.proposals, *counts]).double())
    first = results.pop(None)
    assert first[2][2] > 0  # violations
    for batch_size, other in results.items():
        assert same_bits(first, other), batch_size


@pytest.mark.parametrize("kind", ENVELOPES)
def test_thinned_draws_are_those_of_the_final_M(table, kind):
    found = table.draw(**ENVELOPES[kind]("thin"))
    pilot = found.report.pilot
    used = table.log_ratio[pilot : pilot + found.proposals]
    assert found.report.log_M == table.log_ratio[: pilot + found.proposals].max()
    assert torch.equal(found.samples - pilot, accepted_at(used, found.report.log_M))
    assert len(found.samples) == WANTED
    assert found.report.thinned > 0
    assert found.report.tv_bound == 0.0


def test_cap_leaves_M_and_reports_the_bias(table):
    found = table.draw(log_M=1.0, on_violation="cap")
    used = table.log_ratio[: found.proposals]
    assert torch.equal(found.samples, accepted_at(used, 1.0))
    report = found.report
    assert report.log_M == 1.0
    assert report.violations == (used > 1.0).sum()
    w = used.double().exp()
    delta = (w - math.e).clamp(min=0).sum() / w.sum()
    assert report.tv_bound == pytest.approx(delta.item(), rel=1e-6)
    assert report.max_log_ratio == pytest.approx(used.max().item(), abs=1e-6)
    assert "log M 1, " in str(report)


def test_control_weights_rows_above_M(table):
    found = table.draw(log_M=1.0, on_violation="control")
    ratios = table.log_ratio[found.samples]
    assert torch.equal(found.log_weights, (ratios - 1.0).clamp(min=0.0))
    assert (found.log_weights > 0).any()
    assert found.report.tv_bound == 0.0


def test_control_weighs_every_proposal_alike_while_M_rises(table):
    found = table.draw(log_M=Envelope(on_violation="control"), pilot=1)
    used = table.log_ratio[1 : 1 + found.proposals].double()
    before = torch.cat([table.log_ratio[:1].double(), used[:-1]]).cummax(0).values
    rows = found.samples - 1
    want = torch.maximum(used, before)[rows] - table.log_ratio[: 1 + found.proposals].max()
    torch.testing.assert_close(found.log_weights, want.float())
    assert found.log_weights.min() < 0.0


def test_raise_names_the_proposal(table):
    first = int((table.log_ratio > 1.5).nonzero()[0])
    with pytest.raises(
        EnvelopeViolation, match=r"log M = 1.5, and on_violation is 'raise'"
    ) as error:
        table.draw(log_M=1.5, on_violation="raise", batch_size=50)
    rows = table.log_ratio[first // 50 * 50 :][:50]
    worst = int(rows.argmax())
    assert f"proposal {first // 50 * 50 + worst} " in str(error.value)
    # What comes after the last draw that is needed is not looked at.
    assert table.draw(log_M=1.5, on_violation="raise", wanted=1).proposals <= first


def test_an_envelope_learns_and_is_not_piloted_twice(table):
    envelope = Envelope("max", on_violation="thin")
    first = table.draw(log_M=envelope, pilot=100)
    assert first.report.pilot == 100
    assert envelope.seen == 100 + first.proposals
    second = table.draw(log_M=envelope)
    assert second.report.pilot == 0
    assert second.report.violations == envelope.violations - first.report.violations
    assert second.report.envelope is envelope


def test_an_envelope_made_here_serves_again(table):
    first = table.draw(pilot=50)
    second = table.draw(log_M=first.report.envelope)
    assert second.report.pilot == 0
    assert second.report.log_M >= first.report.log_M


def test_raise_with_an_M_for_each_row(table):
    with pytest.raises(EnvelopeViolation, match="and on_violation is 'raise'"):
        table.draw(log_M=Envelope("leave_one_out", on_violation="raise"), pilot=5, batch_size=150)


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "quantile", "level": 0.9},
        {"policy": "budget", "rate": 0.5},
        {"policy": "decayed", "half_life": 500},
        {"policy": "leave_one_out"},
    ],
    ids=lambda options: options["policy"],
)
@pytest.mark.parametrize("reaction", ["thin", "cap", "control"])
def test_every_policy_serves(table, options, reaction):
    found = table.draw(log_M=Envelope(**options, on_violation=reaction), pilot=200, batch_size=150)
    assert len(found.samples) == WANTED
    assert (found.samples.diff() > 0).all()
    assert math.isfinite(found.report.log_M)
    assert found.proposals + found.report.pilot < TABLE
    if options["policy"] == "budget" and reaction == "cap":
        assert found.acceptance_rate == pytest.approx(0.5, abs=0.1)
    if reaction == "control":
        assert len(found.log_weights.unique()) > 1
    if reaction == "thin":
        # Also where the policy's own M falls.
        used = table.log_ratio[200 : 200 + found.proposals]
        assert torch.equal(found.samples - 200, accepted_at(used, found.report.log_M))


def test_a_policy_whose_M_stays_thins_nothing(table, monkeypatch):
    table.log_ratio[:] = 0.0
    monkeypatch.setattr(sampling_run.Run, "_thin", lambda *given: pytest.fail("thinned"))
    table.draw(log_M=Envelope("leave_one_out", on_violation="thin"), pilot=5, batch_size=150)


@pytest.fixture
def sparse_table(table):
    """Ratios of 0 and 1, of which the median of the first 400 is 0."""
    table.log_ratio[:] = torch.where(table.log_ratio > -0.3, 0.0, -math.inf)
    table.log_ratio[:64] = 0.0
    table.log_ratio[64:300] = -math.inf
    return table


@pytest.mark.parametrize("reaction", ["thin", "cap", "control", "raise"])
def test_an_M_that_is_lost_is_learnt_anew(sparse_table, reaction):
    envelope = Envelope("quantile", level=0.5, on_violation=reaction)
    found = sparse_table.draw(log_M=envelope, pilot=64, batch_size=100)
    # With "thin" M never falls.
    assert (found.report.pilot == 64) == (reaction == "thin")
    assert torch.equal(sparse_table.log_ratio[found.samples], torch.zeros(WANTED))
    assert torch.equal(found.log_weights, torch.zeros(WANTED))


def test_control_without_an_M_at_the_end_weighs_by_the_first(sparse_table):
    envelope = Envelope("quantile", level=0.5, on_violation="control")
    found = sparse_table.draw(log_M=envelope, pilot=64, batch_size=300, wanted=3)
    assert found.report.log_M == -math.inf
    assert torch.equal(found.log_weights, torch.zeros(3))


def test_a_tail_without_end_is_said():
    with pytest.raises(NoFiniteM):
        rejection_sample(
            Normal(0.0, 3.0), Normal(0.0, 1.0), 100, log_M=Envelope("tail"), pilot=20000, seed=0
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_as_on_the_cpu(table):
    for options in ({"log_M": 1.3}, {"log_M": 1.3, "on_violation": "control"}, {"pilot": 3}):
        wanted = table.draw(**options)
        table.next = 0
        found = rejection_sample(
            lambda rows: table.log_ratio[rows.cpu()].cuda(),
            (lambda n: table.sample(n).cuda(), lambda rows: torch.zeros(len(rows)).cuda()),
            WANTED,
            seed=5,
            **options,
        )
        assert found.samples.is_cuda
        assert found.log_weights.is_cuda
        assert torch.equal(found.samples.cpu(), wanted.samples)
        assert torch.equal(found.log_weights.cpu(), wanted.log_weights)


# What is no ratio.


def test_nan_and_infinite_densities_are_rejected_and_counted(table):
    table.log_ratio[0:40:4] = math.nan
    table.log_ratio[1:40:4] = math.inf
    table.log_ratio[2:40:4] = -math.inf
    for options in ({"log_M": 1.3}, {"log_M": 1.3, "on_violation": "cap"}, {"pilot": 60}):
        found = table.draw(**options)
        assert found.report.invalid == 20
        assert torch.isfinite(table.log_ratio[found.samples]).all()
        assert math.isfinite(found.report.log_M)


@pytest.mark.parametrize("options", [{"log_M": 1.3}, {"pilot": 2}])
def test_what_is_no_ratio_hides_none_that_raises_M(table, options):
    table.log_ratio[::10] = math.nan
    table.log_ratio[9::10] = math.inf
    found = table.draw(**options, batch_size=10)
    used = table.log_ratio[found.report.pilot : found.report.pilot + found.proposals]
    used = used.where(used < math.inf, -math.inf)
    assert found.report.log_M == max(used.max(), table.log_ratio[1]) > 1.3
    rows = accepted_at(used, found.report.log_M) + found.report.pilot
    assert torch.equal(found.samples, rows)


def test_a_pilots_own_violations_are_none_of_the_proposals(table):
    table.log_ratio[5:] = -1.0
    found = table.draw(log_M=Envelope("leave_one_out"), pilot=5)
    assert found.report.envelope.violations == 1
    assert found.report.violations == 0


def test_a_ratio_of_0_over_0_is_invalid():
    found = rejection_sample(
        lambda x: torch.where(x > 0, 0.0, -math.inf),
        (lambda n: torch.linspace(-1, 1, n), lambda x: torch.where(x > -0.5, 0.0, -math.inf)),
        10,
        log_M=0.0,
        seed=1,
        batch_size=40,
    )
    assert (found.samples > 0).all()
    assert found.report.invalid == 10


# When it gives up.


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
    found = rejection_sample(target, proposal, 1000, min_acceptance=0.01, **options)
    assert found.acceptance_rate == pytest.approx(0.01, abs=0.002)


@pytest.mark.parametrize(
    ("limit", "stopped"),
    [
        ({"max_proposals": 1000}, "max_proposals"),
        ({"max_seconds": 1e-9}, "max_seconds"),
        ({"min_acceptance": 1.0}, "min_acceptance"),
    ],
)
def test_a_partial_result_is_returned_when_asked_for(table, limit, stopped):
    found = table.draw(10_000, log_M=2.0, return_partial=True, **limit)
    assert found.report.stopped == stopped
    assert len(found.samples) == len(found.log_weights) < 10_000
    if stopped == "max_proposals":
        assert found.proposals == found.report.drawn == 1000
        assert torch.equal(found.samples, accepted_at(table.log_ratio[:1000], found.report.log_M))
    if stopped == "max_seconds":
        assert found.samples.shape == (0,)
        assert math.isnan(found.acceptance_rate)
    with pytest.raises(RejectionError, match=f"{stopped}="):
        table.draw(10_000, log_M=2.0, **limit)


def test_a_partial_result_has_room_for_no_more(table):
    for wanted in (10**6, 2**62):
        found = table.draw(
            wanted, log_M=1.3, on_violation="control", return_partial=True, max_proposals=1000
        )
        for tensor in found[:2]:
            assert 0 < tensor.untyped_storage().nbytes() == tensor.numel() * tensor.itemsize


def test_pilot_draws_count_towards_the_limit(table):
    found = table.draw(10_000, pilot=64, max_proposals=100, return_partial=True)
    assert (found.report.pilot, found.proposals) == (64, 36)


@pytest.mark.parametrize("options", [{"log_M": 3.0, "batch_size": 100}, {"pilot": 100}])
def test_a_slow_run_says_so_once(table, monkeypatch, options):
    table.log_ratio[:200] = -math.inf
    monkeypatch.setattr(sampling_result, "PATIENCE", 0.0)
    with pytest.warns(
        UserWarning, match=r"of 500 draws after 0 s: acceptance rate .* log M"
    ) as seen:
        table.draw(**options)
    assert len(seen) == 1
    assert seen[0].filename == __file__


def test_the_bar_shows_on_stderr(table, capsys):
    table.draw(log_M=3.0, progress=True)
    shown = capsys.readouterr()
    assert "500/500 draws" in shown.err
    assert "acceptance" in shown.err
    assert shown.out == ""
