"""slime's hooks, called as slime calls them (its loss.py and actor.py of September 2026)."""

import math
from types import SimpleNamespace

import pytest
import torch

from rskernels.integrations import slime
from rskernels.integrations.decider import SHARES, Decider

from .frameworks import Law, put_modules


@pytest.fixture(autouse=True)
def forget():
    slime.deciders.clear()
    yield
    slime.deciders.clear()


def arguments(rule="seq_sum_bernoulli:2", **more):
    return SimpleNamespace(rskernels_rule=rule, **more)


def call(args, p, q, masks, loss=None):
    """Call the hook with the keywords of slime's ``policy_loss_function``."""
    lengths = [len(row) for row in p]
    return slime.tis(
        args=args,
        pg_loss=torch.cat(p) if loss is None else loss,
        train_log_probs=p,
        rollout_log_probs=q,
        loss_masks=masks,
        total_lengths=[3 + length for length in lengths],
        response_lengths=lengths,
    )


def rollouts(lengths=(3, 1, 4, 2)):
    generator = torch.Generator().manual_seed(2)
    p, q = ([-3 * torch.rand(length, generator=generator) for length in lengths] for _ in range(2))
    return p, q, [torch.ones(length, dtype=torch.int32) for length in lengths]


def test_accepted_sequences_have_the_law_of_the_training_policy():
    law = Law(3_000)
    p, q = list(law.log_p), list(law.log_q)
    masks = [torch.ones(2, dtype=torch.int32)] * 3_000
    _, kept, _ = call(arguments(f"seq_sum_bernoulli:{law.M}"), p, q, masks)
    assert law.chi_squared(torch.stack(kept).bool().any(1)) > 5e-8


def test_the_loss_and_masks_of_what_is_rejected_are_0():
    p, q, masks = rollouts()
    loss = torch.arange(1.0, 11.0, requires_grad=True)
    masks[2][1] = 0  # as of a tool's answer
    new_loss, new_masks, metrics = call(arguments("seq_sum_bernoulli:6"), p, q, masks, loss)
    ratios = [one - other for one, other in zip(p, q, strict=True)]
    expected = Decider("seq_sum_bernoulli:6", place="tis").decide(ratios, masks)
    assert 0 < expected.mask.sum() < 4
    for new, kept, old in zip(new_masks, expected.token_mask, masks, strict=True):
        assert new.dtype == old.dtype
        assert torch.equal(new.bool(), kept)
    assert torch.equal(new_loss, torch.where(torch.cat(expected.token_mask), loss, 0.0))
    new_loss.sum().backward()
    assert torch.equal(loss.grad.bool(), torch.cat(expected.token_mask))
    assert set(metrics) == {f"rskernels/{name}" for name in SHARES}
    assert {tuple(value.shape) for value in metrics.values()} == {(10,)}
    accepted = expected.mask.sum().item() / 4
    assert metrics["rskernels/accepted"].unique().tolist() == pytest.approx([accepted])


def test_micro_batches_decide_as_the_batch():
    p, q, masks = rollouts()
    whole = call(arguments(), p, q, masks)[1]
    slime.deciders.clear()
    parts = [call(arguments(), p[i : i + 2], q[i : i + 2], masks[i : i + 2])[1] for i in (0, 2)]
    for got, expected in zip([*parts[0], *parts[1]], whole, strict=True):
        assert torch.equal(got, expected)


def test_a_nan_rejects_its_sequence_and_no_other():
    p, q, masks = rollouts()
    clean = call(arguments("seq_sum_bernoulli:0.01"), p, q, masks)
    slime.deciders.clear()
    q[1] = torch.tensor([math.nan])
    loss = torch.cat(p)
    loss[3] = math.nan
    spoilt = call(arguments("seq_sum_bernoulli:0.01"), p, q, masks, loss)
    assert [mask.any().item() for mask in spoilt[1]] == [True, False, True, True]
    assert spoilt[0].isfinite().all()
    assert torch.equal(torch.cat(spoilt[0].split([3, 1, 6])[::2]), torch.cat([p[0], p[2], p[3]]))
    assert spoilt[2]["rskernels/invalid"][0] == 0.25
    assert clean[2]["rskernels/invalid"][0] == 0.0


def test_no_nan_of_what_is_rejected_reaches_a_gradient():
    """The ratio of a rejected token overflows, and its gradient is 0 times infinity."""
    p = [torch.tensor([200.0], requires_grad=True), torch.tensor([-1.0], requires_grad=True)]
    q = [torch.tensor([math.nan]), torch.tensor([-9.0])]
    masks = [torch.ones(1)] * 2
    for hooked in (False, True):
        pg_loss = torch.cat([row.exp() for row in p])
        kept = torch.tensor([False, True])
        loss = call(arguments(), p, q, masks, pg_loss)[0] if hooked else pg_loss.where(kept, 0.0)
        for row in p:
            row.grad = None
        loss.sum().backward()
        assert p[0].grad.item() == 0 if hooked else p[0].grad.isnan()
        assert p[1].grad.item() == pytest.approx(math.exp(-1))


def test_metrics_are_finite_before_anything_is_learnt():
    p, q, masks = rollouts((2,))
    found = call(arguments("seq_sum_bernoulli:budget=0.5"), p, q, masks)[2]
    assert all(value.isfinite().all() for value in found.values())
    assert found["rskernels/log_M"][0] == found["rskernels/has_M"][0] == 0
    assert found["rskernels/pilot"][0] == 1


def test_a_rank_without_samples_shares_its_rows(monkeypatch):
    shared = []
    monkeypatch.setattr(slime, "_of_all_ranks", lambda *rows: shared.append(rows) or rows)
    names = ("log_probs", "rollout_log_probs", "loss_masks", "sample_indices", "rewards")
    data = {name: [] for name in (*names, "total_lengths", "response_lengths")}
    slime.advantages(arguments(n_samples_per_prompt=4), data)
    assert [row.dtype for row in shared[0]] == [torch.float32, torch.bool, torch.int64]
    assert data["advantages"] == []


def test_rejected_answers_leave_the_baseline_of_their_prompt():
    p, q, masks = rollouts((2, 2, 2, 2, 2, 2, 2, 2))
    args = arguments("seq_sum_bernoulli:1.5", n_samples_per_prompt=4, grpo_std_normalization=False)
    data = {
        "log_probs": p,
        "rollout_log_probs": q,
        "loss_masks": masks,
        "sample_indices": list(range(40, 48)),
        "rewards": [1.0, 0.0, 1.0, 0.5, 3.0, 2.0, 2.0, 1.0],
        "total_lengths": [5] * 8,
        "response_lengths": [2] * 8,
    }
    dealt = [6, 1, 3, 0, 7, 5, 2, 4]
    shuffled = {name: [value[at] for at in dealt] for name, value in data.items()}
    slime.advantages(args, data)
    kept = torch.stack(data["loss_masks"]).bool().any(1)
    assert 2 < kept.sum() < 8
    rewards = torch.tensor(data["rewards"])
    for first in (0, 4):
        group, accepted = slice(first, first + 4), kept[first : first + 4]
        mean = rewards[group][accepted].mean()
        expected = torch.where(accepted, rewards[group] - mean, 0.0)
        got = torch.stack(data["advantages"][group])
        torch.testing.assert_close(got, expected[:, None].expand(4, 2))
    assert len(data["rskernels/accepted"]) == 8
    slime.deciders.clear()
    slime.advantages(args, shuffled)
    for at, place in enumerate(dealt):
        assert torch.equal(shuffled["advantages"][at], data["advantages"][place])


def test_what_is_missing_is_named():
    p, q, masks = rollouts()
    with pytest.raises(ValueError, match=r"args\.rskernels_rule is missing; set it by"):
        call(SimpleNamespace(), p, q, masks)
    with pytest.raises(ValueError, match="loss_masks has 3 tensors, train_log_probs has 4"):
        call(arguments(), p, q, masks[:3])
    with pytest.raises(KeyError, match="rollout_data has no sample_indices"):
        slime.advantages(arguments(), {"log_probs": p, "rollout_log_probs": q, "loss_masks": masks})


def megatron(monkeypatch, rank=0, context=1):
    """Put a Megatron in place with two data-parallel ranks, of which this is one."""
    mpu = SimpleNamespace(
        model_parallel_is_initialized=lambda: True,
        get_data_parallel_rank=lambda: rank,
        get_data_parallel_group=lambda: "data",
        get_context_parallel_world_size=lambda: context,
    )
    put_modules(monkeypatch, megatron__core={"mpu": mpu})
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: 2)


def test_context_parallel_ranks_decide_whole_responses(monkeypatch):
    p, q, masks = rollouts((4, 2, 6))
    whole = call(arguments("token_bernoulli:6"), p, q, masks)
    slime.deciders.clear()
    halves = {row.data_ptr(): row for row in (*p, *q)}

    def gather(half, total_length, response_length):
        assert len(half) == response_length // 2
        return halves[half.data_ptr()]

    def cut(row, total_length, response_length):
        assert len(row) == response_length == total_length - 3
        return row[: response_length // 2]

    megatron(monkeypatch, context=2)
    put_modules(
        monkeypatch,
        slime__backends__megatron_utils__cp_utils={
            "all_gather_with_cp": gather,
            "slice_log_prob_with_cp": cut,
        },
    )
    first = [[row[: len(row) // 2] for row in rows] for rows in (p, q)]
    loss, kept, _ = slime.tis(
        args=arguments("token_bernoulli:6"),
        pg_loss=torch.cat(first[0]),
        train_log_probs=first[0],
        rollout_log_probs=first[1],
        loss_masks=masks,
        total_lengths=[7, 5, 9],
        response_lengths=[4, 2, 6],
    )
    assert [mask.tolist() for mask in kept] == [mask.tolist() for mask in whole[1]]
    expected = [row[: len(row) // 2] for row in whole[0].split([4, 2, 6])]
    assert torch.equal(loss, torch.cat(expected))


def test_siblings_on_other_ranks_are_in_the_baseline(monkeypatch):
    p, q, masks = rollouts((2, 2, 2, 2))
    args = arguments("seq_sum_bernoulli:1.01", n_samples_per_prompt=4)
    data = {
        "log_probs": p,
        "rollout_log_probs": q,
        "loss_masks": masks,
        "sample_indices": [0, 1, 2, 3],
        "rewards": [1.0, 2.0, 4.0, 8.0],
        "total_lengths": [5] * 4,
        "response_lengths": [2] * 4,
    }
    of_ranks = [{name: value[at::2] for name, value in data.items()} for at in (0, 1)]
    slime.advantages(args, data)
    decider = Decider("seq_sum_bernoulli:1.01", place="advantages")
    kept = decider.decide([a - b for a, b in zip(p, q, strict=True)], masks, ids=range(4)).mask
    assert kept.sum() > 1
    rewards = torch.tensor(data["rewards"])

    for rank in (0, 1):
        slime.deciders.clear()
        megatron(monkeypatch, rank)
        other = (rewards[1 - rank :: 2], kept[1 - rank :: 2], torch.zeros(2, dtype=torch.int64))

        def gather(shared, mine, group, rank=rank, other=other):
            shared[rank], shared[1 - rank] = mine, other

        monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
        slime.advantages(args, of_ranks[rank])
        for got, expected in zip(
            of_ranks[rank]["advantages"], data["advantages"][rank::2], strict=True
        ):
            assert torch.equal(got, expected)
