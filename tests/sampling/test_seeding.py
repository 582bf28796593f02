"""``rejection_sample`` with a seed: every generator is put back as it was."""

import threading

import pytest
import torch
from torch.distributions import Laplace, Normal

from rskernels import rejection_sample

from ..support.processes import run_python

TARGET, PROPOSAL = Normal(0.0, 1.0), Laplace(0.0, 1.0)


def draw(proposal=PROPOSAL, seed=7, **options):
    return rejection_sample(TARGET, proposal, 500, seed=seed, **options).samples


def queued_seed():
    """Return the seed that CUDA devices get when one is first used."""
    calls = [call for call in torch.cuda._lazy_seed_tracker.get_calls() if call]
    cells = dict(zip(calls[-1][0].__code__.co_freevars, calls[-1][0].__closure__, strict=True))
    return cells["seed"].cell_contents


def failing(n):
    raise KeyboardInterrupt


@pytest.mark.skipif(torch.cuda.is_initialized(), reason="nothing is queued for a device in use")
@pytest.mark.parametrize("is_available", [False, True])
def test_the_seed_queued_for_cuda_stays(monkeypatch, is_available):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available)
    torch.manual_seed(1234)
    draw()
    assert queued_seed() == 1234
    with pytest.raises(KeyboardInterrupt):
        draw((failing, PROPOSAL.log_prob))
    assert queued_seed() == 1234


@pytest.fixture
def device(monkeypatch):
    """Two devices whose generators are the CPU's; the first use is what ``use`` is set for."""
    state = {"used": False}
    generators = (torch.Generator(), torch.Generator())

    def use():
        if not state["used"]:
            state["used"] = True
            for call in filter(None, torch.cuda._lazy_seed_tracker.get_calls()):
                call[0]()
        return generators

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: state["used"])
    monkeypatch.setattr("torch.cuda.random.device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "default_generators", generators, raising=False)
    return use


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has the test below")
@pytest.mark.parametrize("is_used_before", [False, True])
def test_devices_draw_by_the_seed_and_are_put_back(device, is_used_before):
    torch.manual_seed(1234)
    if is_used_before:
        device()

    def sample(n):
        loc = torch.randn(n, generator=device()[1])
        return loc.clamp(-4.0, 4.0)

    proposal = (sample, TARGET.log_prob)
    first = draw(proposal, batch_size=100)
    expected = torch.Generator().manual_seed(1234).get_state()
    for generator in device():
        assert torch.equal(generator.get_state(), expected)
    assert torch.equal(draw(proposal, batch_size=100), first)
    assert len(first.unique()) == len(first)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_by_the_seed_and_is_put_back():
    def sample(n):
        return torch.randn(n, device="cuda")

    torch.manual_seed(1234)
    before = torch.cuda.get_rng_state()
    first = draw((sample, TARGET.log_prob), batch_size=100)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.equal(draw((sample, TARGET.log_prob), batch_size=100), first)


def test_a_target_that_draws_uses_the_callers_generator():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    seen = []

    def target(x):
        seen.append(torch.rand(()))
        return TARGET.log_prob(x)

    rejection_sample(target, PROPOSAL, 500, log_M=0.28, seed=7, batch_size=300)
    assert torch.equal(torch.stack(seen[:3]), expected[: len(seen)])


def test_threads_draw_what_one_draws_and_put_back_what_was():
    expected = {seed: draw(seed=seed, batch_size=50) for seed in range(4)}
    torch.manual_seed(1234)
    before = torch.get_rng_state()
    results, barrier = {}, threading.Barrier(4)

    def work(seed):
        barrier.wait()
        for _ in range(5):
            results[seed] = draw(seed=seed, batch_size=50)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.get_rng_state(), before)
    for seed, samples in expected.items():
        assert torch.equal(results[seed], samples)


def test_a_call_inside_of_a_proposal_changes_nothing_outside():
    inner = (lambda n: (draw(seed=1), PROPOSAL.sample((n,)))[1], PROPOSAL.log_prob)
    assert torch.equal(draw(inner, batch_size=200), draw(batch_size=200))


def test_the_default_device_is_none_of_the_seeds_business():
    expected = draw()
    with torch.device("meta"):
        assert torch.equal(draw(), expected)


# The sampler is another thread's, or a caller's of its own that goes on in the child.
FORK_IN_A_DRAW = """
import os, threading, torch
from torch.distributions import Normal
from rskernels import rejection_sample

torch.cuda.is_available = lambda: {is_available}
torch.manual_seed(1234)
expected = torch.rand(2)
torch.manual_seed(1234)
drawing, forked = threading.Event(), threading.Event()
normal = Normal(0.0, 1.0)

def queued_seed():
    call = [call for call in torch.cuda._lazy_seed_tracker.get_calls() if call][-1][0]
    return dict(zip(call.__code__.co_freevars, call.__closure__))["seed"].cell_contents

def fork():
    if (child := os.fork()) == 0:
        try:
            work()
        finally:
            os._exit(9)
    assert os.waitpid(child, 0)[1] == 0

def draw(sample, seed=7):
    return rejection_sample(normal, (sample, normal.log_prob), 10, log_M=0.1, seed=seed).samples

def work():
    assert torch.equal(torch.rand(1), expected[:1])
    assert queued_seed() == 1234
    draw(normal.sample_n)
    assert torch.equal(torch.rand(1), expected[1:])
    os._exit(0)

def pausing(n):
    drawing.set()
    forked.wait()
    return torch.randn(n)

def inner(n):
    draw(pausing, seed=8)
    return torch.randn(n)

for sample in (pausing, inner):
    drawing.clear(), forked.clear()
    other = threading.Thread(target=draw, args=(sample,), daemon=True)
    other.start()
    drawing.wait()
    fork()
    forked.set()
    other.join()

plain = draw(torch.randn)

def forking(n):
    global child
    child = os.fork()
    return torch.randn(n)

torch.manual_seed(1234)
same = torch.equal(draw(forking), plain)
if child == 0:
    try:
        assert same
        work()
    finally:
        os._exit(9)
assert same and os.waitpid(child, 0)[1] == 0
assert torch.equal(torch.rand(2), expected)
"""


@pytest.mark.process
@pytest.mark.parametrize("is_available", [False, True])
@pytest.mark.skipif(torch.cuda.is_available(), reason="seeds are queued for no device in use")
def test_a_child_has_the_generators_that_its_thread_had(is_available):
    run_python(FORK_IN_A_DRAW.format(is_available=is_available))


FORK_IN_MANY_DRAWS = """
import os, threading, time, torch
from torch.distributions import Normal
from rskernels import rejection_sample

drawing, done = threading.Event(), threading.Event()
normal = Normal(0.0, 1.0)

def sample(n):
    drawing.set()
    for _ in range(8):
        torch.randn(1 << 18)
    return torch.randn(n)

def draw():
    while not done.is_set():
        rejection_sample(normal, (sample, normal.log_prob), 10, log_M=0.1, seed=7)

other = threading.Thread(target=draw, daemon=True)
other.start()
drawing.wait()
for _ in range(10):
    if (child := os.fork()) == 0:
        torch.rand(1)
        os._exit(0)
    end = time.monotonic() + 20
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.kill(child, 9)
            os._exit(8)
        time.sleep(0.001)
done.set()
other.join()
"""


@pytest.mark.process
def test_a_child_can_draw_whatever_was_drawn_as_it_was_made():
    run_python(FORK_IN_MANY_DRAWS)
