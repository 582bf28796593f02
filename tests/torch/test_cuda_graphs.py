"""CUDA graphs: replays draw what eager calls would, and a whole training step is one graph.

That every operation draws afresh at each replay is shown in tests/kernels/gpu/test_device.py.
"""

import pytest
import torch

import rskernels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device"),
]

N, V = 512, 1000


def batch(seed=0):
    generator = torch.Generator("cuda").manual_seed(seed)
    logits = torch.randn(N, V, device="cuda", generator=generator)
    return logits, torch.randint(V, (N,), device="cuda", generator=generator)


def warm_up(call):
    """Run a call on a stream of its own: what it compiles cannot be compiled in a capture."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)


class Graph:
    """A captured draw from a generator, or from the default one."""

    def __init__(self, generator=None):
        logits, targets = batch()
        self.generator = generator
        self.draw = lambda: rskernels.accept_mask(
            logits, 0.5 / V, 1.0, targets=targets, generator=generator
        )
        warm_up(self.draw)
        self.graph = torch.cuda.CUDAGraph()
        if generator is not None:
            self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            self.mask = self.draw()

    def replay(self):
        self.graph.replay()
        return self.mask.clone()

    def seed(self, seed):
        (torch.cuda if self.generator is None else self.generator).manual_seed(seed)

    def state(self):
        source = torch.cuda.get_rng_state if self.generator is None else self.generator.get_state
        return source()

    def restore(self, state):
        is_default = self.generator is None
        (torch.cuda.set_rng_state if is_default else self.generator.set_state)(state)


@pytest.fixture(params=["default", "own"])
def graph(request):
    return Graph(torch.Generator("cuda") if request.param == "own" else None)


def test_replays_draw_what_eager_calls_do(graph):
    graph.seed(7)
    eager = [graph.draw() for _ in range(4)]
    graph.seed(7)
    assert all(torch.equal(graph.replay(), mask) for mask in eager)
    assert not torch.equal(eager[0], eager[1])
    # In turns, too.
    graph.seed(7)
    turns = [graph.replay(), graph.draw(), graph.replay(), graph.draw()]
    assert all(map(torch.equal, turns, eager))


def test_a_state_saved_and_restored_reproduces_replays(graph):
    graph.seed(7)
    graph.replay()
    state = graph.state()
    first = [graph.replay() for _ in range(3)]
    graph.restore(state)
    assert all(torch.equal(graph.replay(), mask) for mask in first)


def test_a_whole_training_step():
    # What a graph reads stays where it is.
    data, M = torch.zeros(N, 8, device="cuda"), torch.ones((), device="cuda")
    targets = torch.zeros(N, dtype=torch.int64, device="cuda")
    seed = torch.zeros(1, dtype=torch.int64, device="cuda")

    def trainer():
        torch.manual_seed(0)
        model = torch.nn.Linear(8, V).cuda()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

        def step():
            optimizer.zero_grad(set_to_none=True)
            logits = model(data)
            mask = rskernels.accept_mask(logits, 0.5 / V, M, targets=targets, seed=seed)
            log_prob = rskernels.target_log_prob(logits, targets)
            cross_entropy = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
            loss = ((cross_entropy - log_prob) * mask).sum() / mask.sum().clamp(min=1)
            loss.backward()
            optimizer.step()
            return loss, mask

        return model, step

    def train(model, step):
        with torch.no_grad():
            for n, parameter in enumerate(model.parameters()):
                generator = torch.Generator("cuda").manual_seed(n)
                parameter.normal_(generator=generator)
        seen = []
        for n in range(4):
            generator = torch.Generator("cuda").manual_seed(n)
            data.normal_(generator=generator)
            targets.random_(V, generator=generator)
            seed.fill_(n)
            M.fill_(1.0 + n / 4)
            seen.append([part.detach().clone() for part in step()])
        return seen, [parameter.detach().clone() for parameter in model.parameters()]

    want, want_parameters = train(*trainer())
    model, step = trainer()
    warm_up(step)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()

    def replay():
        graph.replay()
        return results

    got, parameters = train(model, replay)
    for (loss, mask), (want_loss, want_mask) in zip(got, want, strict=True):
        torch.testing.assert_close(loss, want_loss)
        assert torch.equal(mask, want_mask)
    for one, other in zip(parameters, want_parameters, strict=True):
        torch.testing.assert_close(one, other)
    assert 0 < sum(mask.sum() for _, mask in got) < 4 * N


def test_a_compiled_call_that_is_captured():
    logits, targets = batch()

    def draw(seed=None):
        return rskernels.accept_mask(logits, 0.5 / V, 1.0, targets=targets, seed=seed)

    torch.compiler.reset()
    fast = torch.compile(draw, fullgraph=True, mode="reduce-overhead")

    def masks(seed, **options):
        torch.cuda.manual_seed(seed)
        seen = []
        for _ in range(4):
            torch.compiler.cudagraph_mark_step_begin()
            seen.append(fast(**options).clone())
        return seen

    masks(1)  # warms up, then captures
    first, again = masks(1), masks(1)
    assert all(map(torch.equal, first, again))
    assert all(not torch.equal(first[i], first[j]) for i in range(4) for j in range(i))
    seed = torch.tensor([3], device="cuda")
    assert all(torch.equal(mask, draw(seed=3)) for mask in masks(1, seed=seed))


def test_a_generator_of_another_device_is_refused():
    logits = torch.zeros(3, 5)
    with pytest.raises(ValueError, match=r"generator is on cuda.*, the draw is on cpu"):
        rskernels.accept_mask(logits, 0.2, 1.0, generator=torch.Generator("cuda"))
    with pytest.raises(ValueError, match="generator is on cpu, the draw is on cuda"):
        rskernels.accept_mask(logits.cuda(), 0.2, 1.0, generator=torch.Generator())
