"""torch.func's transforms: the derivatives that exist, and a clear error for what does not."""

import pytest
import torch

import rskernels

TARGETS = torch.tensor([3, 0, 6, 2])


def draw_logits(dtype=torch.float64):
    return torch.randn(4, 7, generator=torch.Generator().manual_seed(0)).to(dtype)


def log_prob(logits):
    return rskernels.target_log_prob(logits, TARGETS, temperature=0.7)


def decided_log_prob(logits):
    return rskernels.accept(
        logits, 0.2, 1.0, targets=TARGETS, temperature=0.7, seed=torch.tensor(3)
    ).log_prob


def expected(logits):
    return (logits / 0.7).log_softmax(-1).gather(-1, TARGETS[:, None])[:, 0]


@pytest.fixture(params=[log_prob, decided_log_prob])
def function(request):
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_grad_is_that_of_backward(function, dtype):
    logits = draw_logits(dtype)
    loss = lambda z: function(z).square().sum()  # noqa: E731
    leaf = logits.clone().requires_grad_()
    loss(leaf).backward()
    got, value = torch.func.grad_and_value(loss)(logits)
    assert got.dtype == dtype
    assert torch.equal(got, leaf.grad)
    assert torch.equal(value, loss(logits))


def test_grad_at_a_temperature_of_each_row():
    logits, temperature = draw_logits(), torch.tensor([0.3, 0.7, 1.0, 4.0])

    def loss(z, temperature):
        return rskernels.target_log_prob(z, TARGETS, temperature=temperature).square().sum()

    leaf = logits.clone().requires_grad_()
    loss(leaf, temperature).backward()
    assert torch.equal(torch.func.grad(loss)(logits, temperature), leaf.grad)
    with pytest.raises(NotImplementedError, match="no gradient with respect to temperature"):
        torch.func.grad(loss, argnums=1)(logits, temperature)
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(lambda T: loss(logits, T), (temperature,), (temperature,))


def test_vjp_and_jacrev(function):
    logits, upstream = draw_logits(), torch.linspace(-1, 1, 4, dtype=torch.float64)
    value, pull = torch.func.vjp(function, logits)
    torch.testing.assert_close(value, expected(logits))
    want = torch.func.vjp(expected, logits)[1](upstream)[0]
    torch.testing.assert_close(pull(upstream)[0], want)
    # A chunk of one row needs no vmap.
    jacobian = torch.func.jacrev(function, chunk_size=1)(logits)
    torch.testing.assert_close(jacobian, torch.func.jacrev(expected)(logits))


def test_grad_of_a_module_by_functional_call():
    model = torch.nn.Linear(5, 7).double()
    data = torch.randn(4, 5, dtype=torch.float64)

    def loss(parameters, function):
        logits = torch.func.functional_call(model, parameters, (data,))
        mask = rskernels.accept_mask(logits, 0.1, 1.0, targets=TARGETS, seed=2)
        return (function(logits) * mask).sum()

    parameters = {name: value.detach() for name, value in model.named_parameters()}
    got = torch.func.grad(loss)(parameters, log_prob)
    want = torch.func.grad(loss)(parameters, expected)
    for name, value in want.items():
        torch.testing.assert_close(got[name], value)


def test_masks_are_constants_of_grad():
    def weighted(logits):
        seen = rskernels.accept(logits, 0.2, 1.0, targets=TARGETS, seed=0)
        dense = rskernels.verify_mask(logits, 0.2, targets=None, seed=0)
        return (seen.mask * logits.sum(-1)).sum() + (dense * logits).sum()

    logits = draw_logits()
    mask = rskernels.accept_mask(logits, 0.2, 1.0, targets=TARGETS, seed=0)
    dense = rskernels.verify_mask(logits, 0.2, targets=None, seed=0)
    want = mask[:, None].double() + dense.double()
    assert torch.equal(torch.func.grad(weighted)(logits), want)


def test_functionalize():
    call = lambda z: rskernels.accept_mask(z, 0.2, 1.0, targets=TARGETS, seed=0)  # noqa: E731
    for one in (call, log_prob, decided_log_prob):
        assert torch.equal(torch.func.functionalize(one)(draw_logits()), one(draw_logits()))


VMAPPED = {
    "accept_mask": lambda z: rskernels.accept_mask(z, 0.2, 1.0, seed=0),
    "accept_mask of targets": lambda z: rskernels.accept_mask(z, 0.2, 1.0, targets=TARGETS, seed=0),
    "a batched density": lambda z: rskernels.verify_mask(
        torch.zeros(4, 7), z.abs(), targets=None, seed=0
    ),
    "accept": lambda z: rskernels.accept(z, 0.2, 1.0, seed=0).mask,
    "bernoulli_mask": lambda z: rskernels.bernoulli_mask(z, seed=0),
    "bernoulli": lambda z: rskernels.bernoulli(z, seed=0).mask,
    "target_log_prob": log_prob,
    "accept of targets": decided_log_prob,
    "a batched temperature": lambda z: rskernels.target_log_prob(
        torch.zeros(4, 7), TARGETS, temperature=z[:, 0].abs()
    ),
    "grad": torch.func.grad(lambda z: log_prob(z).sum()),
    "vjp": lambda z: torch.func.vjp(log_prob, z)[1](torch.ones(4, dtype=torch.float64))[0],
}


@pytest.mark.parametrize("name", VMAPPED)
def test_vmap_is_refused(name):
    with pytest.raises(NotImplementedError, match="call them on the batched tensor"):
        torch.func.vmap(VMAPPED[name])(torch.stack([draw_logits(), draw_logits()]))


def test_jacrev_of_all_rows_at_once_is_refused():
    with pytest.raises(NotImplementedError, match="have no vmap"):
        torch.func.jacrev(log_prob)(draw_logits())


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_vmap_of_a_drawn_seed_is_refused(randomness):
    draw = lambda z: rskernels.accept_mask(z, 0.2, 1.0)  # noqa: E731
    with pytest.raises(NotImplementedError, match="call them on the batched tensor"):
        torch.func.vmap(draw, randomness=randomness)(draw_logits())
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(draw)(draw_logits())


def test_vmap_of_what_is_not_batched():
    logits = draw_logits()
    call = lambda z: z * rskernels.accept_mask(logits, 0.2, 1.0, seed=0)  # noqa: E731
    got = torch.func.vmap(call)(torch.stack([logits, -logits]))
    assert torch.equal(got, torch.stack([call(logits), call(-logits)]))


@pytest.mark.parametrize(
    ("derivative", "message"),
    [
        (torch.func.jacfwd, "no forward-mode derivative"),
        (torch.func.hessian, "no forward-mode derivative"),
        (lambda f: lambda z: torch.func.jvp(torch.func.grad(f), (z,), (z,)), "no forward-mode"),
        (lambda f: torch.func.grad(lambda z: torch.func.grad(f)(z).sum()), "no second derivative"),
    ],
)
def test_derivatives_that_do_not_exist_are_refused(function, derivative, message):
    with pytest.raises(NotImplementedError, match=message):
        derivative(lambda z: function(z).sum())(draw_logits())


def test_transforms_inside_one_graph_are_refused(function, compiled):
    gradient = torch.func.grad(lambda z: function(z).sum())
    with pytest.raises(torch._dynamo.exc.Unsupported, match="outside of what is compiled"):
        compiled(gradient, backend="eager")(draw_logits())
    # Where the graph may break, they run outside of it.
    got = torch.compile(gradient, backend="eager")(draw_logits())
    assert torch.equal(got, gradient(draw_logits()))
