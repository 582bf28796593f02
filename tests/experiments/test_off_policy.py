"""Stale rollouts: enumeration, draws and the library's decisions say the same."""

import json
import math

import numpy as np
import pytest
import torch

from rskernels.experiments.off_policy import __main__ as command
from rskernels.experiments.off_policy import exact, policy, study
from rskernels.experiments.off_policy.estimators import (
    ESTIMATORS,
    FILTER,
    INDEPENDENT,
    Rollouts,
    Weights,
    nothing,
)
from rskernels.experiments.off_policy.network import log_prob, make_network, reward, sample
from rskernels.experiments.off_policy.simulate import simulate
from rskernels.experiments.off_policy.study import (
    FULL,
    QUICK,
    enumerate_pair,
    errors_over,
    run_study,
)
from rskernels.experiments.off_policy.train import at_random, mean_loss, train

NAMED = {estimator.name: estimator for estimator in ESTIMATORS}
# Each statistic below fails by chance with probability 5e-8.
SIGMAS = 5.5


@pytest.fixture(scope="module")
def laws():
    """A policy and its copy with noise: ratios on both sides of every bound."""
    generator = torch.Generator().manual_seed(3)
    shape = (policy.LENGTH, policy.VOCABULARY, policy.VOCABULARY)
    new, noise = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    sequences = policy.all_sequences()
    value = policy.verifier_reward(sequences) + policy.smooth_reward(sequences)
    return exact.laws_of(policy.Pair("", new, new + 0.3 * noise, value), sequences)


def test_the_sequences_are_all_and_have_a_law(laws):
    tokens = laws.cells % policy.VOCABULARY
    numbers = (tokens * policy.VOCABULARY ** torch.arange(policy.LENGTH)).sum(1)
    assert torch.equal(numbers.sort().values, torch.arange(policy.VOCABULARY**policy.LENGTH))
    assert float(laws.q.sum()) == pytest.approx(1.0)
    assert float(laws.q @ laws.w) == pytest.approx(1.0)


def test_the_true_gradient_is_that_of_autograd(laws):
    logits = laws.pair.new.clone().requires_grad_()
    law = policy.token_log_prob(logits, laws.cells).sum(1).exp()
    (law @ laws.pair.reward).backward()
    torch.testing.assert_close(laws.gradient, logits.grad.flatten())


def test_norms_are_those_of_the_gradients(laws):
    rows = torch.arange(0, len(laws.cells), 5003)
    each = policy.gradient(
        laws.pair.new, laws.cells[rows][:, None], torch.ones(len(rows), 1, policy.LENGTH).double()
    )
    torch.testing.assert_close(each.square().sum(1), laws.norms[rows].sum(1))


@pytest.mark.parametrize(
    "name",
    ["TIS, token, cap 2", "mask, sequence, 0.5 to 2", "importance weights", "PPO clip, 0.2"],
)
def test_draws_agree_with_enumeration(laws, name):
    estimator, batches, n = NAMED[name], 400, 64
    known = exact.moments_of(estimator, laws, n)
    seen = simulate(estimator, laws, n=n, batches=batches, pilot=0, seed=5)
    along = float(known.gradient @ laws.gradient / laws.gradient.square().sum())
    assert abs(seen.along - along) < SIGMAS * seen.along_error
    assert abs(seen.moments.reward - known.reward) < SIGMAS * seen.reward_error
    assert seen.moments.variance == pytest.approx(known.variance, rel=0.1)
    assert seen.moments.kept == pytest.approx(known.kept, abs=0.02)


def test_rejection_with_the_true_M_has_no_bias(laws):
    true = math.log(float(laws.w.max()))
    known = exact.of_rejection(laws, true, 4096)
    torch.testing.assert_close(known.gradient, laws.gradient, rtol=1e-9, atol=1e-12)
    assert known.reward == pytest.approx(laws.value)
    below = exact.of_rejection(laws, true - 2.0, 4096)
    assert float((below.gradient - laws.gradient).norm() / laws.gradient.norm()) > 0.01


@pytest.mark.parametrize("name", ["rejection, M true", "control, M budget:0.5"])
def test_what_the_operations_accept_has_no_bias(laws, name):
    seen = simulate(NAMED[name], laws, n=1024, batches=200, pilot=256, seed=6)
    assert abs(seen.along - 1.0) < SIGMAS * seen.along_error
    assert abs(seen.moments.reward - laws.value) < SIGMAS * seen.reward_error
    assert 0.0 < seen.moments.kept < 0.6


def test_a_budget_keeps_its_share_and_is_biased_as_enumerated(laws):
    seen = simulate(NAMED["rejection, M budget:0.5"], laws, n=256, batches=200, pilot=512, seed=7)
    known = exact.mixed([exact.of_rejection(laws, m, 256) for m in seen.log_M[:8].tolist()])
    assert seen.moments.kept == pytest.approx(0.5, abs=0.02)
    assert known.kept == pytest.approx(0.5, abs=0.03)
    along = float(known.gradient @ laws.gradient / laws.gradient.square().sum())
    assert abs(seen.along - along) < SIGMAS * seen.along_error + 0.02


def test_the_error_over_envelopes_is_that_of_their_spread(laws):
    given_M = [exact.of_rejection(laws, m, 256) for m in (0.5, 1.0, 2.0)]
    errors = errors_over(given_M, laws)
    # Of figures that are means over M the jackknife's is the textbook's.
    for figures, name in (([m.kept for m in given_M], "kept"),
                          ([m.reward for m in given_M], "reward_bias")):  # fmt: skip
        assert errors[name] == pytest.approx(np.std(figures, ddof=1) / math.sqrt(3.0))
    assert errors["bias"] > 1e-3
    same = errors_over(given_M[:1] * 3, laws)
    assert max(same.values()) < 1e-12
    unbiased = errors_over([exact.of_control(laws, m, 256) for m in (0.5, 1.0, 2.0)], laws)
    assert unbiased["bias"] < 1e-12
    assert unbiased["sd"] > 1e-3


def test_control_is_exact_for_any_M(laws):
    for log_M in (-1.0, 1.0):
        known = exact.of_control(laws, log_M, 64)
        torch.testing.assert_close(known.gradient, laws.gradient)


@pytest.mark.parametrize("name", [e.name for e in ESTIMATORS if e.moments in (INDEPENDENT, FILTER)])
def test_without_staleness_nothing_is_corrected(name):
    same = Rollouts(torch.zeros(2, 5, 3).double(), torch.ones(2, 5).double(), seed=0)
    weights = NAMED[name].weigh(same)
    assert torch.equal(weights.token, torch.ones(2, 5, 3).double())
    assert weights.total.tolist() == [5.0, 5.0]


def test_a_loss_is_the_weighted_mean_and_0_where_nothing_is_kept():
    token = torch.tensor([[[1.0, 0.0], [2.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]])
    weights = Weights(token, torch.tensor([2.0, 0.0]))
    log_pi = torch.tensor([[[-1.0, -math.inf], [-2.0, -3.0]], [[-1.0, -1.0], [-1.0, -1.0]]])
    log_pi.requires_grad_()
    advantage = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    loss = mean_loss(weights, advantage, log_pi)
    # -(1·1·-1 + 2·-1·-2 + 3·-1·-3) / (2 · 2)
    assert loss.tolist() == [-3.0, 0.0]
    loss.sum().backward()
    assert log_pi.grad.tolist() == [[[-0.25, 0.0], [0.5, 0.75]], [[0.0, 0.0], [0.0, 0.0]]]


def test_a_network_knows_the_probability_of_what_it_draws():
    network = make_network(2)
    tokens, logs = sample(network, 5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_prob(network, tokens).detach(), logs)
    tokens = torch.tensor([[[0, 3, 6, 8]]]).expand(2, 1, 4)
    assert reward(tokens).tolist() == [[pytest.approx(2 / 3)]] * 2


@pytest.mark.parametrize("age", [0, 2])
def test_rollouts_are_as_old_as_they_should_be(age):
    seen = []

    def keep(rollouts):
        seen.append(float(rollouts.log_ratio.abs().max()))
        return nothing(rollouts)

    recording = NAMED["no correction"]._replace(weigh=keep)
    course = train(recording, age=age, steps=4, seeds=2)
    assert seen[0] < 1e-5
    assert [value > 1e-3 for value in seen[1:]] == [age > 0] * 3
    assert np.shape(course["returns"]) == (2, 4)
    assert course["tokens"][0] == [i * 64 * 12 for i in range(4)]


def test_dropping_at_random_ignores_the_ratios():
    same = Rollouts(torch.randn(3, 500, 2).double(), torch.ones(3, 500).double(), seed=0)
    weights = at_random(0.25, same, nothing)
    assert torch.equal(weights.total, weights.token[..., 0].sum(1))
    # 1,500 draws at a quarter: a standard deviation of 0.0112.
    assert abs(float(weights.token[..., 0].mean()) - 0.25) < 5.5 * 0.0112


def test_no_two_pairs_are_drawn_by_the_same_seed(monkeypatch):
    seeds = []

    def stop(*_, seed, **__):
        seeds.append(seed)
        raise StopIteration

    monkeypatch.setattr(study, "simulate", stop)
    monkeypatch.setattr(study, "all_sequences", lambda: None)
    monkeypatch.setattr(study, "laws_of", lambda *_: None)
    monkeypatch.setattr(study, "make_pairs", lambda *_: [None] * 5)
    for reward_name in FULL.rewards:
        for number in range(5):
            with pytest.raises(StopIteration):
                enumerate_pair(FULL, reward_name, number)
    assert len(set(seeds)) == 10


@pytest.mark.usefixtures("figures")
def test_a_quick_study_writes_its_report_and_goes_on(tmp_path, capsys):
    arguments = ["--quick", "--out", str(tmp_path / "runs"), "--report", str(tmp_path / "report")]
    command.main(arguments)
    said = capsys.readouterr()
    page = tmp_path / "report" / "off_policy.md"
    assert said.out.strip() == str(page)
    assert "enumerated-smooth-0" in said.err
    text = page.read_text(encoding="utf-8")
    for estimator in ESTIMATORS:
        assert f"\n| {estimator.name}" in text
    assert (tmp_path / "report" / "off_policy-enumerated.png").stat().st_size > 0
    assert (tmp_path / "report" / "off_policy-trained.png").stat().st_size > 0
    results = json.loads((page.with_suffix(".json")).read_text(encoding="utf-8"))
    [true] = [r for r in results["pieces"][0]["rows"] if r["name"] == "rejection, M true"]
    assert true["bias"] < 1e-6
    assert abs(true["z_gradient"]) < SIGMAS
    # Every figure of a row that learnt M says its error, none of an exact row does.
    budget, exactly = ([line for line in text.splitlines() if line.startswith(f"| {name} |")]
                       for name in ("rejection, M budget:0.5", "rejection, M true"))  # fmt: skip
    assert [line.count("±") for line in budget[:2]] == [8, 8]
    assert [line.count("±") for line in exactly] == [0, 0]
    said = []
    run_study(QUICK, tmp_path / "runs", said.append)
    assert said == []  # nothing was made again
