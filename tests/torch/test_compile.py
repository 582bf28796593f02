"""torch.compile(fullgraph=True): the eager bits, fresh draws, one graph for all numbers."""

import pytest
import torch

import rskernels

from ..support.bits import same_bits


@pytest.fixture(params=["inductor", "aot_eager"])
def backend(request):
    return request.param


def test_masks_are_the_eager_ones(compiled, draw_inputs, backend):
    def decide(logits, targets, p_hat, M, seed):
        # The graph goes on to use the mask and the log-probabilities.
        seen = rskernels.accept(logits * 2, p_hat, M, targets=targets, seed=9, row_offset=4)
        mask = rskernels.accept_mask(logits, p_hat, M, targets=targets, seed=seed)
        dense = rskernels.verify_mask(logits, 0.1, targets=None, seed=9, temperature=0.7)
        return torch.where(seen.mask, seen.log_prob, 0.0), mask, dense.sum(-1), seen.counts

    logits, targets = draw_inputs()
    p_hat, M, seed = torch.full(targets.shape, 0.2), torch.tensor(1.5), torch.tensor([5])
    fast = compiled(decide, backend=backend)
    # Another batch size.
    for rows in (slice(0, 4), slice(0, 3)):
        arguments = (logits[rows], targets[rows], p_hat[rows], M, seed)
        assert same_bits(fast(*arguments), decide(*arguments))


def test_layouts(compiled, draw_inputs, layout):
    def decide(logits, targets):
        seen = rskernels.accept(logits, 0.2, 1.5, targets=targets, seed=9)
        dense = rskernels.accept(logits, 0.2, 1.5, seed=9)
        ratios = rskernels.bernoulli(logits, seed=9)
        return (*seen, *dense, rskernels.bernoulli_mask(logits, seed=9), *ratios)

    arguments = draw_inputs(layout)
    assert same_bits(compiled(decide)(*arguments), decide(*arguments))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_column_order(counted, backend):
    order = rskernels.ColumnOrder(torch.tensor([2, 0, 1]), 2500)

    def decide(logits, targets, M):
        law = {"targets": targets, "seed": 9, "order": order}
        finite = rskernels.accept_mask(logits, 4e-4, M, assume_finite=True, **law)
        return finite, rskernels.verify_mask(logits, 4e-4, M, **law)

    fast, counter = counted(decide, backend=backend, dynamic=True)
    logits = torch.randn(20, 2500, generator=torch.Generator().manual_seed(0))
    for N in (20, 7, 12):
        arguments = (logits[:N].clone(), torch.arange(N), 1.0 + N / 8)
        assert all(map(torch.equal, fast(*arguments), decide(*arguments)))
    assert counter.frame_count == 1


def test_draws_are_fresh_and_reproducible(compiled, backend):
    def draw(logits, targets):
        return rskernels.accept_mask(logits, 0.05, 1.0, targets=targets)

    logits, targets = torch.zeros(512, 10), torch.zeros(512, dtype=torch.int64)
    fast = compiled(draw, backend=backend)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = [fast(logits, targets) for _ in range(4)]
    assert all(not torch.equal(first[i], first[j]) for i in range(4) for j in range(i))
    assert all(150 < mask.sum() < 360 for mask in first)
    torch.manual_seed(3)
    assert all(torch.equal(mask, fast(logits, targets)) for mask in first)
    torch.set_rng_state(state)
    assert all(torch.equal(mask, fast(logits, targets)) for mask in first)
    if backend == "aot_eager":
        # Inductor draws from the same generator by an algorithm of its own.
        torch.manual_seed(3)
        assert all(torch.equal(mask, draw(logits, targets)) for mask in first)


def test_a_seed_drawn_from_a_generator_outside(compiled):
    def draw(logits, seed):
        return rskernels.accept_mask(logits, 0.05, 1.0, seed=seed)

    fast, generator = compiled(draw), torch.Generator().manual_seed(7)
    logits = torch.zeros(64, 10)
    seeds = [torch.randint(2**63 - 1, (1,), generator=generator) for _ in range(3)]
    masks = [fast(logits, seed) for seed in seeds]
    generator.manual_seed(7)
    want = [rskernels.accept_mask(logits, 0.05, 1.0, generator=generator) for _ in range(3)]
    assert all(map(torch.equal, masks, want))
    assert not torch.equal(masks[0], masks[1])


# More values than torch.compile compiles for before it gives up.
MANY = [1.0, *(0.3 + 0.1 * i for i in range(9))]
CHANGING = [
    ("M", MANY, False),
    ("M", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], False),
    ("M", [x - 0.95 for x in MANY], True),
    ("p_hat", [x / 5 for x in MANY], False),
    ("p_hat", [-x for x in MANY], True),
    ("temperature", MANY, False),
    ("row_offset", [0, 7, 2**40, 2**40 + 24], False),
    ("seed", [1, 2, -3, 4, 5, 6, 7, 2**62, 2**62 + 1, 12], False),
]


@pytest.mark.parametrize(("name", "values", "log_space"), CHANGING)
def test_changing_numbers(counted, draw_inputs, name, values, log_space):
    def decide(logits, targets, number):
        law = {"p_hat": -1.5 if log_space else 0.2, "M": 1.0, "seed": 1, name: number}
        law["log_space"] = log_space
        mask = rskernels.accept_mask(logits, targets=targets, **law)
        dense = rskernels.accept_mask(logits, **law)
        return (mask, dense, *rskernels.accept(logits, targets=targets, **law))

    logits, targets = draw_inputs()
    fast, counter = counted(decide)
    for number in values:
        assert same_bits(fast(logits, targets, number), decide(logits, targets, number))
    # Once for the first value, once for all others, once for those of another sign.
    signs = {number > 0 for number in values}
    assert counter.frame_count <= 1 + len(signs)


def test_all_numbers_change_at_once(counted, draw_inputs):
    def decide(logits, targets, q_hat, M, temperature, seed):
        law = {"targets": targets, "temperature": temperature, "seed": seed}
        seen = rskernels.verify(logits, q_hat, M, **law)
        dense = rskernels.verify_mask(logits, q_hat, M, **{**law, "targets": None})
        return (*seen, dense)

    fast, counter = counted(decide, backend="inductor", dynamic=True)
    for i in range(10):
        logits, targets = (part[: 2 + i % 3] for part in draw_inputs())
        arguments = (logits, targets, 0.1 + 0.05 * i, 1.0 + 0.2 * i, 0.6 + 0.1 * i, 40 + i)
        assert same_bits(fast(*arguments), decide(*arguments))
    assert counter.frame_count == 1


def test_other_arguments_may_change(compiled, draw_inputs):
    def decide(logits, targets, ignore_index, seed):
        law = {"targets": targets, "ignore_index": ignore_index, "seed": seed}
        return rskernels.accept(logits, 0.2, 1.0, **law)[3:]

    logits, targets = draw_inputs()
    fast = compiled(decide)
    for arguments in ((-100, 1), (1, 2), (2, 2**63 + 1), (3, 2**64 - 1)):
        assert same_bits(fast(logits, targets, *arguments), decide(logits, targets, *arguments))


@pytest.mark.parametrize("log_space", [False, True])
def test_bernoulli_with_changing_M(counted, draw_inputs, log_space):
    def decide(log_ratio, M):
        return rskernels.bernoulli_mask(log_ratio, M, log_space=log_space, seed=1)

    log_ratio = draw_inputs()[0]
    fast, counter = counted(decide)
    for M in (*MANY, 0.7):
        assert torch.equal(fast(log_ratio, M), decide(log_ratio, M))
    assert counter.frame_count <= 2


def test_sequences(counted):
    def decide(log_ratio, mask, M):
        padded = rskernels.accept_sequences(log_ratio, M, mask=mask, statistic="mean", seed=1)
        listed = rskernels.accept_sequences(list(log_ratio.unbind()), M, seed=1)
        prefix = rskernels.accept_prefix(log_ratio, M, mask=mask, seed=1)
        tokens = rskernels.bernoulli(log_ratio, M, mask=mask, seed=1)
        mean = rskernels.masked_mean(log_ratio, padded.token_mask, -1)
        return *padded, listed.mask, *listed.token_mask, prefix, *tokens, mean

    fast, counter = counted(decide)
    log_ratio = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    mask = log_ratio > -1
    for M in (*MANY, 0.7):
        assert same_bits(fast(log_ratio, mask, M), decide(log_ratio, mask, M))
    assert counter.frame_count <= 2


def test_a_changing_M_is_not_moved_to_a_device(compiled, draw_inputs):
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    fast = compiled(lambda x, M: rskernels.bernoulli_mask(x, M, seed=1), backend=keep, dynamic=True)
    fast(draw_inputs()[0], 0.7)
    # Such a copy waits for the device, and cannot be captured in a CUDA graph.
    assert [node.target for node in graphs[0].graph.nodes if node.target == "to"] == []


def test_gradient_with_changing_temperature(counted, draw_inputs):
    def loss(logits, targets, temperature):
        return rskernels.target_log_prob(logits, targets, temperature=temperature).square().sum()

    logits, targets = draw_inputs()
    fast, counter = counted(loss)
    for temperature in MANY:
        seen = []
        for function in (fast, loss):
            leaf = logits.clone().requires_grad_()
            value = function(leaf, targets, temperature)
            value.backward()
            seen.append((value.detach(), leaf.grad))
        (got, got_gradient), (want, want_gradient) = seen
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(got_gradient, want_gradient)
    assert counter.frame_count <= 2


@pytest.mark.parametrize("dynamic", [None, True])
def test_a_temperature_of_each_row(counted, draw_inputs, dynamic):
    def step(logits, targets, temperature, M):
        law = {"temperature": temperature, "seed": 9}
        seen = rskernels.accept(logits, 0.2, M, targets=targets, **law)
        dense = rskernels.accept(logits, 0.2, M, **law)
        log_prob = rskernels.target_log_prob(logits, targets, temperature=temperature)
        return log_prob, *seen, *dense

    logits, targets = draw_inputs()
    fast, counter = counted(step, dynamic=dynamic)
    for at, M in enumerate((1.5, 1.7, 1.9)):
        temperature = torch.linspace(0.3, 2.0 + at, targets.numel()).view(targets.shape)
        results = []
        for function in (fast, step):
            leaf = logits.clone().requires_grad_()
            log_prob, *decided = function(leaf, targets, temperature, M)
            log_prob.square().sum().backward()
            results.append((log_prob.detach(), *decided, leaf.grad))
        assert same_bits(*results)
    assert counter.frame_count <= 2


@pytest.mark.parametrize(("name", "value"), [("M", -1.0), ("p_hat", -0.5), ("temperature", 0.0)])
def test_changing_numbers_are_still_checked(compiled, draw_inputs, name, value):
    def decide(logits, number):
        return rskernels.accept_mask(logits, **{"p_hat": 0.2, "M": 1.0, "seed": 1, name: number})

    logits, fast = draw_inputs()[0], compiled(decide)
    for number in (0.5, 0.75):
        assert torch.equal(fast(logits, number), decide(logits, number))
    # torch.compile shows the line that raises, not the number.
    with pytest.raises(torch._dynamo.exc.Unsupported, match="must be"):
        fast(logits, value)


@pytest.mark.parametrize("name", ["seed", "row_offset", "ignore_index", "M", "temperature"])
def test_numpy_numbers_are_an_error_that_says_why(compiled, draw_inputs, name):
    np = pytest.importorskip("numpy")
    logits, targets = draw_inputs()

    def decide(number):
        law = {"p_hat": 0.2, "M": 1.0, "seed": 1, "targets": targets, name: number}
        return rskernels.accept_mask(logits, **law)

    message = f"{name} must be .*torch.compile makes an array of a NumPy number: give a Python one"
    with pytest.raises(torch._dynamo.exc.Unsupported, match=message):
        compiled(decide)(np.int64(2))
    # Where a graph may break, the call runs outside of it.
    torch._dynamo.reset()
    assert torch.equal(torch.compile(decide, backend="eager")(np.int64(2)), decide(2))
