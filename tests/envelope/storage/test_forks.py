"""Children of fork: each gets a whole envelope, whatever the other threads were at."""

import multiprocessing as mp
import os

import pytest
import torch

from rskernels.envelope import Envelope

from ...support.processes import run_python

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork"),
]

# Children that do not end within 90 s, of which they may compile for some, are ended, and counted.
CHILDREN = """
import os, signal, sys, threading, time, warnings
import torch
import rskernels
from rskernels import Envelope

warnings.simplefilter("ignore")  # of forks in a process of several threads

def fork(check):
    if child := os.fork():
        return child
    signal.alarm(90)
    try:
        torch.set_num_threads(1)
        check()
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)

def join(children):
    ends = [os.waitpid(child, 0)[1] for child in children]
    assert ends == [0] * len(ends), ends
"""


@pytest.mark.parametrize("groups", [1, 3])
def test_a_fork_while_threads_update(groups):
    run_python(f"""{CHILDREN}
n = 200_000
rows, ids = torch.randn(n), torch.arange(n) % {groups}
mask = rows > 0
share = mask.float().mean().item()  # here: torch's own threads do not outlive a fork
envelope, other = (Envelope("quantile", level=0.9, groups={groups}) for _ in range(2))
over = threading.Event()

def update():
    while not over.is_set():
        envelope.update(rows, ids, accepted=mask)

def merge():
    while not over.is_set():
        other.merge(Envelope("quantile", level=0.9, groups={groups}).merge(envelope))
        envelope.merge(Envelope("quantile", level=0.9, groups={groups})).report()

def check():
    state = envelope.report()
    # Every batch is there with its acceptances, or not at all.
    assert envelope.seen.sum() % n == 0, envelope.seen
    observed = state.overall["observed_acceptance"]
    assert envelope.seen.sum() == 0 or abs(observed - share) < 1e-6, observed
    for each in (envelope, other):
        each.update(rows, ids)
        each.M(ids), each.state_dict(), each.merge(envelope)

envelope.update(rows, ids, accepted=mask)
threads = [threading.Thread(target=run) for run in (update, update, merge)]
for thread in threads:
    thread.start()
children = []
def fork_some():
    for _ in range(3):
        time.sleep(0.02)
        children.append(fork(check))
forker = threading.Thread(target=fork_some)
forker.start()
fork_some()
forker.join()
over.set()
for thread in threads:
    thread.join()
join(children)
check()
""")


def test_a_fork_while_a_thread_makes_its_first_call():
    """It imports the kernels and compiles them, or loads what is compiled."""
    run_python(f"""{CHILDREN}
log_ratio = torch.randn(64)

def decide():
    rskernels.bernoulli_mask(log_ratio, seed=1)  # compiles fastest

first = threading.Thread(target=decide)
first.start()
children = []
for _ in range(3):
    time.sleep(0.01)
    children.append(fork(decide))
first.join()
join(children)
""")


def test_workers_of_a_data_loader():
    run_python(f"""{CHILDREN}
class Accepted(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        logits, targets = torch.randn(16, 50), torch.arange(16)
        seen = rskernels.accept(logits, 0.02, envelope.M(), targets=targets, seed=i)
        envelope.update(seen.log_ratio)
        return seen.mask.sum()

envelope = Envelope()
rows = torch.randn(200_000)
envelope.update(rows)
over = threading.Event()

def update():
    while not over.is_set():
        envelope.update(rows)

thread = threading.Thread(target=update)
thread.start()
try:
    loader = torch.utils.data.DataLoader(
        Accepted(), num_workers=2, multiprocessing_context="fork", timeout=60
    )
    assert len(list(loader)) == 4
finally:
    over.set()
    thread.join()
""")


def _double(envelope):
    return envelope.merge(envelope)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_an_envelope_goes_to_a_process_and_back(method):
    envelope = Envelope("budget", rate=0.5, half_life=9, groups=2, on_violation="thin")
    envelope.update(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0, 1, 1]))
    with mp.get_context(method).Pool(1) as pool:
        back = pool.apply_async(_double, (envelope,)).get(60)
    assert back.to_bytes() == envelope.merge(envelope).to_bytes()
    assert back.on_violation == "thin"
