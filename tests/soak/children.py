"""Forks while other threads are at work: children that call, and end."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import sys
import threading
import time
import traceback

import torch

from .calls import make_case
from .digest import digest_of

# A sibling that is forked meanwhile would keep the pipe open.
_forking = threading.Lock()
PICTURE = signal.SIGUSR1  # shows every thread of a child that hangs


class ChildError(AssertionError):
    """A child ended badly, or not at all."""


def prepare():
    """Let the process and its children show their threads when they are asked to."""
    faulthandler.register(PICTURE, file=sys.__stderr__, all_threads=True)


def fork_and_call(work, patience):
    """Call ``work`` in a child of fork; raise ChildError if it raises or takes too long."""
    with _forking:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            _be_a_child(work, write)
        os.close(write)
    said = None
    try:
        said = _read_all(read, time.monotonic() + patience)
        if said is None:
            os.kill(child, PICTURE)
            time.sleep(0.5)
            raise ChildError(f"a child of fork hangs: it took more than {patience:g} s")
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            if said is None:
                os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise ChildError(f"a child of fork ended with {code}: {said.decode()}")


def _be_a_child(work, write):
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        os.write(write, traceback.format_exc().encode()[-4000:])
    finally:
        os._exit(code)


def _read_all(read, end):
    said = b""
    while True:
        if not select.select([read], [], [], max(0.0, end - time.monotonic()))[0]:
            return None
        part = os.read(read, 4096)
        if not part:
            return said
        said += part


def work_of_a_child(cases, shared, rng, most_threads):
    """Return what a child does: cases of known digests, in a thread too, and shared envelopes."""

    def call_cases():
        for name, case, digest in cases:
            assert digest_of(case.call()) == digest, f"{name} differs in a child of fork"

    def work():
        torch.set_num_threads(int(rng.integers(1, most_threads + 1)))
        for envelope in shared:
            envelope.forget_threads()
        call_cases()
        for _ in range(3):
            shared[int(rng.integers(len(shared)))].touch(rng)
        if rng.random() < 0.5:
            thread = threading.Thread(target=call_cases)
            thread.start()
            thread.join()

    return work


class CaseData(torch.utils.data.Dataset):
    """The digests of cases, as a loader's workers make them."""

    def __init__(self, names):
        self._names = names

    def __len__(self):
        return len(self._names)

    def __getitem__(self, n):
        digest = digest_of(make_case(*self._names[n]).call())
        return torch.tensor(list(digest), dtype=torch.uint8)


def load(names, patience):
    """Make cases in the two forked workers of a loader, and compare with this process's."""
    loader = torch.utils.data.DataLoader(
        CaseData(names), batch_size=None, num_workers=2,
        multiprocessing_context="fork", timeout=patience,
    )  # fmt: skip
    with _forking:
        results = iter(loader)
    for name, digest in zip(names, results, strict=True):
        want = digest_of(make_case(*name).call())
        assert bytes(digest.tolist()) == want, f"{name} differs in a loader's worker"
