"""Decisions about rollouts: their law, and that nothing but the sequence and its id counts."""

import io
import math

import pytest
import torch

from rskernels import accept_prefix, accept_sequences
from rskernels.envelope import NoFiniteM
from rskernels.integrations import prime_rl, slime
from rskernels.integrations.decider import METRICS, SHARES, Decider, shares
from rskernels.integrations.deciders import Deciders
from rskernels.integrations.rules import Rule

from .frameworks import Law, LossInputs, LossOutputs, put_modules
from .test_slime import arguments, call
from .waits import NoWait

RULES = ("seq_sum_bernoulli:1.5", "token_bernoulli:1.5", "prefix_bernoulli")


def batch(size=60, length=6):
    generator = torch.Generator().manual_seed(3)
    log_ratio = torch.randn(size, length, generator=generator) / 2
    lengths = torch.randint(0, length + 1, (size,), generator=generator)
    mask = torch.arange(length) < lengths[:, None]
    return torch.where(mask, log_ratio, math.nan), mask


def test_accepted_sequences_have_the_law_of_the_target():
    law = Law(8_000)
    kept = Decider(f"seq_sum_bernoulli:{law.M}").decide(law.log_p - law.log_q, torch.ones(8_000, 2))
    assert law.chi_squared(kept.mask) > 5e-8
    assert law.chi_squared(torch.ones(8_000, dtype=torch.bool)) < 5e-8  # q is another law
    assert abs(kept.metrics.to_dict()["acceptance"] - 1 / law.M) < 5 * 0.5 / math.sqrt(8_000)


@pytest.mark.parametrize("rule", ["token_bernoulli:2", "prefix_bernoulli"])
def test_tokens_are_accepted_as_often_as_their_ratio_says(rule):
    log_ratio = torch.tensor([0.0, -1.0, 0.4, -0.3]).expand(8_000, 4)
    chance = (log_ratio[0].double().exp() / (2 if rule.startswith("token") else 1)).clamp(max=1)
    chance = chance if rule.startswith("token") else chance.cumprod(0)
    kept = Decider(rule).decide(log_ratio, torch.ones(8_000, 4)).token_mask.double().mean(0)
    assert ((kept - chance).abs() <= 5 * (chance * (1 - chance) / 8_000).sqrt()).all()


@pytest.mark.parametrize("rule", RULES)
def test_micro_batches_padding_and_lists_change_nothing(rule):
    log_ratio, mask = batch()
    whole = Decider(rule, seed=4).decide(log_ratio, mask)
    assert whole.token_mask.any()
    parts = Decider(rule, seed=4)
    padded = torch.nn.functional.pad(mask, (2, 3))
    wide = torch.nn.functional.pad(log_ratio, (2, 3), value=9.0)
    lists = Decider(rule, seed=4).decide(
        [row[flags] for row, flags in zip(log_ratio, mask, strict=True)],
        [flags[flags] for flags in mask],
    )
    kept = [parts.decide(wide[i : i + 25], padded[i : i + 25]).token_mask for i in range(0, 60, 25)]
    assert torch.equal(torch.cat(kept)[:, 2:8], whole.token_mask)
    assert not torch.cat(kept)[:, 8:].any()
    for row, flags, expected in zip(lists.token_mask, mask, whole.token_mask, strict=True):
        assert torch.equal(row, expected[flags])
    torch.testing.assert_close(lists.metrics.values, whole.metrics.values)


@pytest.mark.parametrize("rule", RULES)
def test_ids_that_are_given_decide_and_their_order_does_not(rule):
    log_ratio, mask = batch()
    ids = list(range(70, 130))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    whole = Decider(rule).decide(log_ratio, mask, ids=ids)
    dealt = Decider(rule, rank=3).decide(
        log_ratio[order], mask[order], ids=[ids[at] for at in order]
    )
    assert torch.equal(dealt.token_mask, whole.token_mask[order])
    assert not torch.equal(Decider(rule).decide(log_ratio, mask).token_mask, whole.token_mask)


def test_ids_that_are_given_twice_are_refused():
    with pytest.raises(ValueError, match="ids must differ, or draws are shared; got 4 twice"):
        Decider("seq_sum_bernoulli:2").decide(torch.zeros(3, 1), torch.ones(3, 1), ids=[4, 1, 4])


def test_ranks_seeds_rules_and_places_share_no_draw():
    log_ratio, mask = torch.full((200, 1), -0.7), torch.ones(200, 1)
    deciders = [Decider("seq_sum_bernoulli:1", rank=rank) for rank in (0, 1)]
    deciders.append(Decider("seq_sum_bernoulli:1", seed=1))
    deciders.append(Decider("seq_sum_bernoulli:1", place="loss"))
    deciders += [Decider(rule) for rule in ("seq_mean_bernoulli:1", "seq_sum_bernoulli:1.01")]
    masks = [decider.decide(log_ratio, mask).mask.double() for decider in deciders]
    masks.append(deciders[0].decide(log_ratio, mask).mask.double())
    correlation = torch.corrcoef(torch.stack(masks)) - torch.eye(len(masks))
    assert correlation.abs().max() < 5 / math.sqrt(200)


def test_decisions_are_those_of_the_library():
    log_ratio, mask = batch()
    first = 2 << 28
    decider = Decider("seq_sum_bernoulli:1.5", seed=9, rank=2)
    seen = accept_sequences(log_ratio, 1.5, mask=mask, seed=decider.draw_seed, row_offset=first)
    got = decider.decide(log_ratio, mask)
    assert torch.equal(got.token_mask, seen.token_mask)
    decider = Decider("prefix_bernoulli", seed=9, rank=2)
    lengths = accept_prefix(log_ratio, mask=mask, seed=decider.draw_seed, row_offset=first)
    got = decider.decide(log_ratio, mask)
    assert torch.equal(got.token_mask.sum(-1), lengths)


def test_nan_padding_and_empty_sequences_are_in_no_share():
    log_ratio = torch.tensor([[0.1, math.nan], [0.3, math.nan], [math.inf, 0.0]])
    mask = torch.tensor([[1, 0], [1, 1], [0, 0]])
    seen = Decider("seq_sum_bernoulli:1").decide(log_ratio, mask)
    assert seen.token_mask.tolist() == [[True, False], [False, False], [False, False]]
    assert seen.counts.tolist() == [1, 1, 1, 1]
    metrics = seen.metrics.to_dict()
    assert metrics["acceptance"] == 1.0
    assert metrics["tokens_kept"] == pytest.approx(1 / 3)
    assert metrics["tv_bound"] == pytest.approx(1 - math.exp(-0.1), rel=1e-6)
    averaged = dict(zip(SHARES, shares(seen).tolist(), strict=True))
    assert averaged["accepted"] == averaged["valid"] == pytest.approx(1 / 3)
    assert averaged["violations"] == averaged["invalid"] == pytest.approx(1 / 3)
    assert averaged["tokens_kept"] / averaged["tokens"] == pytest.approx(1 / 3)
    assert seen.metrics.names == METRICS


def test_the_first_half_of_the_first_batch_is_only_learnt_from():
    log_ratio, mask = torch.linspace(-2, 2, 20).repeat(2)[:, None], torch.ones(40, 1)
    decider = Decider("seq_sum_bernoulli:max")
    first = decider.decide(log_ratio, mask)
    assert not first.mask[:20].any()
    assert first.mask[20:].any()
    assert first.metrics.to_dict()["pilot"] == 0.5
    assert first.log_M == 2.0
    assert decider.decide(log_ratio, mask).metrics.to_dict()["pilot"] == 0.0


def test_a_learnt_m_meets_its_budget():
    generator = torch.Generator().manual_seed(0)
    decider = Decider("token_bernoulli:budget=0.4")
    for _ in range(3):
        ratios = torch.randn(400, 10, generator=generator)
        seen = decider.decide(ratios, torch.ones(400, 10))
    assert abs(seen.metrics.to_dict()["acceptance"] - 0.4) < 0.03


@pytest.mark.parametrize("rule", ["seq_sum_bernoulli:budget=0.5", *RULES])
def test_a_run_goes_on_from_its_state(rule):
    log_ratio, mask = batch()
    one, other = Decider(rule), Decider(rule)
    one.decide(log_ratio, mask)
    other.load_state_dict(one.state_dict())
    again = one.decide(log_ratio, mask), other.decide(log_ratio, mask)
    assert torch.equal(again[0].token_mask, again[1].token_mask)


@pytest.mark.parametrize("rule", RULES)
def test_no_sequence_is_a_batch_too(rule):
    decider = Decider(rule)
    assert decider.decide([], []).token_mask == []
    assert decider.decide(torch.empty(0, 4), torch.empty(0, 4)).token_mask.shape == (0, 4)
    assert decider.count == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: Decider("token_bernoulli:1", rank=-1), r"rank must be in \[0, 32768\), got"),
        (
            lambda one: one.decide(torch.zeros(2, 1), torch.ones(2, 2)),
            "both be .B, T., got .2, 1. an",
        ),
        (lambda one: one.decide([torch.zeros(2)], [torch.ones(3)]), "have .2. tokens, their mas"),
        (lambda one: one.decide(torch.zeros(2, 1), torch.ones(2, 1), ids=[1]), "one a sequence, 2"),
        (lambda one: one.decide(torch.zeros(1, 1), torch.ones(1, 1), ids=[-1]), r"in \[0, 2\*\*43"),
        (lambda one: one.decide(torch.zeros(1, 2**20 + 1), torch.ones(1, 2**20 + 1)), "2\\*\\*20"),
    ],
)
def test_what_cannot_be_decided_is_refused_for_its_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(Decider("token_bernoulli:1"))


def test_a_mask_in_another_layout_is_refused():
    with pytest.raises(
        TypeError, match="mask must be in the layout of log_ratio, Tensor, got list"
    ):
        Decider("token_bernoulli:1").decide(torch.zeros(1, 1), [torch.ones(1)])


@pytest.mark.parametrize("rule", RULES)
def test_an_m_that_is_given_waits_for_no_device(rule):
    log_ratio, mask = batch()
    decider = Decider(rule)
    with NoWait():
        padded = decider.decide(log_ratio, mask)
        shares(padded)
        listed = decider.decide(list(log_ratio), list(mask))
    assert padded.counts[3] == listed.counts[3] > 0


def test_shares_of_batches_add_up_and_are_finite():
    """A pilot without an M, an empty answer, a NaN and a ratio beyond float64 spoil no mean."""
    log_ratio = torch.tensor([[0.1], [0.3], [math.nan], [-0.2], [-9.0], [900.0]])
    mask = torch.tensor([[1], [0], [1], [1], [1], [1]])
    decider = Decider("seq_sum_bernoulli:max")
    parts = [decider.decide(log_ratio[i : i + 1], mask[i : i + 1]) for i in range(6)]
    rows = torch.stack([shares(part) for part in parts])
    assert rows.isfinite().all()
    mean = dict(zip(SHARES, rows.mean(0).tolist(), strict=True))
    counts = torch.stack([part.counts for part in parts]).sum(0)
    assert mean["accepted"] / mean["valid"] == pytest.approx(counts[0].item() / 4)
    assert mean["invalid"] * 6 == pytest.approx(1)
    assert mean["log_M"] / mean["has_M"] == pytest.approx(0.1)
    assert mean["has_M"] == pytest.approx(5 / 6)
    assert mean["pilot"] == pytest.approx(1 / 6)
    assert all(value == 0 for value in shares(Decider("token_bernoulli:2").decide([], []))[:5])


@pytest.mark.parametrize("unit", ["seq_sum", "token"])
def test_tails_without_a_finite_m_accept_nothing_and_say_so(unit):
    decider = Decider(f"{unit}_bernoulli:tail")
    heavy = torch.empty(512, 1).cauchy_(generator=torch.Generator().manual_seed(0))
    decider.decide(heavy, torch.ones(512, 1))
    with pytest.raises(NoFiniteM):
        decider.envelope.log_M()
    seen = decider.decide(heavy, torch.ones(512, 1))
    assert not seen.mask.any()
    assert seen.log_M == math.inf
    assert shares(seen)[SHARES.index("has_M")] == 0
    assert decider.envelope.seen == 1024  # it goes on learning


def rollouts(number, B=12, T=3):
    generator = torch.Generator().manual_seed(number)
    p = list(torch.randn(B, T, generator=generator) * 0.3)
    return p, [torch.zeros(T)] * B, [torch.ones(T)] * B


def by_slime(number):
    _, masks, metrics = call(arguments("seq_sum_bernoulli:budget=0.5"), *rollouts(number))
    return torch.cat([torch.stack(masks).flatten(), *metrics.values()])


def by_prime_rl(number):
    p, q, masks = rollouts(number)
    seen = []
    for log_p, log_q, mask in zip(p, q, masks, strict=True):
        given = LossInputs(log_p, log_q, None, torch.ones(3), mask.bool(), None)
        result = prime_rl.loss(given, rule="token_bernoulli:quantile=0.9")
        seen += [result.loss, *result.metrics.values()]
    return torch.stack(seen)


def restored(state):
    """Return a state as a checkpoint gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(("hook", "step"), [(slime, by_slime), (prime_rl, by_prime_rl)])
def test_a_resumed_run_goes_on(monkeypatch, hook, step):
    put_modules(monkeypatch, prime_rl__trainer__rl__loss={"LossOutputs": LossOutputs})
    hook.deciders.clear()
    step(0)
    step(1)
    state = restored(hook.deciders.state_dict())
    whole = step(2)
    hook.deciders.clear()
    assert not torch.equal(step(2), whole)  # a pilot, and other draws
    hook.deciders.load_state_dict(state)
    assert torch.equal(step(2), whole)
    hook.deciders.clear()


def test_one_is_made_for_what_it_decides():
    deciders = Deciders()
    first = deciders.of("seq_sum_bernoulli:2", rank=1)
    assert deciders.of(Rule.parse("seq_sum_bernoulli:2.0"), rank=1) is first
    others = [
        deciders.of("seq_sum_bernoulli:2", rank=1, seed=1),
        deciders.of("seq_sum_bernoulli:2", rank=1, place="advantages"),
        deciders.of("seq_sum_bernoulli:3", rank=1),
        deciders.of("seq_sum_bernoulli:2", rank=2),
    ]
    assert len({first.draw_seed, *(other.draw_seed for other in others[:3])}) == 4
    assert [other.rank for other in others] == [1, 1, 1, 2]
    assert len(deciders) == 5


def test_a_state_of_another_rank_is_refused_and_a_damaged_one_changes_nothing():
    deciders = Deciders()
    deciders.of("seq_sum_bernoulli:max", rank=3).decide(torch.zeros(4, 1), torch.ones(4, 1))
    resumed = Deciders()
    resumed.load_state_dict(deciders.state_dict())
    assert resumed.of("seq_sum_bernoulli:max", rank=3).count == 4
    with pytest.raises(ValueError, match=r"loaded is of rank 3, and this is rank 2: each rank"):
        resumed.of("seq_sum_bernoulli:max", rank=2)
    damaged = deciders.state_dict()
    damaged["deciders"] += [{"rule": "seq_sum_bernoulli"}]
    with pytest.raises(KeyError):
        resumed.load_state_dict(damaged)
    assert resumed.of("seq_sum_bernoulli:max", rank=3).count == 4
