"""Steps of training: the loss, its mean, and in which order answers come."""

import copy

import pytest
import torch

from rskernels.language.parallel import Ranks
from rskernels.language.train import Example, Trainer, steps_of

from . import tiny

EXAMPLES = [
    Example([3, 4], [5, 6, 1], 1.0, 10),
    Example([7], [8, 1], 2.5, 11),
    Example([9, 10, 11, 12], [13, 14, 15, 16, 1], 0.5, 12),
    Example([5, 5, 5], [1], 1.0, 13),
]


def step_of(policy, examples=EXAMPLES, place=(1, 0), **more):
    """Take a step from the same parameters; return the loss and the gradient before it is cut."""
    config = tiny.config("given", **{"batch_size": 8, "micro_batch": 2, "clip": 1e9, **more})
    trainer = Trainer(copy.deepcopy(policy), config, Ranks())
    (micro,) = steps_of(examples, config)
    step = trainer.step(micro, place, config.lr)
    return step, {name: part.grad for name, part in trainer.module.named_parameters()}


@pytest.mark.parametrize("mean", ["tokens", "sequences"])
def test_the_loss_is_the_mean_of_what_transformers_makes_of_each_answer(mean):
    policy = tiny.policy(torch.float64)
    step, gradient = step_of(policy, mean=mean)
    causal = policy.causal
    total = weights = 0.0
    for one in EXAMPLES:
        ids = torch.tensor([one.prompt + one.answer])
        labels = ids.clone()
        labels[:, : len(one.prompt)] = -100
        count = len(one.answer)
        total = total + one.weight * count * causal(input_ids=ids, labels=labels).loss
        weights += one.weight * (count if mean == "tokens" else 1)
    (total / weights).backward()
    assert step.loss == pytest.approx(float(total.detach()) / weights, rel=1e-6)  # in float32 there
    assert (step.answers, step.tokens) == (4, 11)
    for name, part in policy.scorer.named_parameters():
        torch.testing.assert_close(gradient[name], part.grad, rtol=1e-4, atol=1e-6)
    norm = torch.stack([part.norm() for part in gradient.values()]).norm()
    assert step.norm == pytest.approx(float(norm), rel=1e-6)


def test_the_size_of_a_micro_batch_changes_nothing():
    policy = tiny.policy(torch.float64)
    want, gradient = step_of(policy)
    for size in (1, 3, 100):
        got, other = step_of(policy, micro_batch=size)
        assert got.loss == pytest.approx(want.loss, rel=1e-12)
        for name, part in gradient.items():
            torch.testing.assert_close(other[name], part, rtol=1e-9, atol=1e-12)


def test_dropout_is_drawn_by_the_step_and_leaves_the_generator_alone():
    policy = tiny.policy(attention_dropout=0.5)
    before = torch.get_rng_state()
    losses = [step_of(policy, place=(1, at))[0].loss for at in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_passes_have_orders_that_do_not_depend_on_how_answers_are_given():
    examples = [Example([3], [1] * (1 + n % 3), 1.0, 100 + n) for n in range(20)]
    config = tiny.config("given", batch_size=8, micro_batch=4, epochs=2)

    def ids(given):
        return [[[one.id for one in micro] for micro in step] for step in steps_of(given, config)]

    steps = ids(examples)
    assert ids(examples[::-1]) == steps
    assert [[len(micro) for micro in step] for step in steps] == [[4, 4], [4, 4], [4]] * 2
    passes = [
        [n for step in part for micro in step for n in micro] for part in (steps[:3], steps[3:])
    ]
    assert all(sorted(of) == list(range(100, 120)) for of in passes)
    assert passes[0] != passes[1]
    without = [one._replace(weight=0.0) if one.id == 105 else one for one in examples]
    assert 105 not in {n for step in ids(without) for micro in step for n in micro}
    assert steps_of([], config) == []
