"""Locks over forks, between threads and children."""

import gc
import os
import threading
import time
import weakref

import pytest

from rskernels._python import forks
from rskernels._python.forks import hold_over_forks, in_order

from ..support.processes import run_python


def test_a_lock_lives_no_longer_than_its_owner():
    lock = hold_over_forks(threading.RLock())
    known = weakref.ref(lock)
    del lock
    gc.collect()
    assert known() is None


def test_locks_have_one_order():
    first, second = (hold_over_forks(threading.RLock()) for _ in range(2))
    assert in_order((second, first)) == in_order((first, second)) == [first, second]


def test_who_holds_a_lock_may_register_another_while_a_fork_waits():
    outer = hold_over_forks(threading.RLock())
    later = []
    forking = threading.Thread(target=lambda: (forks._take_all(), forks._give_back()), daemon=True)
    with outer:
        forking.start()
        while not outer_is_waited_for(forking):
            time.sleep(0.001)
        later.append(hold_over_forks(threading.RLock()))
        with later[0]:
            pass
    forking.join(20)
    assert not forking.is_alive()
    assert forks._taken == []


def outer_is_waited_for(thread):
    """Say whether the thread has come to a lock and is held up there."""
    time.sleep(0.05)
    return thread.is_alive()


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_child_finds_every_lock_free_and_what_it_guards_whole():
    run_python("""
import os, signal, threading, time
from rskernels._python.forks import hold_over_forks

lock, half = hold_over_forks(threading.RLock()), [0, 0]

def change():
    while True:
        with lock:
            half[0] += 1
            time.sleep(0.001)
            half[1] += 1

threading.Thread(target=change, daemon=True).start()
for _ in range(20):
    if (child := os.fork()) == 0:
        signal.alarm(20)
        with lock:
            os._exit(half[0] != half[1])
    assert os.waitpid(child, 0)[1] == 0
""")
