"""A shift of the inputs: what turns and blurs, what tells domains apart, and the tasks of it."""

import math

import pytest
import torch

import rskernels
from rskernels.experiments.bundled import load_digits
from rskernels.experiments.config import GradientConfig
from rskernels.experiments.networks import make_model
from rskernels.experiments.shift import draw_shift, fit, shift
from rskernels.experiments.train import make_task
from rskernels.rsft.data.domains import log_domain_densities
from rskernels.rsft.errors import DataError, TrainingError
from rskernels.rsft.rules import RULES, State, transfer
from rskernels.rsft.run import train

QUICK = {"pretrain_epochs": 3, "test_fraction": 0.8, "imbalance": 1.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def turn_and_blur(images, generator):
    return shift(images, *draw_shift(len(images), generator))


def test_turned_and_blurred_images_differ_by_row_and_keep_their_ink():
    images = load_digits().inputs[:50]
    moved = turn_and_blur(images, generator())
    assert moved.shape == images.shape
    assert moved.isfinite().all()
    assert torch.equal(moved, turn_and_blur(images, generator()))
    assert not torch.equal(moved, turn_and_blur(images, generator(1)))
    ink = moved.sum((1, 2, 3)) / images.sum((1, 2, 3))
    assert (ink > 0.7).all()
    assert (ink < 1.1).all()
    same = turn_and_blur(images[:1].expand(50, -1, -1, -1), generator())
    assert len(same.flatten(1).unique(dim=0)) == 50


def test_channels_are_moved_alike():
    images = load_digits().inputs[:5]
    moved = turn_and_blur(images.repeat(1, 3, 1, 1), generator())
    assert torch.allclose(moved[:, 0], moved[:, 1])
    assert torch.allclose(moved[:, :1], turn_and_blur(images, generator()), atol=1e-6)


def test_domain_densities_are_those_of_two_normals():
    draws = torch.randn(20_000, 1, generator=generator())
    source, target = draws[:15_000], draws[15_000:] + 1
    x = torch.linspace(-1, 2, 20)[:, None]
    log_p, log_q = log_domain_densities(source, target, x).unbind(1)
    torch.testing.assert_close(log_p - log_q, x[:, 0] - 0.5, atol=0.15, rtol=0)


def test_a_loss_that_is_not_finite_before_the_fine_tuning_is_said(recwarn):
    images = load_digits().take(torch.arange(100))
    model = make_model(images.inputs, 10, generator())
    settings = {"epochs": 3, "batch_size": 10, "lr": 1e20, "momentum": 0.0}
    with pytest.raises(TrainingError, match="before the fine-tuning, the loss is nan; a smaller"):
        fit(model, images, **settings, generator=generator())
    assert not recwarn


def test_transfer_rejects_by_the_ratio_of_the_two_probabilities():
    rows = 1 << 16
    p = torch.tensor([0.1, 0.6, 0.3]).repeat(rows, 1)
    q = torch.tensor([0.4, 0.2, 0.4])
    targets = torch.multinomial(q, rows, replacement=True, generator=generator())
    state = State(torch.tensor(0.0), 5, 0)
    chosen = transfer(p.log(), targets, q.log()[targets], state)
    expected = rskernels.verify_mask(p.log(), q[targets], targets=targets, seed=5)
    assert torch.equal(chosen.mask, expected)
    for label, keep in enumerate((0.25, 1.0, 0.75)):
        of_label = chosen.mask[targets == label].double()
        error = 5 * (keep * (1 - keep) / len(of_label)) ** 0.5
        assert abs(of_label.mean() - keep) <= error
    assert chosen.weights.eq(1).all()


@pytest.mark.parametrize("ratio", ["models", "densities"])
def test_only_the_new_head_is_trained(ratio, tmp_path):
    """Every parameter before and after, to the bit; the head alone changes."""
    config = GradientConfig(method="transfer", ratio=ratio, epochs=2, **QUICK)
    task = make_task(config, generator())
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    summary = train(task, config, tmp_path, progress=False)
    after = task.model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"head.weight", "head.bias"}
    assert {n for n, p in task.model.named_parameters() if p.requires_grad} == changed
    assert 0 < summary["gradient_samples"] < summary["rows"]
    assert math.isfinite(summary["loss"])


def test_what_is_far_from_the_target_is_rejected_more():
    """The source are turned by up to 60°; those that look clean pass, and clean ones do."""
    task = make_task(GradientConfig(method="transfer", ratio="densities", **QUICK), generator())
    log_ratio = task.logits.log_softmax(1)[:, 0] - task.log_density
    clean = 10  # one of each class, the last of the pool
    keep = log_ratio.exp().clamp(max=1)
    assert keep[-clean:].mean() > 2 * keep[:-clean].mean()
    torch.testing.assert_close(log_ratio, task.logits[:, 0] - task.logits[:, 1])


def test_proposal_draws_rows_by_their_ratio():
    task = make_task(GradientConfig(method="proposal", **QUICK), generator())
    source = generator(1)
    drawn = torch.cat([task.order(0, source).rows for _ in range(200)])
    expected = task.log_density.double().softmax(0)
    share = drawn.bincount(minlength=len(expected)).double() / len(drawn)
    error = (expected * (1 - expected) / len(drawn)).sqrt()
    assert ((share - expected).abs() <= 6 * error).all()
    rows, measures, _ = task.order(0, source)
    assert len(rows) == len(task.pool.labels)
    ratio = task.log_density.double().exp()
    assert measures["draw_log_M"] == pytest.approx(float(task.log_density.max()))
    assert measures["draw_acceptance"] == pytest.approx(float(ratio.mean() / ratio.max()), rel=0.3)


@pytest.mark.parametrize("method", ["transfer", "proposal"])
def test_a_pool_without_rows_for_a_target_domain(method):
    config = GradientConfig(**{**QUICK, "imbalance": 20.0}, method=method)
    with pytest.raises(
        DataError, match=r"imbalance=20.0 leaves \d rows to the rarest class: too few"
    ):
        make_task(config, generator())


def test_a_table_has_nothing_to_turn():
    for method in ("transfer", "proposal"):
        with pytest.raises(DataError, match="turns and blurs images"):
            make_task(GradientConfig(data="wine", method=method), generator())


def test_a_new_head_has_learnt_nothing():
    model = make_model(load_digits().inputs, 10, generator())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.renew_head(generator(1))
    after = model.state_dict()
    assert not torch.equal(before.pop("head.weight"), after["head.weight"])
    assert not torch.equal(before.pop("head.bias"), after["head.bias"])
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_what_transfer_is_compared_with_has_the_same_head_and_ratio():
    reject, weight, everything, target = (
        make_task(
            GradientConfig(method="transfer", ratio="densities", selection=selection, **QUICK),
            generator(),
        )
        for selection in ("reject", "weight", "all", "target")
    )
    for task in (weight, everything, target):
        assert task.logits is None
        assert torch.equal(task.targets, task.pool.labels)
        for name, value in reject.model.state_dict().items():
            assert torch.equal(task.model.state_dict()[name], value)
    log_ratio = reject.logits.log_softmax(1)[:, 0] - reject.log_density
    torch.testing.assert_close(weight.log_density, log_ratio)
    assert torch.equal(everything.pool.inputs, reject.pool.inputs)
    assert torch.equal(target.pool.inputs, reject.pool.inputs[-40:])
    assert target.counts.tolist() == [4] * 10


def test_what_proposal_is_compared_with_uses_every_row_once():
    for selection in ("weight", "all"):
        task = make_task(
            GradientConfig(method="proposal", selection=selection, **QUICK), generator()
        )
        rows = task.order(0, generator()).rows
        assert torch.equal(rows.sort().values, torch.arange(len(task.pool.labels)))


@pytest.mark.parametrize(
    ("selection", "rule"),
    [("reject", "transfer"), ("weight", "reweight"), ("all", "plain"), ("target", "plain")],
)
def test_the_rule_of_a_selection(selection, rule):
    assert GradientConfig(method="transfer", selection=selection).rule is RULES[rule]
