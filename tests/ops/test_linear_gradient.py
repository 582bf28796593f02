"""The log_prob of logits that are not stored: its gradient, as torch asks for it."""

import pytest
import torch

import rskernels
from rskernels import LinearLogits

from ..support.bits import same_bits

NAMES = ("hidden", "weight", "bias", "A", "B")
TARGETS = torch.arange(12).view(3, 4) % 11
TARGETS[1, 2] = -100
TEMPERATURE = torch.tensor([0.6, 0.8, 1.0, 1.2])


def draw_parts(dtype=torch.float64, requires_grad=NAMES):
    generator = torch.Generator().manual_seed(0)
    shapes = {"hidden": (3, 4, 6), "weight": (11, 6), "bias": (11,), "A": (2, 6), "B": (11, 2)}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        .to(dtype)
        .requires_grad_(name in requires_grad)
        for name, shape in shapes.items()
    }


def logits_of(hidden, weight, bias, A, B):
    return LinearLogits(hidden, weight, bias, scale=1.3, softcap=3.0, lora=(A, B, 0.7))


def log_prob(*parts):
    return rskernels.target_log_prob(logits_of(*parts), TARGETS, temperature=TEMPERATURE)


def accept(*parts, M=1.0):
    law = {"targets": TARGETS, "temperature": TEMPERATURE, "seed": 3}
    return rskernels.accept(logits_of(*parts), 0.1, M, **law)


def verify(*parts, M=1.0):
    law = {"targets": TARGETS, "temperature": TEMPERATURE, "seed": 3}
    return rskernels.verify(logits_of(*parts), 0.1, M, **law)


def decided(call):
    """Return the log_prob of a decision as ``target_log_prob`` has it."""
    return lambda *parts: call(*parts).log_prob.where(TARGETS != -100, 0.0)


FUNCTIONS = {
    "target_log_prob": log_prob, "accept": decided(accept), "verify": decided(verify),
}  # fmt: skip


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return FUNCTIONS[request.param]


def test_gradcheck(function):
    assert torch.autograd.gradcheck(function, tuple(draw_parts().values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_and_gradients_are_those_of_target_log_prob(dtype):
    upstream = torch.linspace(-1, 1, 12).view(3, 4)
    seen = []
    for one in FUNCTIONS.values():
        parts = draw_parts(dtype)
        value = one(*parts.values())
        value.backward(upstream)
        seen.append([value, *(part.grad for part in parts.values())])
        assert all(part.grad.dtype == dtype for part in parts.values())
    assert same_bits(seen[1], seen[0])
    assert same_bits(seen[2], seen[0])


def test_only_log_prob_carries_a_gradient():
    want = accept(*draw_parts(requires_grad=()).values())
    seen = accept(*draw_parts(requires_grad=("B",)).values())
    assert same_bits(seen, want)
    assert [part.requires_grad for part in seen] == [False, True, False, False, False]
    with torch.no_grad():
        assert not accept(*draw_parts().values()).log_prob.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_each_part_alone(function, name):
    every, parts = draw_parts(), draw_parts(requires_grad=(name,))
    function(*every.values()).sum().backward()
    function(*parts.values()).sum().backward()
    assert [part.grad is not None for part in parts.values()] == [one == name for one in NAMES]
    assert same_bits(parts[name].grad, every[name].grad)


def test_a_step_on_the_accepted_rows():
    once, twice = draw_parts(torch.float32), draw_parts(torch.float32)
    seen = accept(*once.values())
    assert 0 < seen.mask.sum() < 11
    seen.log_prob[seen.mask].mean().backward()
    log_prob(*twice.values())[seen.mask].mean().backward()
    assert same_bits([p.grad for p in once.values()], [p.grad for p in twice.values()])
    assert once["hidden"].grad[~seen.mask].eq(0).all()


def test_grad_of_torch_func(function):
    parts = draw_parts(requires_grad=())
    loss = lambda *parts: function(*parts).square().sum()  # noqa: E731
    got = torch.func.grad(loss, argnums=(0, 1, 4))(*parts.values())
    leaves = draw_parts()
    loss(*leaves.values()).backward()
    assert same_bits(got, [leaves[name].grad for name in ("hidden", "weight", "B")])


def second(function, parts):
    (gradient,) = torch.autograd.grad(function(*parts).sum(), parts[1], create_graph=True)
    torch.autograd.grad(gradient.square().sum(), parts[0])


def forward_mode(function, parts):
    weight = parts[1].detach()
    call = lambda weight: function(parts[0], weight, *parts[2:])  # noqa: E731
    torch.func.jvp(call, (weight,), (weight,))


def dual(function, parts):
    with torch.autograd.forward_ad.dual_level():
        weight = torch.autograd.forward_ad.make_dual(parts[1].detach(), parts[1].detach())
        function(parts[0].detach(), weight, *parts[2:])


def vmapped(function, parts):
    torch.func.vmap(lambda weight: function(parts[0], weight, *parts[2:]))(parts[1][None])


def batched(function, parts):
    value = function(*parts).sum(0)
    torch.autograd.grad(value, parts[1], torch.eye(4).double(), is_grads_batched=True)


@pytest.mark.parametrize(
    ("derivative", "message"),
    [
        (second, "no second derivative"),
        (forward_mode, "no forward-mode derivative"),
        (dual, "no forward-mode derivative"),
        (vmapped, "have no vmap"),
        (batched, "have no vmap"),
    ],
)
def test_what_is_not_offered_raises(function, derivative, message):
    with pytest.raises(NotImplementedError, match=message):
        derivative(function, list(draw_parts().values()))


def test_a_temperature_has_no_gradient():
    temperature = torch.ones((), requires_grad=True)
    z = logits_of(*draw_parts().values())
    for call in (
        lambda: rskernels.target_log_prob(z, TARGETS, temperature=temperature),
        lambda: rskernels.accept(z, 0.1, 1.0, targets=TARGETS, temperature=temperature),
    ):
        with pytest.raises(NotImplementedError, match="no gradient with respect to temperature"):
            call()


def test_estimating_M_records_nothing():
    z = logits_of(*draw_parts().values())
    temperature = torch.ones((), requires_grad=True)
    assert rskernels.estimate_M(z, 0.1, targets=TARGETS, temperature=temperature) > 0


def test_autocast_changes_no_bit(function):
    upstream = torch.linspace(-1, 1, 12).view(3, 4)

    def gradients():
        parts = draw_parts(torch.float32)
        function(*parts.values()).backward(upstream)
        return [part.grad for part in parts.values()]

    want = gradients()
    with torch.autocast("cpu", torch.bfloat16):
        assert same_bits(gradients(), want)
