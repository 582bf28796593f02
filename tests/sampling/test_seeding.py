"""``rejection_sample`` with a seed: every generator is put back as it was."""

import threading

import pytest
import torch
from torch.distributions import Laplace, Normal

from rskernels import rejection_sample

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
