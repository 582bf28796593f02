"""The CPU kernels on torch's team and on workers, after fork, and with any number of threads."""

import signal
import threading
import time

import pytest
import torch
from numba import njit

import rskernels
from rskernels.kernels.cpu import team
from rskernels.kernels.cpu import threads as threads_module
from rskernels.kernels.cpu.threads import SERIAL_WORK, run_units

from ..support.bits import same_bits
from ..support.processes import run_python

# Above the work that is shared among threads.
N, V = 6000, 200


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    # Of a batch of odd seed the columns do not lie side by side.
    shape = (V, N) if seed % 2 else (N, V)
    logits = torch.randn(shape, generator=generator)
    logits = logits.t() if seed % 2 else logits
    return logits, torch.randint(V, (N,), generator=generator)


def all_results(logits, targets):
    log_prob = rskernels.target_log_prob(logits.requires_grad_(), targets)
    (gradient,) = torch.autograd.grad(log_prob, logits, torch.linspace(-1, 1, N))
    logits.requires_grad_(False)
    return (
        *rskernels.accept(logits, 0.01, 1.5, targets=targets, seed=1),
        *rskernels.accept(logits, 0.01, 1.5, seed=1),
        rskernels.bernoulli_mask(logits, seed=1),
        log_prob.detach(),
        gradient,
    )


@pytest.fixture(params=[True, False], ids=["team", "workers"])
def has_team(request, monkeypatch):
    monkeypatch.setattr(threads_module, "_has_team", request.param)
    return request.param


def test_one_thread_and_all_give_the_same_bits(threads, has_team):
    arguments = batch()
    threads(1)
    alone = all_results(*arguments)
    for count in (2, 4, 16):
        threads(count)
        assert same_bits(all_results(*arguments), alone)


def test_concurrent_callers(threads, has_team):
    threads(2)
    batches = [batch(seed) for seed in range(5)]
    want = [all_results(*arguments) for arguments in batches]
    got = [[] for _ in batches]
    start = threading.Barrier(len(batches))

    def work(n):
        start.wait()
        for _ in range(3):
            got[n].append(all_results(*batches[n]))

    workers = [threading.Thread(target=work, args=(n,)) for n in range(len(batches))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert not worker.is_alive()
    for n, results in enumerate(got):
        assert len(results) == 3
        assert all(same_bits(one, want[n]) for one in results)


@njit(nogil=True)
def one_a_thread(share, arguments):
    return 1


@njit(nogil=True)
def failing(share, arguments):
    if share[4] == 64:
        raise ValueError
    return 0


def compiled(kernel):
    kernel((0, 1, 1, 1, 1), (0,))
    return kernel


def test_a_team_is_all_threads_of_torch(threads):
    assert team.parallel_address() != 0
    kernel = compiled(one_a_thread)
    for count in (2, 3, 2):
        threads(count)
        assert run_units(kernel, (64, 1, 64), SERIAL_WORK, 0) == count
        # Little work, or a single unit, is done by the caller.
        assert run_units(kernel, (64, 1, 64), SERIAL_WORK - 1, 0) == 1
        assert run_units(kernel, (1, 64, 64), SERIAL_WORK, 0) == 1


def test_a_team_makes_the_large_calls_of_every_kernel(threads, monkeypatch):
    arguments = batch()
    threads(2)
    all_results(*arguments)

    def refuse(kernel, *_):
        raise AssertionError(f"{kernel} does not run on the team")

    monkeypatch.setattr(threads_module, "_run_on_workers", refuse)
    all_results(*arguments)


def test_a_kernel_that_fails_on_a_team(threads):
    threads(2)
    kernel = compiled(failing)
    with pytest.raises(RuntimeError, match="a CPU kernel failed"):
        run_units(kernel, (64, 1, 64), SERIAL_WORK, 0)


def test_without_openmp_there_is_no_team(monkeypatch):
    monkeypatch.setattr(team, "REGION", "no_such_region")
    team.parallel_address.cache_clear()
    try:
        assert team.parallel_address() == 0
        monkeypatch.setattr(team, "_calls", {})
        assert team.team_call(compiled(one_a_thread)) is None
    finally:
        team.parallel_address.cache_clear()


def test_an_error_in_one_caller_is_its_own(threads, has_team):
    threads(2)
    logits, targets = batch()
    wrong = targets.clone()
    wrong[-1] = V
    errors, masks = [], []

    def work(own_targets):
        for _ in range(10):
            try:
                masks.append(rskernels.accept_mask(logits, 0.01, 1.0, targets=own_targets, seed=1))
            except IndexError as error:
                errors.append(str(error))

    workers = [
        threading.Thread(target=work, args=(own_targets,)) for own_targets in (targets, wrong)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert len(errors) == 10
    assert all(f"got {V}" in error for error in errors)
    assert len(masks) == 10
    assert all(torch.equal(mask, masks[0]) for mask in masks)


FRESH = """
import torch
torch.set_num_threads({count})
import rskernels
logits = torch.randn(6000, 200, generator=torch.Generator().manual_seed(0))
targets = torch.arange(6000) % 200
print(rskernels.accept_mask(logits, 0.01, 1.0, targets=targets, seed=1).sum().item(),
      rskernels.accept_mask(logits, 0.01, 1.0, seed=1).sum().item(),
      rskernels.accept_mask(logits.view(1, -1), 1e-5, 1.0, seed=1).sum().item())
"""


@pytest.mark.process
def test_first_call_with_any_number_of_threads():
    outputs = {run_python(FRESH.format(count=count)) for count in (1, 2)}
    assert len(outputs) == 1


FORK = """
import os, sys, torch
torch.set_num_threads(2)
import rskernels
logits = torch.randn(6000, 200, generator=torch.Generator().manual_seed(0))
targets = torch.arange(6000) % 200

def counts():
    return rskernels.accept(logits, 0.01, 1.0, targets=targets, seed=1).counts.tolist()

# The parent's worker threads are running when it forks.
before = counts() if {used} else None
children = []
for n in range(3):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, repr([counts(), counts()]).encode())
        os._exit(0)
    os.close(write)
    children.append((child, read))
after = counts()
for child, read in children:
    seen = b""
    while part := os.read(read, 4096):
        seen += part
    assert os.waitpid(child, 0)[1] == 0
    assert eval(seen) == [after, after], seen
assert before in (None, after)
print("done")
"""


@pytest.mark.process
@pytest.mark.parametrize("used", [False, True])
def test_fork(used):
    assert run_python(FORK.format(used=used), timeout=60).strip() == "done"


@pytest.mark.process
def test_dataloader_workers():
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, n):
            logits, targets = batch(n)
            return rskernels.accept_mask(logits, 0.01, 1.0, targets=targets, seed=n)

    want = [Rows()[n] for n in range(4)]
    loader = torch.utils.data.DataLoader(
        Rows(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    assert all(map(torch.equal, loader, want))


INTERRUPTED = """
import signal, threading, torch
torch.set_num_threads(3)
import rskernels
from rskernels.kernels.cpu import threads

logits = torch.randn(6000, 200, generator=torch.Generator().manual_seed(0))
targets = torch.arange(6000) % 200

def mask():
    return rskernels.accept_mask(logits, 0.01, 1.0, targets=targets, seed=1)

class Lock:
    # Ctrl-C comes as a wait is over, before its caller has gone on.
    def __init__(self):
        self.lock = threading.Lock()
        self.release = self.lock.release

    def acquire(self, blocking=True):
        if self.lock.acquire(False):
            return True
        if blocking:
            self.lock.acquire()
            signal.raise_signal(signal.SIGINT)
        return False

want, interrupts = mask(), 0
threads._has_team = False
threads.Lock, plain = Lock, threads.Lock
while interrupts < 3:
    try:
        mask()
    except KeyboardInterrupt:
        interrupts += 1
threads.Lock = plain
assert torch.equal(mask(), want)
print(interrupts)
"""


@pytest.mark.process
def test_an_interrupt_as_a_worker_ends_hangs_nothing():
    assert run_python(INTERRUPTED, timeout=60).strip() == "3"


class Alarm(Exception):
    """Raised by a signal's handler, as a timeout would be."""


def test_no_worker_outlasts_its_call_whatever_a_signal_raises(threads):
    threads(2)
    begun, over = threading.Event(), threading.Event()

    def kernel(share, arguments):
        if threading.current_thread() is threading.main_thread():
            begun.wait(30)
        else:
            begun.set()
            time.sleep(0.4)
            over.set()

    def ring(number, frame):
        if not over.is_set():
            raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        # The second comes while the first is held.
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        with pytest.raises(Alarm):
            run_units(kernel, (64, 1, 64), SERIAL_WORK)
        is_over = over.is_set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert is_over
