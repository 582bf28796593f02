"""Faults that are planted to see the soak catch them, each a thing that threads do at times."""

from __future__ import annotations

import os
import threading

import torch

from . import calls

_kept = []


def leak_memory():
    """Keep what nobody reads."""
    _kept.append(torch.zeros(1 << 20))


def leak_objects():
    """Keep what takes no room."""
    _kept.extend([] for _ in range(2000))


def leak_thread():
    """Begin what never ends."""
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def leak_file():
    """Open and not close."""
    _kept.append(os.open(os.devnull, os.O_RDONLY))


def leak_child():
    """Leave a zombie."""
    if os.fork() == 0:
        os._exit(0)


def hang():
    """Wait in a call for what never comes."""
    calls.CASES["uniforms"] = lambda rng: calls.Case(threading.Event().wait)


def hang_in_child():
    """Hold a lock while forking, which a child then waits for."""
    held = threading.Lock()
    os.register_at_fork(before=held.acquire, after_in_child=held.acquire)
    os.register_at_fork(after_in_parent=held.release)


def decide_wrongly():
    """Turn a decision over where two threads decide at once."""
    whole, alone = calls.rskernels.accept_mask, threading.Semaphore(1)

    def accept_mask(*args, **law):
        is_alone = alone.acquire(blocking=False)
        mask = whole(*args, **law)
        if is_alone:
            alone.release()
        elif mask.numel() > 0:
            mask.view(-1)[-1] ^= True
        return mask

    calls.rskernels.accept_mask = accept_mask


# By what the option is called: what threads do at times, and what is done once.
REPEATED = {
    "leak-memory": leak_memory,
    "leak-objects": leak_objects,
    "leak-thread": leak_thread,
    "leak-file": leak_file,
    "leak-child": leak_child,
}
ONCE = {"hang": hang, "hang-in-child": hang_in_child, "wrong": decide_wrongly}
