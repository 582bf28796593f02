"""What must raise, and leave no trace: bad arguments, users' exceptions, Ctrl-C."""

from __future__ import annotations

import math
import signal

import numpy as np
import pytest
import torch

import rskernels
from rskernels import ColumnOrder, Envelope, RejectionError

from .calls import make_case
from .digest import digest_of


class UsersError(Exception):
    """Raised by what a user gave the sampler."""


def raise_by_argument(rng):
    """Give an operation what it does not take."""
    logits = torch.from_numpy(rng.standard_normal((300, 40), dtype=np.float32))
    targets = torch.from_numpy(rng.integers(40, size=300))
    outside = targets.clone()
    outside[int(rng.integers(300))] = 40
    log_ratio = logits[:, 0]
    errors = (
        (IndexError, lambda: rskernels.accept_mask(logits, 0.1, 1.0, targets=outside)),
        (IndexError, lambda: rskernels.target_log_prob(logits, outside)),
        (IndexError, lambda: rskernels.estimate_M(logits, 0.1, targets=outside)),
        (IndexError, lambda: Envelope("max", groups=3).update(log_ratio, targets)),
        (TypeError, lambda: rskernels.accept_mask(logits.long(), 0.1, 1.0)),
        (TypeError, lambda: rskernels.accept(logits, "0.1", 1.0, targets=targets)),
        (ValueError, lambda: rskernels.accept(logits, 0.1, -1.0, targets=targets)),
        (ValueError, lambda: rskernels.accept(logits, 0.1, 1.0, targets=targets[1:])),
        (ValueError, lambda: rskernels.bernoulli_mask(log_ratio, seed=1 << 64)),
        (ValueError, lambda: rskernels.estimate_M(logits, 0.0, targets=targets)),
        (ValueError, lambda: ColumnOrder(torch.tensor([0, 0]), 2000)),
        (ValueError, lambda: Envelope("quantile", level=2.0)),
        (ValueError, lambda: Envelope("max").merge(Envelope("leave_one_out"))),
        (ValueError, lambda: Envelope.from_bytes(Envelope("max").to_bytes()[:-1])),
        (ValueError, lambda: Envelope("max").load_state_dict({})),
    )
    expected, call = errors[int(rng.integers(len(errors)))]
    with pytest.raises(expected) as caught:
        call()
    assert len(str(caught.value)) > 10


def raise_in_callable(rng):
    """Raise from a user's density or proposal; a limit that is reached raises too."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**40)))
    error, place = UsersError(), int(rng.integers(4))
    left = int(rng.integers(1, 4))

    def failing(function, is_here):
        def call(argument):
            nonlocal left
            if is_here:
                left -= 1
                if left == 0:
                    raise error
            return function(argument)

        return call

    log_p = failing(lambda x: -0.5 * x.square(), place == 0)
    draw = failing(lambda n: 2.0 * torch.randn(n, generator=generator), place == 1)
    log_q = failing(lambda x: -0.125 * x.square(), place == 2)
    seed, most = (1 if rng.random() < 0.5 else None), 4000 if place == 3 else None
    options = {"batch_size": 64, "pilot": 64, "max_proposals": most, "seed": seed}
    with pytest.raises(RejectionError if place == 3 else UsersError) as caught:
        rskernels.rejection_sample(log_p, (draw, log_q), 10_000, log_M=math.log(3), **options)
    assert place == 3 or caught.value is error


class Alarm(Exception):
    """Raised by a signal's handler, as a timeout would be."""


class Interrupts:
    """Ctrl-C, or a timeout, in the main thread at a random time of a call, by a timer's signal."""

    def __init__(self):
        self._is_armed = False
        self._error: type[BaseException] = KeyboardInterrupt
        self.raised = 0
        signal.signal(signal.SIGALRM, self._ring)

    def _ring(self, number, frame):
        if self._is_armed:
            raise self._error

    def interrupt(self, rng, seed):
        """Interrupt a case, then make it again and compare."""
        kinds = ("accept", "dense", "target_log_prob", "envelope", "rejection_sample")
        case = make_case(str(rng.choice(kinds)), seed, int(rng.integers(1000)))
        want = digest_of(case.call())
        self._error = Alarm if rng.random() < 0.5 else KeyboardInterrupt
        try:
            self._is_armed = True
            signal.setitimer(signal.ITIMER_REAL, float(10.0 ** rng.uniform(-5, -2)))
            case.call()
            self._is_armed = False
        except (Alarm, KeyboardInterrupt):
            self.raised += 1
        finally:
            self._is_armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            # What comes in the exit of torch's own no_grad leaves gradients off.
            torch.set_grad_enabled(True)
        assert digest_of(case.call()) == want
