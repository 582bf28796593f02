"""Locks over forks, between threads and children."""

import contextlib
import gc
import itertools
import os
import sys
import threading
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


def test_a_lock_lives_no_longer_than_its_owner_after_a_fork():
    # Else every lock that one fork has taken would be taken by all that follow.
    lock = hold_over_forks(threading.RLock())
    known = weakref.ref(lock)
    forks._take_all()
    forks._give_back()
    del lock
    gc.collect()
    assert known() is None


def test_locks_have_one_order():
    first, second = (hold_over_forks(threading.RLock()) for _ in range(2))
    assert in_order((second, first)) == in_order((first, second)) == [first, second]


class Watched:
    """A lock that says when it is waited for."""

    def __init__(self):
        self._lock = threading.RLock()
        self.is_waited_for = threading.Event()

    def acquire(self):
        if not self._lock.acquire(blocking=False):
            self.is_waited_for.set()
            self._lock.acquire()
        return True

    def release(self):
        self._lock.release()


def test_who_holds_a_lock_may_register_another_while_a_fork_waits():
    outer = hold_over_forks(Watched())
    later = []
    forking = threading.Thread(target=lambda: (forks._take_all(), forks._give_back()), daemon=True)
    outer.acquire()
    forking.start()
    assert outer.is_waited_for.wait(20)
    later.append(hold_over_forks(threading.RLock()))
    with later[0]:
        pass
    outer.release()
    forking.join(20)
    assert not forking.is_alive()


def is_free(lock):
    """Say whether a thread that holds nothing can take a lock."""
    free = []

    def take():
        free.append(lock.acquire(blocking=False))
        if free[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return free[0]


def interrupted(calls, number):
    """Call hooks as CPython does, with Ctrl-C before this opcode of forks.py; say if it came."""
    left = number

    def count(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename != forks.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return count

    before = sys.gettrace()
    try:
        for call in calls:
            sys.settrace(count if left > 0 else before)
            with contextlib.suppress(KeyboardInterrupt):
                call()
    finally:
        sys.settrace(before)
    return number > 0 and left <= 0


@pytest.mark.parametrize("side", ["before", "after"])
def test_ctrl_c_between_any_two_opcodes_of_a_hook_leaks_no_lock(side):
    locks = [hold_over_forks(threading.RLock()) for _ in range(3)]
    locks += [forks._forking, forks._registering]
    at = {"before": 0, "after": 0}
    for number in itertools.count(1):
        at[side] = number
        came = interrupted([forks._take_all] * 2, at["before"])
        held = [not is_free(lock) for lock in locks]
        came = interrupted([forks._give_back] * 2, at["after"]) or came
        assert all(held), number
        assert all(map(is_free, locks)), number
        if not came:
            break
    forks._again.clear()
    assert number > 30


def test_a_lock_that_cannot_be_given_back_keeps_no_other():
    class Broken(Watched):
        def release(self):
            super().release()
            raise ValueError("mine")

    locks = [hold_over_forks(make()) for make in (threading.RLock, Broken, threading.RLock)]
    forks._take_all()
    with pytest.raises(ValueError, match="mine"):
        forks._give_back()
    assert all(is_free(lock) for lock in (locks[0], locks[2], forks._forking))


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.parametrize("signal", ["SIGINT", "SIGALRM"])
def test_ctrl_c_while_a_fork_waits_comes_after_it_in_the_parent(signal):
    """And so does what another signal's handler raises."""
    run_python(f"""
import os, signal, threading, time
from rskernels._python.forks import hold_over_forks

class Mine(Exception):
    pass

def ring(number, frame):
    raise Mine(number)

number = signal.{signal}
if number != signal.SIGINT:
    signal.signal(number, ring)
lock, inside = hold_over_forks(threading.RLock()), threading.Event()

def hold():
    with lock:
        inside.set()
        time.sleep(0.6)

holder = threading.Thread(target=hold)
holder.start()
inside.wait()
threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
came, child, parent = None, None, os.getpid()
try:
    child = os.fork()
    for _ in range(1000):
        pass
except (KeyboardInterrupt, Mine) as error:
    came = error
if os.getpid() != parent:
    os._exit(not (came is None and lock.acquire(blocking=False)))
assert isinstance(came, KeyboardInterrupt if number == signal.SIGINT else Mine), came
assert os.waitpid(-1, 0)[1] == 0
assert not holder.is_alive() or not holder.join()
ends = []

def fork_again():
    if (child := os.fork()) == 0:
        os._exit(0)
    ends.append(os.waitpid(child, 0)[1])

again = threading.Thread(target=fork_again, daemon=True)
again.start()
again.join(20)
assert ends == [0]
""")


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
