"""``rejection_sample``: its decisions to the bit, and what it reports of them."""

import math

import pytest
import torch
from torch.distributions import Normal

from rskernels import Envelope, rejection_sample
from rskernels.envelope import EnvelopeViolation, NoFiniteM
from rskernels.sampling.run import SamplingRun

from ..support.bits import same_bits

NEEDED = 500


def test_the_first_accepted_by_the_uniforms_of_their_index(table):
    result = table.draw(
        log_M=4.0, on_violation="cap", max_proposals=len(table.log_ratio), num_samples=50
    )
    rows = table.accepted_at(table.log_ratio, 4.0)[:50]
    assert torch.equal(result.samples, rows)
    assert result.proposals == rows[-1] + 1
    assert result.acceptance_rate == 50 / result.proposals
    assert torch.equal(result.log_weights, torch.zeros(50))
    assert result.report.stopped == "complete"
    assert (result.report.violations, result.report.thinned) == (0, 0)


ENVELOPES = {
    "given": lambda reaction: {"log_M": 1.3, "on_violation": reaction},
    "fixed": lambda reaction: {"log_M": Envelope("fixed", M=math.e, on_violation=reaction)},
    "max": lambda reaction: {"log_M": Envelope("max", on_violation=reaction), "pilot": 3},
}


@pytest.mark.parametrize("reaction", ["thin", "cap", "control"])
@pytest.mark.parametrize("kind", ENVELOPES)
def test_batches_change_nothing(table, kind, reaction):
    results = {}
    for batch_size in (None, 1, 7, 64, 1000, 3000):
        result = table.draw(**ENVELOPES[kind](reaction), batch_size=batch_size)
        report = result.report
        # drawn, seconds and sums of floats follow the batches.
        counts = (report.log_M, report.violations, report.invalid, report.thinned, report.pilot)
        results[batch_size] = (*result[:2], torch.tensor([result.proposals, *counts]).double())
    first = results.pop(None)
    assert first[2][2] > 0  # violations
    for batch_size, other in results.items():
        assert same_bits(first, other), batch_size


@pytest.mark.parametrize("kind", ENVELOPES)
def test_thinned_draws_are_those_of_the_final_M(table, kind):
    result = table.draw(**ENVELOPES[kind]("thin"))
    pilot = result.report.pilot
    used = table.log_ratio[pilot : pilot + result.proposals]
    assert result.report.log_M == table.log_ratio[: pilot + result.proposals].max()
    assert torch.equal(result.samples - pilot, table.accepted_at(used, result.report.log_M))
    assert len(result.samples) == NEEDED
    assert result.report.thinned > 0
    assert result.report.delta == 0.0


def test_cap_leaves_M_and_reports_the_bias(table):
    result = table.draw(log_M=1.0, on_violation="cap")
    used = table.log_ratio[: result.proposals]
    assert torch.equal(result.samples, table.accepted_at(used, 1.0))
    report = result.report
    assert report.log_M == 1.0
    assert report.violations == (used > 1.0).sum()
    w = used.double().exp()
    delta = (w - math.e).clamp(min=0).sum() / w.sum()
    assert report.delta == pytest.approx(delta.item(), rel=1e-6)
    assert report.max_log_ratio == pytest.approx(used.max().item(), abs=1e-6)
    assert "log M 1, " in str(report)


def test_control_weights_rows_above_M(table):
    result = table.draw(log_M=1.0, on_violation="control")
    ratios = table.log_ratio[result.samples]
    assert torch.equal(result.log_weights, (ratios - 1.0).clamp(min=0.0))
    assert (result.log_weights > 0).any()
    assert result.report.delta == 0.0


def test_control_weighs_every_proposal_alike_while_M_rises(table):
    result = table.draw(log_M=Envelope(on_violation="control"), pilot=1)
    used = table.log_ratio[1 : 1 + result.proposals].double()
    before = torch.cat([table.log_ratio[:1].double(), used[:-1]]).cummax(0).values
    rows = result.samples - 1
    want = torch.maximum(used, before)[rows] - table.log_ratio[: 1 + result.proposals].max()
    torch.testing.assert_close(result.log_weights, want.float())
    assert result.log_weights.min() < 0.0


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
    assert table.draw(log_M=1.5, on_violation="raise", num_samples=1).proposals <= first


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
    result = table.draw(log_M=Envelope(**options, on_violation=reaction), pilot=200, batch_size=150)
    assert len(result.samples) == NEEDED
    assert (result.samples.diff() > 0).all()
    assert math.isfinite(result.report.log_M)
    assert result.proposals + result.report.pilot < len(table.log_ratio)
    if options["policy"] == "budget" and reaction == "cap":
        assert result.acceptance_rate == pytest.approx(0.5, abs=0.1)
    if reaction == "control":
        assert len(result.log_weights.unique()) > 1
    if reaction == "thin":
        # Also where the policy's own M falls.
        used = table.log_ratio[200 : 200 + result.proposals]
        assert torch.equal(result.samples - 200, table.accepted_at(used, result.report.log_M))


def test_a_policy_whose_M_stays_thins_nothing(table, monkeypatch):
    table.log_ratio[:] = 0.0
    monkeypatch.setattr(SamplingRun, "_thin", lambda *arguments: pytest.fail("thinned"))
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
    result = sparse_table.draw(log_M=envelope, pilot=64, batch_size=100)
    # With "thin" M never falls.
    assert (result.report.pilot == 64) == (reaction == "thin")
    assert torch.equal(sparse_table.log_ratio[result.samples], torch.zeros(NEEDED))
    assert torch.equal(result.log_weights, torch.zeros(NEEDED))


def test_control_without_an_M_at_the_end_weighs_by_the_first(sparse_table):
    envelope = Envelope("quantile", level=0.5, on_violation="control")
    result = sparse_table.draw(log_M=envelope, pilot=64, batch_size=300, num_samples=3)
    assert result.report.log_M == -math.inf
    assert torch.equal(result.log_weights, torch.zeros(3))


def test_a_tail_without_end_is_said():
    with pytest.raises(NoFiniteM):
        rejection_sample(
            Normal(0.0, 3.0), Normal(0.0, 1.0), 100, log_M=Envelope("tail"), pilot=20000, seed=0
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_as_on_the_cpu(table):
    for options in ({"log_M": 1.3}, {"log_M": 1.3, "on_violation": "control"}, {"pilot": 3}):
        expected = table.draw(**options)
        table.next = 0
        result = rejection_sample(
            lambda rows: table.log_ratio[rows.cpu()].cuda(),
            (lambda n: table.sample(n).cuda(), lambda rows: torch.zeros(len(rows)).cuda()),
            NEEDED,
            seed=5,
            **options,
        )
        assert result.samples.is_cuda
        assert result.log_weights.is_cuda
        assert torch.equal(result.samples.cpu(), expected.samples)
        assert torch.equal(result.log_weights.cpu(), expected.log_weights)


# What is no ratio.


def test_nan_and_infinite_densities_are_rejected_and_counted(table):
    table.log_ratio[0:40:4] = math.nan
    table.log_ratio[1:40:4] = math.inf
    table.log_ratio[2:40:4] = -math.inf
    for options in ({"log_M": 1.3}, {"log_M": 1.3, "on_violation": "cap"}, {"pilot": 60}):
        result = table.draw(**options)
        assert result.report.invalid == 20
        assert torch.isfinite(table.log_ratio[result.samples]).all()
        assert math.isfinite(result.report.log_M)


@pytest.mark.parametrize("options", [{"log_M": 1.3}, {"pilot": 2}])
def test_what_is_no_ratio_hides_none_that_raises_M(table, options):
    table.log_ratio[::10] = math.nan
    table.log_ratio[9::10] = math.inf
    result = table.draw(**options, batch_size=10)
    used = table.log_ratio[result.report.pilot : result.report.pilot + result.proposals]
    used = used.where(used < math.inf, -math.inf)
    assert result.report.log_M == max(used.max(), table.log_ratio[1]) > 1.3
    rows = table.accepted_at(used, result.report.log_M) + result.report.pilot
    assert torch.equal(result.samples, rows)


def test_a_pilots_own_violations_are_none_of_the_proposals(table):
    table.log_ratio[5:] = -1.0
    result = table.draw(log_M=Envelope("leave_one_out"), pilot=5)
    assert result.report.envelope.violations == 1
    assert result.report.violations == 0


def test_a_ratio_of_0_over_0_is_invalid():
    result = rejection_sample(
        lambda x: torch.where(x > 0, 0.0, -math.inf),
        (lambda n: torch.linspace(-1, 1, n), lambda x: torch.where(x > -0.5, 0.0, -math.inf)),
        10,
        log_M=0.0,
        seed=1,
        batch_size=40,
    )
    assert (result.samples > 0).all()
    assert result.report.invalid == 10
