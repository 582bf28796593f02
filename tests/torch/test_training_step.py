"""A compiled training step whose loss is the cross-entropy of the rows that accept_mask accepts."""

import pytest
import torch

import rskernels

FEATURES, CLASSES = 8, 10


def loss_of(model, inputs, targets, p_hat, M, seed, temperature=1.0):
    logits = model(inputs)
    mask = rskernels.accept_mask(
        logits, p_hat, M, targets=targets, seed=seed, temperature=temperature
    )
    cross_entropy = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return (cross_entropy * mask).sum() / mask.sum().clamp(min=1), mask


class Trainer:
    """A linear model and its optimizer, trained by an eager or compiled loss."""

    def __init__(self, loss, compile_optimizer=False):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(FEATURES, CLASSES)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5, momentum=0.9)
        self.loss = loss
        self.update = self.optimizer.step
        if compile_optimizer:
            self.update = torch.compile(self.update, backend="aot_eager")

    def step(self, inputs, targets, **law):
        self.optimizer.zero_grad()
        loss, mask = self.loss(self.model, inputs, targets, **law)
        loss.backward()
        self.update()
        return loss.detach(), mask


def batch(N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(N, FEATURES, generator=generator)
    return inputs, torch.randint(CLASSES, (N,), generator=generator)


def train(trainer, laws, sizes):
    """Return losses, masks and the final parameters."""
    seen = [trainer.step(*batch(N, N), **law) for N, law in zip(sizes, laws, strict=True)]
    losses, masks = zip(*seen, strict=True)
    return torch.stack(losses), masks, torch.cat([p.flatten() for p in trainer.model.parameters()])


# Without dynamic=True, once for the first size and once for all the others.
@pytest.mark.parametrize(
    ("backend", "dynamic", "compilations"),
    [("inductor", True, 1), ("aot_eager", True, 1), ("aot_eager", None, 2)],
)
def test_it_trains_as_the_eager_step_without_recompiling_for_other_sizes(
    counted, backend, dynamic, compilations
):
    sizes = [32, 48, 7, 64, 33, 100, 2]
    laws = [{"p_hat": 0.2, "M": 1.5, "seed": torch.tensor([i])} for i in range(7)]
    fast, counter = counted(loss_of, backend=backend, dynamic=dynamic)
    trainer = Trainer(fast, compile_optimizer=backend == "aot_eager")
    losses, masks, parameters = train(trainer, laws, sizes)
    want_losses, want_masks, want_parameters = train(Trainer(loss_of), laws, sizes)
    assert all(map(torch.equal, masks, want_masks))
    assert any(mask.any() and not mask.all() for mask in masks)
    torch.testing.assert_close(losses, want_losses)
    torch.testing.assert_close(parameters, want_parameters)
    assert counter.frame_count == compilations


def test_sizes_and_numbers_that_change_together_compile_once(counted):
    sizes = range(2, 26, 2)
    laws = [
        {"p_hat": 0.1 + i / 50, "M": 1.0 + i / 7, "seed": 7 * i + 3, "temperature": 1.0 + i / 9}
        for i in range(12)
    ]
    fast, counter = counted(loss_of, dynamic=True)
    _, masks, parameters = train(Trainer(fast), laws, sizes)
    _, want_masks, want_parameters = train(Trainer(loss_of), laws, sizes)
    assert all(map(torch.equal, masks, want_masks))
    torch.testing.assert_close(parameters, want_parameters)
    assert counter.frame_count == 1


def test_drawn_seeds_are_fresh_and_reproducible(counted):
    inputs, targets = batch(512)
    law = {"p_hat": 0.05, "M": 1.0, "seed": None}
    fast, counter = counted(loss_of)
    trainer = Trainer(fast)

    def masks(seed):
        for parameter in trainer.model.parameters():
            torch.nn.init.zeros_(parameter)
        trainer.optimizer.state.clear()
        torch.manual_seed(seed)
        return [trainer.step(inputs, targets, **law)[1] for _ in range(3)]

    first, again, other = masks(1), masks(1), masks(2)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])
    # An eager step draws the same seeds.
    trainer.loss = loss_of
    assert all(map(torch.equal, first, masks(1)))
    # A step of no length takes the same model to another mask.
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    still = masks(1)
    assert torch.equal(still[0], first[0])
    assert not torch.equal(still[0], still[1])
    assert counter.frame_count == 1


def test_the_gradient_is_that_of_the_mask_which_was_returned(compiled):
    def step(weight, targets):
        logits = weight.expand(512, 10)
        mask = rskernels.accept_mask(logits, 0.05, 1.0, targets=targets)
        loss = torch.where(mask, rskernels.target_log_prob(logits, targets), 0.0).sum()
        return mask, loss

    fast = compiled(step)
    weight = torch.zeros(10, requires_grad=True)
    targets = torch.arange(512) % 10
    seen = []
    for _ in range(3):
        mask, loss = fast(weight, targets)
        (gradient,) = torch.autograd.grad(loss, weight)
        per_class = torch.zeros(10).index_add(0, targets, mask.float())
        torch.testing.assert_close(gradient, per_class - mask.sum() / 10, rtol=1e-4, atol=1e-4)
        seen.append(mask)
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_one_pass_decides_and_trains_in_one_graph(counted):
    def loss_of_log_prob(model, inputs, targets, p_hat, M, seed, temperature=1.0):
        law = {"targets": targets, "seed": seed, "temperature": temperature}
        seen = rskernels.accept(model(inputs), p_hat, M, **law)
        return -torch.where(seen.mask, seen.log_prob, 0.0).sum(), seen.mask

    sizes = range(2, 26, 2)
    laws = [
        {"p_hat": 0.1 + i / 50, "M": 1.0 + i / 7, "seed": 7 * i + 3, "temperature": 1.0 + i / 9}
        for i in range(12)
    ]
    fast, counter = counted(loss_of_log_prob, dynamic=True)
    losses, masks, parameters = train(Trainer(fast), laws, sizes)
    want_losses, want_masks, want_parameters = train(Trainer(loss_of_log_prob), laws, sizes)
    assert all(map(torch.equal, masks, want_masks))
    assert any(mask.any() and not mask.all() for mask in masks)
    torch.testing.assert_close(losses, want_losses)
    torch.testing.assert_close(parameters, want_parameters)
    assert counter.frame_count == 1


def test_the_gradient_of_target_log_prob(compiled):
    def loss_of_log_prob(model, inputs, targets, seed):
        logits = model(inputs)
        mask = rskernels.accept_mask(logits, 0.3, 1.0, targets=targets, seed=seed)
        log_prob = rskernels.target_log_prob(logits, targets)
        return -torch.where(mask, log_prob, 0.0).sum()

    def gradients(function):
        torch.manual_seed(0)
        model = torch.nn.Linear(FEATURES, CLASSES)
        loss = function(model, *batch(32), torch.tensor([4]))
        loss.backward()
        return loss.detach(), model.weight.grad, model.bias.grad

    got, want = gradients(compiled(loss_of_log_prob)), gradients(loss_of_log_prob)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)
