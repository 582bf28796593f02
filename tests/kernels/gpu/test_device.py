"""What only a GPU shows of the GPU kernels, at sizes that only a GPU takes.

The other tests that take a backend run on the GPU as well where there is one.
"""

import math

import pytest
import torch

import rskernels

from ...support.bits import same_bits
from ...support.cases import draw_case
from ...support.lawful import assert_lawful

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device"),
]

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
M = 2.0


def draw(N, V, dtype=torch.bfloat16, *, acceptance=0.5, spread=4.0, seed=0):
    """Return logits [N, V], targets and both densities, of ratios uniform up to 2·acceptance."""
    drawn = {"generator": torch.Generator("cuda").manual_seed(seed), "device": "cuda"}
    logits = torch.randn(N, V, dtype=torch.float32, **drawn).mul_(spread).to(dtype)
    targets = torch.randint(V, (N,), **drawn)
    log_q = log_prob(logits, targets)
    log_ratio = (2 * acceptance * torch.rand(N, dtype=torch.float64, **drawn)).log()
    return logits, targets, log_q + log_ratio, log_q - log_ratio


def log_prob(logits, targets):
    """Return log q of the targets in float64, a few rows at a time."""
    parts = [
        rows.double().log_softmax(-1).gather(-1, at[:, None])[:, 0]
        for rows, at in zip(logits.split(64), targets.split(64), strict=True)
    ]
    return torch.cat(parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("N", "V"), [(1, 151936), (64, 128256), (512, 32000), (300, 50257)])
def test_decisions_are_the_references(gpu, N, V, dtype):
    logits, targets, log_p = draw_case((N, V), dtype, seed=N)
    law = {"seed": 5, "log_space": True, "row_offset": 2**32 - 7}
    assert_lawful(gpu, logits, targets, log_p, 0.2, **law)
    assert_lawful(gpu, logits, targets, log_p, 0.2, model_is_target=True, **law)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("N", "V"), [(2, 151936), (300, 1000)])
def test_dense_decisions_are_the_references(gpu, N, V, dtype):
    logits, _, log_p = draw_case((N, V), dtype, seed=N, dense=True)
    assert_lawful(gpu, logits, None, log_p, 0.2, seed=5, log_space=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [32000, 50257])
def test_a_row_is_the_same_bits_in_every_layout_and_launch(V, dtype):
    logits, targets, log_p, _ = draw(600, V, dtype)
    law = {"log_space": True, "seed": 3}
    want = rskernels.accept(logits, log_p, 0.7, targets=targets, **law)[:3]

    def decide(rows, view):
        seen = rskernels.accept(
            view, log_p[rows], 0.7, targets=targets[rows], row_offset=rows.start, **law
        )
        return seen[:3]

    wide = torch.empty(600, 2 * V + 3, dtype=dtype, device="cuda")
    views = {
        "sliced": wide[:, 1 : V + 1],
        "padded": torch.empty(600, V + 128 - V % 128, dtype=dtype, device="cuda")[:, :V],
        "stepped": wide.clone()[:, 3::2],
        "transposed": torch.empty(V, 600, dtype=dtype, device="cuda").T,
    }
    for name, view in views.items():
        view.copy_(logits)
        for rows in (slice(0, 600), slice(5, 6), slice(7, 40)):
            part = tuple(values[rows] for values in want)
            assert same_bits(decide(rows, view[rows]), part), (name, rows)
            assert same_bits(decide(rows, logits[rows]), part), rows


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("acceptance", [0.001, 0.01, 0.1, 0.5, 1.0])
def test_lazy_decisions_are_the_full_passs(dtype, acceptance):
    logits, targets, _, log_q_hat = draw(4096, 32000, dtype, acceptance=acceptance)
    # Rows whose maximum comes last, that are far from 0, and that are partly or wholly -inf.
    logits[:100, -1] = logits[:100].amax(-1) + 8.0
    logits[100:200] *= 2500.0
    logits[200:300, ::2] = -math.inf
    logits[300:310] = -math.inf
    law = {"targets": targets, "log_space": True, "seed": 11}
    full = rskernels.verify(logits, log_q_hat, math.log(M), **law).mask
    lazy = rskernels.verify_mask(logits, log_q_hat, math.log(M), **law)
    assert torch.equal(full, lazy)
    assert not full[300:310].any()
    assert full.any()


def test_elements_and_rows_beyond_32_and_16_bits():
    V = 151936
    N = 2**31 // V + 50
    if torch.cuda.mem_get_info()[0] < 7 * 10**9:
        pytest.skip("needs 7 GB of free device memory")
    logits = torch.empty(N, V, dtype=torch.bfloat16, device="cuda").normal_()
    targets = torch.arange(N, device="cuda") * 37 % V
    law = {"seed": 3, "log_space": True}
    together = rskernels.accept(logits, -12.0, 0.0, targets=targets, **law)
    rows = slice(N - 20, N)
    alone = rskernels.accept(
        logits[rows].clone(), -12.0, 0.0, targets=targets[rows], row_offset=rows.start, **law
    )
    assert same_bits(alone[:3], tuple(part[rows] for part in together[:3]))


def test_more_rows_than_16_bits():
    # Every row accepts with certainty, and the last program's too.
    logits, targets = torch.zeros(70_000, 4, device="cuda"), torch.arange(70_000, device="cuda") % 4
    assert rskernels.accept_mask(logits, 0.25, 1.0, targets=targets).all()
    assert rskernels.accept_mask(logits, 0.25, 1.0).all()


def calls():
    """Return every decision by name, as a call that takes a seed or a generator."""
    logits, targets, log_p, log_q_hat = draw(300, 1000)
    law = {"targets": targets, "log_space": True}
    each = torch.linspace(0.5, 2.0, 300, device="cuda")
    ids = torch.arange(300, device="cuda") * 2**40
    log_ratio = 0.1 * torch.randn(300, 20, device="cuda") - 0.05
    starts = torch.arange(0, 6001, 20, device="cuda")
    drafts = torch.randint(1000, (300, 3), device="cuda")
    p, q = (torch.randn(300, K, 1000, device="cuda") for K in (4, 3))
    return {
        "accept_mask": lambda **draws: rskernels.accept_mask(logits, log_p, 0.7, **law, **draws),
        "verify_mask": lambda **draws: rskernels.verify_mask(
            logits, log_q_hat, 0.7, **law, **draws
        ),
        "accept": lambda **draws: rskernels.accept(logits, log_p, 0.7, **law, **draws).mask,
        "dense": lambda **draws: rskernels.accept_mask(logits, 5e-4, 1.0, **draws),
        "temperatures": lambda **draws: (
            rskernels.accept(logits, log_p, 0.7, temperature=each, **law, **draws).mask
        ),
        "dense temperatures": lambda **draws: rskernels.accept_mask(
            logits, 5e-4, 1.0, temperature=each, **draws
        ),
        "bernoulli_mask": lambda **draws: rskernels.bernoulli_mask(log_p - log_q_hat, **draws),
        "bernoulli": lambda **draws: rskernels.bernoulli(log_p - log_q_hat, **draws).mask,
        "ids": lambda **draws: rskernels.bernoulli_mask(log_p - log_q_hat, ids=ids, **draws),
        "padded": lambda **draws: rskernels.accept_sequences(log_ratio, 1.5, **draws).mask,
        "packed": lambda **draws: (
            rskernels.accept_sequences(
                log_ratio.flatten(), 1.5, cu_seqlens=starts, ids=ids, **draws
            ).mask
        ),
        "prefix": lambda **draws: rskernels.accept_prefix(log_ratio, **draws) > 5,
        "speculative": lambda **draws: (
            rskernels.speculative_sample(p, drafts, q, top_p=0.9, **draws).accepted > 0
        ),
        "block": lambda **draws: (
            rskernels.speculative_sample(p, drafts, q, method="block", **draws).accepted > 0
        ),
    }


NAMES = [
    "accept_mask", "verify_mask", "accept", "dense", "temperatures", "dense temperatures",
    "bernoulli_mask", "bernoulli", "ids", "padded", "packed", "prefix", "speculative", "block",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_nothing_waits_for_the_device(name):
    call, seed = calls()[name], torch.tensor([3], device="cuda")
    call(seed=seed), call()  # compile
    torch.cuda.set_sync_debug_mode("error")
    try:
        call(), call(seed=4), call(seed=seed)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_gradient_does_not_wait_for_the_device():
    logits, targets, _, _ = draw(300, 1000)
    leaf = logits.requires_grad_()
    rskernels.target_log_prob(leaf, targets).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        rskernels.target_log_prob(leaf, targets).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def capture(call, generator=None):
    """Return a graph of a call and what the call wrote."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()  # compiles, which a capture cannot
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    if generator is not None:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        result = call()
    return graph, result


def test_a_graph_refuses_a_list():
    rows = [torch.zeros(3, device="cuda"), torch.zeros(5, device="cuda")]
    with pytest.raises(NotImplementedError, match="packed"):
        capture(lambda: rskernels.accept_sequences(rows, 1.0, seed=1).mask)


def replays(graph, result, times=3):
    seen = []
    for _ in range(times):
        graph.replay()
        seen.append(result.clone())
    return seen


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("whose", ["default", "own"])
def test_a_graph_draws_afresh_at_every_replay_and_reproducibly(name, whose):
    own = torch.Generator("cuda") if whose == "own" else None
    call = calls()[name]
    graph, mask = capture(lambda: call(generator=own), own)

    def seen_from(seed):
        torch.cuda.manual_seed(seed) if own is None else own.manual_seed(seed)
        return replays(graph, mask)

    first, again, other = seen_from(1), seen_from(1), seen_from(2)
    assert all(map(torch.equal, first, again))
    masks = [*first, *other]
    for n, one in enumerate(masks):
        assert 0 < one.sum() < one.numel()
        assert not any(torch.equal(one, another) for another in masks[:n])


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_reads_its_seed_at_every_replay(name):
    call, seed = calls()[name], torch.tensor([0], device="cuda")
    graph, mask = capture(lambda: call(seed=seed))
    for value in (5, 6, 2**40):
        seed.fill_(value)
        assert torch.equal(replays(graph, mask, 1)[0], call(seed=value))


@pytest.mark.parametrize("name", NAMES)
def test_compiled_calls_are_the_eager_ones(name):
    call = calls()[name]
    torch.compiler.reset()
    compiled = torch.compile(call, fullgraph=True)
    assert torch.equal(compiled(seed=3), call(seed=3))
    first, second = compiled(), compiled()
    assert not torch.equal(first, second)


def test_a_compiled_training_step_is_the_eager_one():
    logits, targets, log_p, _ = draw(300, 1000, torch.float32)

    def step(leaf):
        mask = rskernels.accept_mask(leaf, log_p, 0.7, targets=targets, log_space=True, seed=3)
        return -(rskernels.target_log_prob(leaf, targets) * mask).sum() / mask.sum()

    gradients = []
    for run in (step, torch.compile(step, fullgraph=True)):
        leaf = logits.clone().requires_grad_()
        gradients += torch.autograd.grad(run(leaf), leaf)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0


@pytest.mark.parametrize(("N", "V"), [(4096, 128256), (64, 151936)])
def test_memory_is_a_few_bytes_a_row(N, V):
    logits, targets, log_p, log_q_hat = draw(N, V)
    law = {"targets": targets, "log_space": True}
    for call in (
        lambda: rskernels.accept_mask(logits, log_p, 0.7, **law),
        lambda: rskernels.verify_mask(logits, log_q_hat, 0.7, **law),
        lambda: rskernels.accept(logits, log_p, 0.7, **law),
    ):
        call()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        assert torch.cuda.max_memory_allocated() - before < 0.01 * logits.nbytes
