"""torch.export of modules that call the masks: the exported program decides as the module does."""

import io

import pytest
import torch

import rskernels

from ..support.bits import same_bits

FEATURES, CLASSES = 8, 10


class Step(torch.nn.Module):
    """Every form of decision on the logits of a linear model."""

    def __init__(self, seed):
        super().__init__()
        self.linear = torch.nn.Linear(FEATURES, CLASSES)
        self.seed = seed

    def forward(self, inputs, targets):
        logits = self.linear(inputs)
        law = {"seed": self.seed, "temperature": 0.7}
        mask = rskernels.accept_mask(logits, 0.2, 1.5, targets=targets, **law)
        dense = rskernels.accept_mask(logits, 0.2, 1.5, **law)
        seen = rskernels.verify(logits, 0.2, targets=targets, **law)
        log_prob = rskernels.target_log_prob(logits, targets)
        bernoulli = rskernels.bernoulli_mask(log_prob, 0.3, seed=self.seed)
        counts = rskernels.bernoulli(log_prob, 0.3, seed=self.seed).counts
        return mask, dense, seen.mask, seen.log_ratio, seen.counts, log_prob, bernoulli, counts


class SeededStep(torch.nn.Module):
    """A step that is given its seed, M and density as tensors."""

    def forward(self, logits, targets, seed, M, p_hat):
        return rskernels.accept_mask(logits, p_hat, M, targets=targets, seed=seed)


def batch(N):
    generator = torch.Generator().manual_seed(N)
    inputs = torch.randn(N, FEATURES, generator=generator)
    return inputs, torch.randint(CLASSES, (N,), generator=generator)


def export(module, arguments, strict):
    N = torch.export.Dim("N")
    shapes = tuple({0: N} if i < 2 else None for i in range(len(arguments)))
    return torch.export.export(module, arguments, dynamic_shapes=shapes, strict=strict)


@pytest.mark.parametrize("seed", [7, None])
@pytest.mark.parametrize("strict", [False, True])
def test_the_program_decides_as_the_module(strict, seed):
    torch.manual_seed(0)
    module = Step(seed)
    program = export(module, batch(16), strict)
    for N in (16, 5, 1, 100, 0):
        torch.manual_seed(3)
        got = program.module()(*batch(N))
        torch.manual_seed(3)
        assert same_bits(got, module(*batch(N)))


@pytest.mark.parametrize("strict", [False, True])
def test_a_program_with_a_drawn_seed_draws_afresh(strict):
    run = export(Step(None), batch(512), strict).module()
    arguments = batch(512)
    assert not torch.equal(run(*arguments)[0], run(*arguments)[0])


@pytest.mark.parametrize("strict", [False, True])
def test_a_program_saved_loaded_and_lowered(strict):
    inputs, targets = batch(64)
    module = SeededStep()
    arguments = (inputs, targets % FEATURES, torch.tensor([3]), torch.tensor(1.5), torch.rand(()))
    program = export(module, arguments, strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    others = (
        inputs[:9],
        targets[:9] % FEATURES,
        torch.tensor([4]),
        torch.tensor(2.0),
        arguments[4],
    )
    for one in (program, torch.export.load(file), program.run_decompositions()):
        for tensors in (arguments, others):
            assert torch.equal(one.module()(*tensors), module(*tensors))


@pytest.mark.parametrize("strict", [False, True])
def test_the_graph_holds_the_operators(strict):
    calls = [str(node.target) for node in export(Step(None), batch(16), strict).graph.nodes]
    for name, count in (
        ("mask", 2),
        # Its log_prob has the gradient of the parameters, which an exported graph may train.
        ("decide_with_totals", 1),
        ("target_log_prob", 1),
        ("bernoulli", 1),
        ("decide_ratios", 1),
    ):
        assert calls.count(f"rskernels.{name}.default") == count
    assert calls.count("aten.randint.default") == 5
    assert not any("functorch" in call for call in calls)


def test_gradients_of_an_exported_program():
    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.step = torch.nn.Linear(FEATURES, CLASSES)

        def forward(self, inputs, targets):
            logits = self.step(inputs)
            mask = rskernels.accept_mask(logits, 0.2, 1.5, targets=targets, seed=1)
            return (rskernels.target_log_prob(logits, targets) * mask).sum()

    module = Loss()
    program = export(module, batch(16), strict=False).module()
    for N in (16, 40):
        gradients = []
        for function in (program, module):
            function.zero_grad()
            function(*batch(N)).backward()
            gradients.append([parameter.grad for parameter in function.parameters()])
        assert len(gradients[0]) == 2
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other)


class LinearStep(torch.nn.Module):
    """Every form of decision from hidden states, and a loss with all parts of a product."""

    def __init__(self, seed):
        super().__init__()
        self.head = torch.nn.Linear(FEATURES, CLASSES)
        self.A = torch.nn.Parameter(torch.randn(2, FEATURES))
        self.B = torch.nn.Parameter(torch.randn(CLASSES, 2))
        self.seed = seed

    def forward(self, hidden, targets):
        z = rskernels.LinearLogits(
            hidden, self.head.weight, self.head.bias, scale=0.9, softcap=5.0,
            lora=(self.A, self.B, 0.5),
        )  # fmt: skip
        law = {"targets": targets, "seed": self.seed, "temperature": 0.7}
        mask = rskernels.verify_mask(z, 0.1, **law)
        lazy = rskernels.accept_mask(z, 0.2, 1.5, assume_finite=True, **law)
        seen = rskernels.accept(z, 0.2, 1.5, **law)
        loss = -torch.where(seen.mask, seen.log_prob, 0.0).sum()
        log_prob = rskernels.target_log_prob(z, targets)
        return loss - log_prob.sum(), mask, lazy, seen.mask, seen.log_ratio, seen.counts, log_prob


@pytest.mark.parametrize("seed", [7, None])
@pytest.mark.parametrize("strict", [False, True])
def test_a_program_from_hidden_states_decides_and_learns_as_the_module(strict, seed):
    torch.manual_seed(0)
    module = LinearStep(seed)
    program = export(module, batch(16), strict)
    calls = [str(node.target) for node in program.graph.nodes]
    for name, count in (("mask", 2), ("decide_with_totals", 1), ("target_log_prob", 1)):
        assert calls.count(f"rskernels.linear_{name}.default") == count
    # No tensor of the logits' size is made.
    made = [node.meta.get("val") for node in program.graph.nodes if node.op == "call_function"]
    shapes = [value.shape for value in made if isinstance(value, torch.Tensor)]
    assert shapes
    assert not any(len(shape) > 1 and shape[-1] == CLASSES for shape in shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for run in (program.module(), torch.export.load(file).module()):
        for N in (16, 5, 1, 100, 0):
            results = []
            for call in (run, module):
                torch.manual_seed(3)
                call.zero_grad()
                loss, *seen = call(*batch(N))
                loss.backward()
                gradients = {name: part.grad for name, part in call.named_parameters()}
                results.append((loss.detach(), *(part.detach() for part in seen), gradients))
            *got, by_name = results[0]
            *want, gradients = results[1]
            assert same_bits(got, want)
            assert by_name.keys() == gradients.keys()
            for name, gradient in gradients.items():
                torch.testing.assert_close(by_name[name], gradient)
