"""Batches that an envelope decides by what it knew before, and learns from afterwards."""

import math
import threading

import pytest
import torch

import rskernels
from rskernels import Envelope, LinearLogits
from rskernels.envelope import EnvelopeViolation, NoFiniteM
from rskernels.envelope import envelope as module

from ..support.bits import same_bits

LEARNING = [
    {"policy": "max"},
    {"policy": "decayed", "half_life": 50.0},
    {"policy": "quantile", "level": 0.9},
    {"policy": "budget", "rate": 0.5},
]


def rows(number=0, N=200, V=7):
    generator = torch.Generator().manual_seed(number)
    logits = torch.randn(N, V, generator=generator)
    targets = torch.randint(V, (N,), generator=generator)
    targets[::9] = -100
    return logits, targets


def by_hand(envelope, groups=None):
    """Return the M that an envelope decides by: infinite where it has none."""
    log_M = envelope.log_M(groups)
    return torch.where(log_M > -math.inf, log_M, math.inf)


@pytest.mark.parametrize("name", ["accept", "verify"])
@pytest.mark.parametrize("options", [*LEARNING, {"policy": "fixed", "M": 1.5}])
def test_rows_are_decided_by_earlier_batches(options, name):
    envelope, other = Envelope(**options), Envelope(**options)
    for number in range(3):
        logits, targets = rows(number)
        M = by_hand(other)
        seen = getattr(envelope, name)(logits, 0.2, targets=targets, seed=number)
        want = getattr(rskernels, name)(
            logits, math.log(0.2), M, targets=targets, seed=number, log_space=True
        )
        assert same_bits(tuple(seen), tuple(want))
        kept = targets != -100
        other.update(want.log_ratio[kept], accepted=want.mask[kept])
        assert str(envelope.report().to_dict()) == str(other.report().to_dict())
        assert seen.mask.any() == (number > 0 or options["policy"] == "fixed")
    assert envelope.counts.invalid == 0


@pytest.mark.parametrize("groups", [3, 1])
def test_a_group_whose_ratios_allow_no_finite_m_is_rejected_alone(groups):
    heavy = torch.empty(512).cauchy_(generator=torch.Generator().manual_seed(0))
    envelope = Envelope("tail", groups=groups)
    ids = torch.zeros(512, dtype=torch.int64)
    envelope.update(heavy, ids)
    with pytest.raises(NoFiniteM, match="group 0: the largest" if groups > 1 else "the largest"):
        envelope.log_M(ids)
    assert envelope.known_log_M(ids).isnan().all()
    assert envelope.bernoulli(heavy, groups=ids, seed=0).counts.tolist() == [0, 0, 0, 0]
    assert envelope.seen.sum() == 2 * 512
    if groups == 1:
        return
    light = torch.full((512,), 0.25)
    envelope.update(light, ids + 1)
    assert envelope.log_M().isnan().tolist() == [True, False, True]
    assert envelope.log_M(ids).isnan().all()
    both, of = torch.cat([heavy, light]), torch.cat([ids, ids + 1])
    for seen in (
        envelope.bernoulli(both, groups=of, seed=0),
        envelope.accept_sequences(both[:, None], groups=of, seed=0),
    ):
        assert torch.equal(seen.mask, of == 1)
        assert seen.counts.tolist() == [512, 0, 0, 0]
    assert envelope.seen.tolist() == [4 * 512, 3 * 512, 0]


def test_rows_that_are_ignored_need_no_group():
    envelope = Envelope("fixed", M=1.0, groups=2)
    mask = torch.tensor([[True, False], [True, True]])
    groups = torch.tensor([[1, -1], [0, 0]])
    assert envelope.bernoulli(torch.zeros(2, 2), mask=mask, groups=groups, seed=0).mask.sum() == 3
    targets = torch.tensor([1, -100])
    envelope.accept(torch.zeros(2, 4), 0.25, targets=targets, groups=torch.tensor([1, 7]), seed=0)
    of_none = {"mask": torch.tensor([[True], [False]]), "groups": torch.tensor([1, -1])}
    envelope.accept_sequences(torch.zeros(2, 1), **of_none, seed=0)
    assert envelope.seen.tolist() == [2, 3]
    with pytest.raises(IndexError):
        envelope.bernoulli(torch.zeros(2), groups=torch.tensor([0, 2]), seed=0)
    with pytest.raises(
        ValueError, match=r"groups must have the decisions' shape \[2, 2\], got \[2\]"
    ):
        envelope.bernoulli(torch.zeros(2, 2), groups=torch.tensor([0, 1]), seed=0)
    with pytest.raises(ValueError, match=r"groups must have the decisions' shape \[2\], got \[3\]"):
        envelope.accept_sequences(torch.zeros(2, 2), groups=torch.zeros(3).long(), seed=0)
    assert envelope.seen.tolist() == [2, 3]


@pytest.mark.parametrize("options", LEARNING)
def test_a_group_without_M_is_a_pilot(options):
    envelope = Envelope(groups=2, **options)
    ratios = torch.linspace(-1, 1, 100)
    first = envelope.bernoulli(ratios, groups=torch.zeros(100).long(), seed=0)
    assert first.counts.tolist() == [0, 0, 0, 0]
    groups = torch.arange(100) % 2
    second = envelope.bernoulli(ratios, groups=groups, seed=1)
    assert second.mask[::2].any()
    assert not second.mask[1::2].any()
    assert envelope.bernoulli(ratios, groups=groups, seed=2).mask[1::2].any()


def test_ratios_of_0_make_no_M():
    envelope = Envelope()
    nothing = torch.full((10,), -math.inf)
    assert not envelope.bernoulli(nothing, seed=0).mask.any()
    # An M of 0 would make all of these invalid.
    seen = envelope.bernoulli(torch.zeros(10), seed=0)
    assert seen.counts.tolist() == [0, 0, 0, 0]
    assert envelope.M() > 0


def test_a_pilot_given_before_lets_the_first_batch_in():
    logits, targets = rows()
    envelope = Envelope()
    envelope.update(torch.tensor([0.0, 1.0]))
    assert envelope.accept(logits, 0.2, targets=targets, seed=0).mask.any()


def test_leave_one_out_takes_the_other_rows():
    logits, targets = rows()
    envelope = Envelope("leave_one_out")
    seen = envelope.accept(logits, 0.2, targets=targets, seed=4)
    plain = rskernels.accept(logits, 0.2, None, targets=targets, seed=4)
    log_M = Envelope("leave_one_out").log_M(log_ratio=plain.log_ratio)
    want = rskernels.bernoulli_mask(plain.log_ratio, log_M, log_space=True, seed=4)
    assert torch.equal(seen.mask, want)
    assert same_bits(seen.log_prob, plain.log_prob)
    assert seen.counts[3] == (targets == -100).sum()
    ratios = torch.tensor([[0.5, 0.2, 0.1], [0.1, 0.0, 9.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    of_tokens = Envelope("leave_one_out").bernoulli(ratios, mask=mask, seed=0)
    assert of_tokens.counts[1] == 1  # the largest, of which the next is M
    sequences = Envelope("leave_one_out").accept_sequences(ratios, mask=mask, seed=0)
    assert sequences.counts[1] == 1


def test_rows_and_sequences_of_any_ids():
    ratios, ids = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), torch.arange(60)
    envelope, other = Envelope("fixed", M=2.0), Envelope("fixed", M=2.0)
    seen = envelope.bernoulli(ratios[:, 0], ids=ids.neg(), seed=1)
    back = other.bernoulli(ratios[:, 0].flip(0), ids=ids.neg().flip(0), seed=1)
    assert torch.equal(back.mask.flip(0), seen.mask)
    seen = envelope.accept_sequences(ratios, ids=ids.neg(), seed=1)
    back = other.accept_sequences(ratios.flip(0), ids=ids.neg().flip(0), seed=1)
    assert torch.equal(back.mask.flip(0), seen.mask)
    assert envelope.report().overall["observed_acceptance"] < 1


def test_ignored_rows_and_padding_are_in_no_count():
    logits, targets = rows()
    envelope = Envelope("budget", rate=0.5)
    envelope.accept(logits, 0.2, targets=targets, seed=0)
    assert envelope.counts.seen == (targets != -100).sum()
    assert envelope.counts.invalid == 0
    envelope = Envelope()
    ratios, mask = torch.zeros(4, 5), torch.ones(4, 5).bool()
    ratios[0, 1], mask[1] = math.nan, False
    envelope.bernoulli(ratios, mask=mask, seed=0)
    assert (envelope.counts.seen, envelope.counts.invalid) == (15, 1)


def test_densities_as_tensors_and_logarithms():
    logits, targets = rows()
    density = torch.rand(200, generator=torch.Generator().manual_seed(1))
    density[3], density[4], density[5] = 0.0, -1.0, math.nan
    one, other = Envelope("fixed", M=2.0), Envelope("fixed", M=2.0)
    seen = one.accept(logits, density, targets=targets, seed=0)
    logs = other.accept(logits, density.double().log(), targets=targets, seed=0, log_space=True)
    assert same_bits(tuple(seen), tuple(logs))
    assert seen.counts[2] == 2
    dense = Envelope("fixed", M=2.0).accept(logits, 0.1, seed=0)
    assert dense.mask.shape == logits.shape
    with pytest.raises(ValueError, match="q_hat must be a finite number"):
        one.verify(logits, -1.0, targets=targets)
    with pytest.raises(TypeError, match="p_hat must be a number"):
        one.accept(logits, "1", targets=targets)


def test_linear_logits_and_gradients():
    hidden = torch.randn(20, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight = torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(20)
    envelope = Envelope("fixed", M=1.5)
    seen = envelope.accept(LinearLogits(hidden, weight), 0.05, targets=targets, seed=0)
    seen.log_prob[seen.mask].sum().backward()
    assert hidden.grad.abs().sum() > 0
    assert envelope.counts.seen == 20


def test_sequences_by_prompt():
    generator = torch.Generator().manual_seed(0)
    envelope, other = Envelope(groups=3), Envelope(groups=3)
    for number in range(3):
        log_ratio = torch.randn(30, 8, generator=generator) / 4
        mask = torch.rand(30, 8, generator=generator) < 0.8
        mask[4] = False
        prompts = torch.arange(30) % 3
        M = by_hand(other, prompts)
        seen = envelope.accept_sequences(log_ratio, mask=mask, groups=prompts, seed=number)
        want = rskernels.accept_sequences(log_ratio, M, mask=mask, seed=number, log_space=True)
        assert same_bits(tuple(seen), tuple(want))
        other.update(want, prompts)
        assert str(envelope.report().to_dict()) == str(other.report().to_dict())
    assert envelope.counts.seen.tolist() == [30, 27, 30]
    assert envelope.counts.invalid.sum() == 0
    listed = envelope.accept_sequences(list(log_ratio), groups=prompts, seed=0)
    assert len(listed.token_mask) == 30


def test_what_a_sequence_acceptance_says_itself():
    seen = rskernels.accept_sequences(torch.zeros(2, 3), seed=0)
    with pytest.raises(ValueError, match="says itself"):
        Envelope().update(seen, accepted=seen.mask)


def test_violations_that_raise_and_weights():
    envelope = Envelope(on_violation="raise")
    envelope.update(torch.zeros(3))
    with pytest.raises(EnvelopeViolation):
        envelope.bernoulli(torch.ones(3), seed=0)
    assert envelope.counts.seen == 6
    weighted = Envelope("fixed", M=1.0, on_violation="control")
    for call in (
        lambda: weighted.accept(rows()[0], 0.2),
        lambda: weighted.verify(rows()[0], 0.2),
        lambda: weighted.bernoulli(torch.ones(3)),
        lambda: weighted.accept_sequences(torch.ones(3, 2)),
    ):
        with pytest.raises(ValueError, match="gives weights"):
            call()


def test_groups_are_needed():
    with pytest.raises(ValueError, match="2 groups needs the group of every row"):
        Envelope(groups=2).bernoulli(torch.ones(3))


def test_several_threads():
    envelope, errors = Envelope("budget", rate=0.5, groups=2), []
    groups = torch.arange(200) % 2

    def decide(number):
        try:
            for at in range(20):
                ratios = torch.randn(200, generator=torch.Generator().manual_seed(at + number))
                envelope.bernoulli(ratios, groups=groups, seed=at)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=decide, args=(20 * number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == []
    assert envelope.counts.seen.tolist() == [6000, 6000]


class TestOnADevice:
    """The path of rows on a GPU, here of CPU tensors."""

    @pytest.fixture(autouse=True)
    def _device_path(self, monkeypatch):
        monkeypatch.setattr(module, "stays_on_device", lambda rows: isinstance(rows, torch.Tensor))

    @pytest.mark.parametrize("groups", [1, 3])
    @pytest.mark.parametrize("options", LEARNING)
    def test_ignored_rows_are_in_no_count(self, options, groups):
        ratios = torch.randn(90, generator=torch.Generator().manual_seed(0))
        ignored = torch.arange(90) % 4 == 0
        ratios[ignored] = math.nan
        ids = torch.arange(90) % groups
        envelope, other = Envelope(groups=groups, **options), Envelope(groups=groups, **options)
        envelope.update(ratios, ids, accepted=ratios > 0, ignored=ignored)
        kept = ~ignored
        other.update(ratios[kept], ids[kept], accepted=ratios[kept] > 0)
        assert torch.equal(envelope.log_M(), other.log_M())
        one, two = envelope.report().to_dict(), other.report().to_dict()
        assert str(one) == str(two)

    def test_nothing_waits(self):
        """Meta tensors have no values that could be waited for."""
        envelope = Envelope(groups=3)
        ratios = torch.empty(8, device="meta")
        ids = torch.empty(8, dtype=torch.int64, device="meta")
        envelope.update(ratios, ids, ignored=torch.empty(8, dtype=torch.bool, device="meta"))


def test_leave_one_out_of_entries_draws_by_row_and_column():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 5, generator=generator)
    plain = rskernels.accept(logits, 0.2, math.inf, seed=0)
    log_M = Envelope("leave_one_out").log_M(log_ratio=plain.log_ratio)
    seen = Envelope("leave_one_out").accept(logits, 0.2, seed=0)
    want = rskernels.accept(logits, math.log(0.2), log_M, seed=0, log_space=True)
    assert same_bits(tuple(seen), tuple(want))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.accept([1.0], 0.5), "logits must be a Tensor or LinearLogits, got list"),
        (lambda e: e.accept(torch.zeros(3), torch.tensor([1, 2, 3])), "p_hat must be float32"),
        (lambda e: e.bernoulli(3.0), "log_ratio must be"),
        (lambda e: e.accept_sequences(3), "log_ratio must be"),
    ],
)
def test_what_is_no_tensor_is_said(call, message):
    with pytest.raises(TypeError, match=message):
        call(Envelope("max"))
