"""verl's masks, loss and advantages, with its recorded signatures and with itself where it is."""

import importlib
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rskernels.integrations import verl as adapter
from rskernels.integrations.decider import METRICS, Decider

from .frameworks import Law, actor_config, installed_verl, put_modules, recorded_verl


@pytest.fixture(params=["recorded", "installed"])
def verl(request, monkeypatch):
    """The two modules that are patched, as ``core_algos, helper``; put back afterwards."""
    if request.param == "recorded":
        return recorded_verl(monkeypatch)
    return installed_verl(monkeypatch)


def batch(size=8, length=5, seed=2):
    generator = torch.Generator().manual_seed(seed)
    log_ratio = torch.randn(size, length, generator=generator) / 3
    mask = torch.ones(size, length, dtype=torch.int64)
    mask[:, 3:] = 0
    return log_ratio, mask


def test_accepted_sequences_have_the_law_of_the_training_policy(verl):
    law = Law(8_000)
    rejection = adapter.install()
    mask, _ = verl[1].compute_rollout_rejection_mask(
        law.log_p - law.log_q, torch.ones(8_000, 2), "seq_sum_bernoulli", law.M
    )
    assert law.chi_squared(mask.bool().any(1)) > 5e-8
    assert verl[1].compute_rollout_rejection_mask is rejection


def test_metrics_are_floats_of_valid_rows(verl):
    adapter.install()
    log_ratio, mask = batch()
    log_ratio[0, 4] = torch.nan  # padding
    log_ratio[1, 0] = torch.nan
    kept, metrics = verl[1].compute_rollout_rejection_mask(
        log_ratio, mask, "seq_sum_bernoulli:2,token_bernoulli", "budget=0.5"
    )
    names = ("seq_sum_bernoulli_2.0", "token_bernoulli_budget=0.5")
    assert set(metrics) == {f"rollout_rs_{rule}_{name}" for rule in names for name in METRICS}
    assert {type(value) for value in metrics.values()} == {float}
    assert metrics["rollout_rs_seq_sum_bernoulli_2.0_invalid"] == 1.0
    assert metrics["rollout_rs_token_bernoulli_budget=0.5_pilot"] == 0.5
    expected = Decider("seq_sum_bernoulli:2").decide(log_ratio, mask)
    accepted = expected.mask.sum().item() / 7
    assert metrics["rollout_rs_seq_sum_bernoulli_2.0_acceptance"] == pytest.approx(accepted)
    tokens = Decider("token_bernoulli:budget=0.5").decide(log_ratio, mask)
    assert torch.equal(kept.bool(), expected.token_mask & tokens.token_mask)
    assert kept.dtype == mask.dtype


def test_thresholds_of_verl_go_on_beside_rules(verl):
    adapter.install()
    log_ratio, mask = batch()
    kept, metrics = verl[1].compute_rollout_rejection_mask(
        log_ratio, mask, "token_k2, seq_sum_bernoulli", "0.02, 1.5"
    )
    drawn = Decider("seq_sum_bernoulli:1.5").decide(log_ratio, mask).token_mask
    assert torch.equal(kept.bool(), mask.bool() & (log_ratio.square() / 2 <= 0.02) & drawn)
    assert "rollout_rs_masked_fraction" in metrics


def test_micro_batches_decide_as_the_batch(verl):
    adapter.install(seed=7)
    log_ratio, mask = batch()
    decide = verl[1].compute_rollout_rejection_mask
    whole = decide(log_ratio, mask, "token_bernoulli", "1.5")[0]
    adapter.install(seed=7)
    decide = verl[1].compute_rollout_rejection_mask
    parts = [decide(log_ratio[i : i + 3], mask[i : i + 3], "token_bernoulli", "1.5")[0]
             for i in (0, 3, 6)]  # fmt: skip
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(
    ("options", "threshold", "message"),
    [
        ("seq_sum_bernoulli", None, "rollout_rs_threshold must be one for all or each of"),
        ("seq_sum_bernoulli", "in_option", "each of .'seq_sum_bernoulli'., .* got 'in_option'"),
        ("seq_sum_bernoulli:2", "3,4", "where every option says its own; got '3,4'"),
        ("seq_product_bernoulli", 2.0, "a rule is one of seq_sum_bernoulli, .* got 'seq_product"),
        ("token_k1:2", "in_option", "a rule is one of .* got 'token_k1:2'"),
        ("", 2.0, "rollout_rs must name options, separated by commas, got ''"),
        ("seq_sum_bernoulli", "budget=3", r"RATE in \(0, 1\].* got 'budget=3'"),
    ],
)
def test_options_that_are_none_are_refused(options, threshold, message):
    def thresholds(*given):
        raise AssertionError(given)

    with pytest.raises(ValueError, match=message):
        adapter.Rejection(thresholds)(*batch(), options, threshold)


def test_the_loss_is_a_policy_gradient_on_what_is_accepted(verl):
    core, _ = verl
    adapter.install()
    log_ratio, mask = batch()
    old = torch.full((8, 5), -1.0)
    log_prob = (old + log_ratio).requires_grad_()
    advantages = torch.arange(8.0)[:, None].expand(8, 5)
    config = actor_config("seq_sum_bernoulli", "1.5")
    loss, metrics = core.get_policy_loss_fn("rskernels")(
        old_log_prob=old, log_prob=log_prob, advantages=advantages, response_mask=mask.bool(),
        loss_agg_mode="token-mean", config=config, rollout_is_weights=None,
    )  # fmt: skip
    decider = Decider("seq_sum_bernoulli:1.5", place=adapter.PLACE)
    kept = decider.decide(log_ratio, mask).token_mask
    assert 0 < kept.sum() < mask.sum()
    assert loss.item() == pytest.approx(-(advantages * log_prob * kept).sum().item() / 24, rel=1e-5)
    loss.backward()
    torch.testing.assert_close(log_prob.grad, -advantages * kept / 24)
    assert "rollout_corr/rollout_rs_seq_sum_bernoulli_1.5_acceptance" in metrics


def test_a_micro_batch_of_which_nothing_is_kept_has_no_gradient(verl):
    adapter.install()
    log_prob = torch.full((2, 3), -60.0, requires_grad=True)
    loss, _ = verl[0].get_policy_loss_fn("rskernels")(
        old_log_prob=torch.full((2, 3), -1.0), log_prob=log_prob, advantages=torch.ones(2, 3),
        response_mask=torch.ones(2, 3, dtype=torch.bool), loss_agg_mode="token-mean",
        config=actor_config("seq_sum_bernoulli", "1"), rollout_is_weights=None,
    )  # fmt: skip
    loss.backward()
    assert loss == 0
    assert not log_prob.grad.any()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_kept_reaches_neither_loss_nor_gradient(bad):
    log_prob = torch.tensor([[-1.0, -1.0, -1.0], [-60.0] * 3], requires_grad=True)
    advantages = torch.tensor([[1.0, 1.0, bad], [bad] * 3])
    mask = torch.ones(2, 3, dtype=torch.bool)
    mask[0, 2] = False
    rejection = adapter.Rejection(None, rank=0)
    kept, _ = rejection(log_prob.detach() + 1, mask, "seq_sum_bernoulli", "1", adapter.PLACE)
    terms = torch.where(kept, log_prob, 0.0) * -torch.where(kept, advantages, 0.0)
    terms.sum().backward()
    expected = log_prob.grad.clone()
    log_prob.grad = None
    recorded = SimpleNamespace(
        agg_loss=lambda loss_mat, loss_mask, loss_agg_mode: (loss_mat * loss_mask).sum()
    )
    with pytest.MonkeyPatch.context() as patch:
        put_modules(patch, verl__trainer__ppo__core_algos=vars(recorded))
        loss, _ = adapter.policy_loss(
            rejection=adapter.Rejection(None, rank=0), old_log_prob=torch.full((2, 3), -1.0),
            log_prob=log_prob, advantages=advantages, response_mask=mask,
            config=actor_config("seq_sum_bernoulli", "1"),
        )  # fmt: skip
    loss.backward()
    assert loss == 2
    assert log_prob.grad.tolist() == expected.tolist() == [[-1.0, -1.0, 0.0], [0.0] * 3]


def test_metrics_that_verl_averages_are_finite_and_their_names_ask_for_a_mean():
    log_ratio, mask = batch()
    mask[1] = 0
    rejection = adapter.Rejection(None, rank=0)
    rules = "seq_max_bernoulli:4,seq_sum_bernoulli:max,seq_sum_bernoulli:1,seq_sum_bernoulli:4"
    found = [
        rejection(log_ratio[i : i + 1], mask[i : i + 1], rules, adapter.IN_OPTION)[1]
        for i in range(3)
    ]
    assert all(math.isfinite(value) for one in found for value in one.values())
    names = {name for one in found for name in one}
    assert not [name for name in names if "max" in name or "min" in name]
    assert len({name for name in names if name.endswith("_log_M")}) == 4
    assert found[2]["rollout_rs_seq_sum_bernoulli_4.0_log_M"] == math.log(4)
    assert not [name for name in found[1] if name.endswith("acceptance")]  # an empty answer


def test_two_rules_and_two_places_draw_independently():
    log_ratio, mask = torch.full((4_000, 1), math.log(0.5)), torch.ones(4_000, 1)
    rejection = adapter.Rejection(None, rank=0)
    kept, _ = rejection(log_ratio, mask, "seq_sum_bernoulli:1,seq_mean_bernoulli:1", "in_option")
    assert abs(kept.mean().item() - 0.25) < 5 * math.sqrt(3 / 16 / 4_000)
    driver, actor = (
        adapter.Rejection(None, rank=0)(log_ratio, mask, "seq_sum_bernoulli", "1", place)[0]
        for place in ("", adapter.PLACE)
    )
    assert abs((driver * actor).mean().item() - 0.25) < 5 * math.sqrt(3 / 16 / 4_000)


def test_the_loss_says_what_it_lacks(verl):
    adapter.install()
    tensors = {name: torch.zeros(1, 1) for name in ("old_log_prob", "log_prob", "advantages")}
    loss = verl[0].get_policy_loss_fn("rskernels")
    mask = torch.ones(1, 1)
    with pytest.raises(ValueError, match="decides by policy_loss"):
        loss(**tensors, response_mask=mask, config=actor_config())
    with pytest.raises(ValueError, match="accepted rollouts have weight 1; set rollout_is to null"):
        loss(**tensors, response_mask=mask, config=actor_config("prefix_bernoulli", 1),
             rollout_is_weights=mask)  # fmt: skip


def test_rejected_siblings_leave_the_baseline(verl):
    adapter.install()
    rewards = torch.zeros(6, 3)
    rewards[:, 2] = torch.tensor([1.0, 5.0, 3.0, 2.0, 9.0, 7.0])
    mask = torch.ones(6, 3, dtype=torch.int64)
    mask[[1, 4, 5]] = 0
    uid = np.array(["a", "a", "a", "b", "b", "b"], dtype=object)
    estimate = verl[0].get_adv_estimator_fn("rskernels_grpo")
    plain, returns = estimate(
        token_level_rewards=rewards, response_mask=mask, index=uid,
        config={"norm_adv_by_std_in_grpo": False},
    )  # fmt: skip
    assert plain[:, 0].tolist() == [-1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    assert torch.equal(plain, returns)
    scaled, _ = estimate(token_level_rewards=rewards, response_mask=mask, index=uid, config=None)
    torch.testing.assert_close(scaled[:, 0], plain[:, 0] / (2**0.5 + 1e-6))
    full = estimate(token_level_rewards=rewards, response_mask=torch.ones(6, 3), index=uid)[0]
    assert full[:3].sum().abs() < 1e-5
    assert full[1, 0] > 0


def test_verl_itself_carries_decisions_to_advantages_and_loss(monkeypatch):
    core, helper = installed_verl(monkeypatch)
    config = importlib.import_module("verl.trainer.config.algorithm").RolloutCorrectionConfig
    log_ratio, mask = batch()
    rollout = torch.full((8, 5), -1.0)
    rewards = torch.zeros(8, 5)
    rewards[:, 2] = torch.arange(8.0)
    data = importlib.import_module("verl.protocol").DataProto.from_dict(
        tensors={
            "old_log_probs": rollout + log_ratio, "rollout_log_probs": rollout,
            "response_mask": mask, "token_level_rewards": rewards,
        },
        non_tensors={"uid": np.array(list("aaaabbbb"), dtype=object)},
    )  # fmt: skip
    adapter.install()
    data, metrics = helper.compute_rollout_correction_and_add_to_batch(
        data, config(rollout_is=None, rollout_rs="seq_sum_bernoulli", rollout_rs_threshold="2")
    )
    kept = data.batch["response_mask"]
    assert torch.equal(
        kept.bool(), Decider("seq_sum_bernoulli:2").decide(log_ratio, mask).token_mask
    )
    assert "rollout_corr/rollout_rs_seq_sum_bernoulli_2.0_tv_bound" in metrics
    advantages, _ = core.get_adv_estimator_fn("rskernels_grpo")(
        token_level_rewards=rewards, response_mask=kept, config=None,
        index=data.non_tensor_batch["uid"],
    )  # fmt: skip
    assert not advantages[~kept.bool().any(1)].any()
    assert advantages[:4].sum().abs() < 1e-5

    adapter.install()
    actor = actor_config("seq_sum_bernoulli:2", adapter.IN_OPTION)
    actor.policy_loss["rollout_correction"] |= {"loss_type": "reinforce", "rollout_is": None}
    loss, _ = core.get_policy_loss_fn("bypass_mode")(
        old_log_prob=rollout, log_prob=rollout + log_ratio, advantages=advantages,
        response_mask=mask, loss_agg_mode="token-mean", config=actor,
    )  # fmt: skip
    expected = -((rollout + log_ratio) * advantages * kept).sum() / kept.sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_plugin_installs_with_the_seed_of_its_environment(verl, monkeypatch):
    monkeypatch.setenv("RSKERNELS_SEED", "12")
    plugin = importlib.import_module("rskernels.integrations.verl_plugin")
    importlib.reload(plugin)
    assert verl[1].compute_rollout_rejection_mask.seed == 12


def test_a_missing_framework_is_named(monkeypatch):
    recorded_verl(monkeypatch)
    for name in [name for name in sys.modules if name.startswith("verl.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "verl", None)
    with pytest.raises(
        ModuleNotFoundError, match="this adapter needs verl, which is not installed"
    ):
        adapter.install()
