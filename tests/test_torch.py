"""The operators as torch sees them: schemas, fakes, autograd, compilation, generators."""

import pytest
import torch

import rskernels

OPS = torch.ops.rskernels


def inputs(layout, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 6, 11, generator=generator).to(dtype)
    logits = {
        "dense": lambda: logits,
        "sliced": lambda: logits[:, :-1, 2:9],
        "transposed": lambda: logits.transpose(0, 2),
        "expanded": lambda: logits[:1].expand(3, -1, -1),
        "expanded-classes": lambda: logits[..., :1].expand(-1, -1, 5),
        "no-rows": lambda: logits[:, :0],
        "one-row": lambda: logits[0, 0],
    }[layout]()
    targets = torch.arange(logits.shape[:-1].numel()).view(logits.shape[:-1]) % logits.shape[-1]
    return logits, targets


LAYOUTS = [
    "dense", "sliced", "transposed", "expanded", "expanded-classes", "no-rows", "one-row",
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", ["mask", "decide"])
@pytest.mark.parametrize("form", ["target", "dense"])
def test_opcheck_of_decisions(op, layout, form):
    logits, targets = inputs(layout)
    M, seed = torch.tensor(2.0), torch.tensor([3])
    density = torch.full(targets.shape, 0.2) if form == "target" else torch.tensor(0.2)
    targets = targets if form == "target" else None
    for given in (
        # Tensors, then numbers, of density, M and seed; then the defaults.
        (logits, targets, density, 1.0, seed, 0, M, 1.0, 5, 0.7, False, True, -100),
        (logits, targets, None, 0.0, None, 3, None, -1.0, 5, 0.7, True, False, -100),
        (logits, targets, density),
    ):
        torch.library.opcheck(getattr(OPS, op).default, given)


@pytest.mark.parametrize("layout", ["dense", "transposed", "no-rows"])
def test_opcheck_of_bernoulli(layout):
    log_ratio, _ = inputs(layout)
    for M, seed in ((None, None), (torch.tensor(2.0), torch.tensor([3]))):
        torch.library.opcheck(OPS.bernoulli.default, (log_ratio, M, seed, 1.0, 3, 5, 1, False))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_opcheck_of_target_log_prob(layout, dtype):
    logits, targets = inputs(layout, dtype)
    logits = logits.detach().requires_grad_()
    torch.library.opcheck(OPS.target_log_prob.default, (logits, targets, 0.7, -100))
    with torch.no_grad():
        log_prob, totals = OPS.target_log_prob(logits, targets, 0.7, -100)
    given = (torch.ones_like(log_prob), logits.detach(), targets, totals, 0.7, -100)
    torch.library.opcheck(OPS.target_log_prob_backward.default, given)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_meta_tensors_have_the_shapes_and_dtypes_of_results(layout, dtype):
    logits, targets = inputs(layout, dtype)
    for form in (targets, None):
        real = rskernels.accept(logits, 0.2, 1.0, targets=form, seed=0)
        meta_form = None if form is None else form.to("meta")
        meta = rskernels.accept(logits.to("meta"), 0.2, 1.0, targets=meta_form, seed=0)
        for a, b in zip(real, meta, strict=True):
            assert b.is_meta
            assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())
        drawn = rskernels.accept_mask(logits.to("meta"), 0.2, 1.0, targets=meta_form)
        assert (drawn.shape, drawn.dtype) == (real.mask.shape, torch.bool)
    real = rskernels.target_log_prob(logits, targets)
    meta = rskernels.target_log_prob(logits.to("meta"), targets.to("meta"))
    assert (real.shape, real.dtype, real.stride()) == (meta.shape, meta.dtype, meta.stride())


def test_masks_carry_no_gradient():
    logits, targets = inputs("dense")
    logits.requires_grad_()
    p_hat = torch.full(targets.shape, 0.2, requires_grad=True)
    M = torch.tensor(1.5, requires_grad=True)
    for form in (targets, None):
        density = p_hat if form is not None else p_hat[..., None]
        seen = rskernels.accept(logits, density, M, targets=form, seed=0)
        assert not any(part.requires_grad for part in seen)
        assert not rskernels.verify_mask(logits, density, M, targets=form, seed=0).requires_grad
    assert not rskernels.bernoulli_mask(p_hat.log(), M, seed=0).requires_grad
    assert rskernels.target_log_prob(logits, targets).requires_grad


def test_inputs_are_not_changed(same_bits):
    logits, targets = inputs("dense")
    p_hat, M, seed = torch.full(targets.shape, 0.2), torch.tensor([1.5]), torch.tensor([3])
    given = (logits, targets, p_hat, M, seed)
    before = tuple(part.clone() for part in given)
    rskernels.accept(logits, p_hat, M, targets=targets, seed=seed)
    rskernels.accept(logits, p_hat[..., None], M, seed=seed)
    rskernels.bernoulli_mask(p_hat, M, seed=seed)
    assert same_bits(given, before)


def test_results_do_not_share_memory():
    logits, targets = inputs("dense")
    seen = rskernels.accept(logits, 0.2, 1.0, targets=targets, seed=0)
    places = {part.untyped_storage().data_ptr() for part in seen}
    assert len(places) == len(seen)


def test_negated_views_are_read_as_what_they_are(same_bits):
    # The imaginary part of a conjugate is a view whose sign is held aside.
    logits = torch.randn(6, 5, dtype=torch.complex64).conj().imag
    assert logits.is_neg()
    targets = torch.arange(6) % 5
    lazy = rskernels.accept(logits, 0.2, 1.0, targets=targets, seed=0)
    plain = rskernels.accept(logits.resolve_neg().clone(), 0.2, 1.0, targets=targets, seed=0)
    assert same_bits(lazy, plain)


def test_same_seed_same_mask():
    logits, targets = inputs("dense")
    law = {"targets": targets}
    one = rskernels.accept_mask(logits, 0.2, 2.0, seed=5, **law)
    assert torch.equal(one, rskernels.accept_mask(logits, 0.2, 2.0, seed=5, **law))
    assert torch.equal(one, rskernels.accept_mask(logits, 0.2, 2.0, seed=torch.tensor(5), **law))


def masks(draws=6, generator=None):
    log_ratio = torch.full((256,), -0.7)
    return [rskernels.bernoulli_mask(log_ratio, generator=generator) for _ in range(draws)]


@pytest.mark.parametrize("with_generator", [False, True])
def test_generators_reproduce(with_generator):
    generator = torch.Generator() if with_generator else None
    seed = generator.manual_seed if with_generator else torch.manual_seed
    seed(11)
    first = masks(generator=generator)
    # A draw a call, each of its own.
    assert all(not torch.equal(first[i], first[j]) for i in range(6) for j in range(i))
    seed(11)
    assert all(map(torch.equal, first, masks(generator=generator)))
    seed(12)
    assert not torch.equal(first[0], masks(1, generator)[0])


def test_a_generator_leaves_the_default_one_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    masks(generator=torch.Generator())
    rskernels.bernoulli_mask(torch.zeros(3), seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    masks(1)
    assert not torch.equal(torch.get_rng_state(), before)


def test_drawn_seeds_use_all_bits():
    generator = torch.Generator().manual_seed(0)
    from rskernels.random import draw_seed

    seeds = torch.cat([draw_seed(generator, torch.device("cpu")) for _ in range(200)])
    assert seeds.unique().numel() == 200
    for bit in range(62):
        assert 50 < ((seeds >> bit) & 1).sum() < 150


@pytest.fixture
def compiled():
    torch._dynamo.reset()
    yield lambda function, **how: torch.compile(function, fullgraph=True, **how)
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["inductor", "aot_eager"])
def test_compiled_masks_are_the_eager_ones(compiled, backend, same_bits):
    def decide(logits, targets, p_hat, M):
        # The graph goes on to use the mask and the log-probabilities.
        seen = rskernels.accept(logits * 2, p_hat, M, targets=targets, seed=9, row_offset=4)
        dense = rskernels.verify_mask(logits, 0.1, targets=None, seed=9, temperature=0.7)
        return torch.where(seen.mask, seen.log_prob, 0.0), dense.sum(-1), seen.counts

    logits, targets = inputs("dense")
    p_hat, M = torch.full(targets.shape, 0.2), torch.tensor(1.5)
    fast = compiled(decide, backend=backend)
    assert same_bits(fast(logits, targets, p_hat, M), decide(logits, targets, p_hat, M))
    # Another batch size.
    given = (logits[:3], targets[:3], p_hat[:3], M)
    assert same_bits(fast(*given), decide(*given))


@pytest.mark.parametrize("backend", ["inductor", "aot_eager"])
def test_compiled_draws_are_fresh_and_reproducible(compiled, backend):
    def draw(logits, targets):
        return rskernels.accept_mask(logits, 0.05, 1.0, targets=targets)

    logits, targets = torch.zeros(512, 10), torch.zeros(512, dtype=torch.int64)
    fast = compiled(draw, backend=backend)
    torch.manual_seed(3)
    first = [fast(logits, targets) for _ in range(4)]
    assert all(not torch.equal(first[i], first[j]) for i in range(4) for j in range(i))
    assert all(150 < mask.sum() < 360 for mask in first)
    torch.manual_seed(3)
    assert all(map(torch.equal, first, [fast(logits, targets) for _ in range(4)]))


@pytest.mark.parametrize("backend", ["inductor", "aot_eager"])
def test_compiled_training_step(compiled, backend):
    def loss_of(model, inputs, targets, seed):
        logits = model(inputs)
        mask = rskernels.accept_mask(logits, 0.3, 1.0, targets=targets, seed=seed)
        log_prob = rskernels.target_log_prob(logits, targets)
        return -torch.where(mask, log_prob, 0.0).sum()

    def gradients(step):
        torch.manual_seed(0)
        model = torch.nn.Linear(8, 10)
        data = torch.randn(32, 8)
        loss = step(model, data, torch.arange(32) % 10, torch.tensor([4]))
        loss.backward()
        return loss.detach(), model.weight.grad, model.bias.grad

    for one, other in zip(
        gradients(compiled(loss_of, backend=backend)), gradients(loss_of), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_compiled_training_step_draws_afresh(compiled):
    def step(weight, targets):
        logits = weight.expand(512, 10)
        mask = rskernels.accept_mask(logits, 0.05, 1.0, targets=targets)
        loss = torch.where(mask, rskernels.target_log_prob(logits, targets), 0.0).sum()
        return mask, loss

    fast = compiled(step, backend="aot_eager")
    weight = torch.zeros(10, requires_grad=True)
    targets = torch.arange(512) % 10
    seen = []
    for _ in range(3):
        mask, loss = fast(weight, targets)
        (gradient,) = torch.autograd.grad(loss, weight)
        # The gradient is that of the mask which was returned.
        per_class = torch.zeros(10).index_add(0, targets, mask.float())
        torch.testing.assert_close(gradient, per_class - mask.sum() / 10, rtol=1e-4, atol=1e-4)
        seen.append(mask)
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize(
    ("name", "values", "log_space"),
    [
        ("M", (1.0, 1.5, 2.5), False),
        ("M", (1.5, -0.5, 0.25), True),
        ("p_hat", (0.2, 0.3, 0.4), False),
        ("p_hat", (-2.0, -1.5, 0.5), True),
        ("temperature", (1.0, 0.5, 0.75), False),
        ("row_offset", (0, 7, 2**40, 2**40 + 24), False),
        ("seed", (1, 2, -3, 2**63 + 1), False),
        ("ignore_index", (-100, 1, 2), False),
    ],
)
def test_compiled_with_changing_numbers(compiled, same_bits, name, values, log_space):
    def decide(logits, targets, number):
        law = {"p_hat": -1.5 if log_space else 0.2, "M": 1.0, "seed": 1, name: number}
        return rskernels.accept(logits, targets=targets, log_space=log_space, **law)

    logits, targets = inputs("dense")
    fast = compiled(decide, backend="aot_eager")
    for number in values:
        assert same_bits(fast(logits, targets, number), decide(logits, targets, number))


@pytest.mark.parametrize("log_space", [False, True])
def test_compiled_bernoulli_with_changing_M(compiled, log_space):
    def decide(log_ratio, M):
        return rskernels.bernoulli_mask(log_ratio, M, log_space=log_space, seed=1)

    log_ratio = inputs("dense")[0]
    fast = compiled(decide, backend="aot_eager")
    for M in (1.5, 2.0, 0.7):
        assert torch.equal(fast(log_ratio, M), decide(log_ratio, M))


def test_export():
    class Step(torch.nn.Module):
        def forward(self, logits, targets):
            return rskernels.accept_mask(logits, 0.2, 1.0, targets=targets, seed=1)

    logits, targets = inputs("dense")
    program = torch.export.export(Step(), (logits, targets))
    assert torch.equal(program.module()(logits, targets), Step()(logits, targets))
