"""Envelopes that every thread updates, reads, merges and saves at once."""

from __future__ import annotations

import copy
from threading import Lock

import numpy as np
import torch

import rskernels
from rskernels import Envelope

from .calls import draw_ratios

# Those whose M does not depend on the order of the batches, and two whose does.
KINDS = (
    {"policy": "max"},
    {"policy": "quantile", "level": 0.9, "groups": 3},
    {"policy": "budget", "rate": 0.5},
    {"policy": "fixed", "M": 1.5, "on_violation": "control"},
    {"policy": "leave_one_out"},
    {"policy": "decayed", "half_life": 100.0},
    {"policy": "tail"},
)
ORDERLY = ("max", "quantile", "budget", "fixed", "leave_one_out")
POOL = 16


class SharedEnvelope:
    """An envelope, and how often it was shown each batch of a pool."""

    def __init__(self, options, seed):
        self.options = {"groups": 1} | options
        self.envelope = Envelope(**options)
        rng = np.random.default_rng(seed)
        self.batches = [draw_ratios(rng, self.options["groups"], 500) for _ in range(POOL)]
        self.shown = [0] * POOL
        self._lock = Lock()
        self._partner = Envelope(**options)

    def touch(self, rng):
        """Do one thing of those that threads may do at any time."""
        envelope, choice = self.envelope, int(rng.integers(10))
        if choice < 4:
            self._show(int(rng.integers(POOL)), lambda batch: envelope.update(*batch))
        elif choice == 4:
            self._show(int(rng.integers(POOL)), self._merge)
        elif choice == 5:
            before = envelope.seen
            assert (envelope.seen >= before).all()
            assert str(envelope.report())
        elif choice == 6:
            self._read()
        elif choice == 7:
            before, fresh = envelope.seen, Envelope(**self.options)
            fresh.load_state_dict(envelope.state_dict())
            assert (fresh.seen >= before).all()
        elif choice == 8:
            assert copy.deepcopy(envelope).policy == envelope.policy
            assert Envelope.from_bytes(envelope.to_bytes()).groups == envelope.groups
        else:
            self._cross(rng)

    def forget_threads(self):
        """Make the soak's own lock anew in a child of fork."""
        self._lock = Lock()

    def _show(self, number, show):
        show(self.batches[number])
        with self._lock:
            self.shown[number] += 1

    def _merge(self, batch):
        fresh = Envelope(**self.options)
        fresh.update(*batch)
        self.envelope.merge(fresh)

    def _read(self):
        if self.options["policy"] == "tail":
            return
        ids = torch.arange(self.options["groups"])
        log_M = self.envelope.log_M(ids)
        M = self.envelope.M(ids)
        assert log_M.shape == M.shape
        if self.options["policy"] == "max":
            # Meanwhile it can only have grown.
            assert not (M.log() < log_M).any()
        mask = rskernels.bernoulli_mask(self.batches[0][0], M[0], seed=1)
        assert mask.dtype == torch.bool

    def _cross(self, rng):
        """Merge with the partner both ways; each copy of it is emptied soon, so counts stay low."""
        left, right = self._partner, copy.deepcopy(self.envelope)
        if rng.random() < 0.5:
            left, right = right, left
        left.merge(right)
        self._partner.merge(self._partner)
        if self._partner.seen.sum() > 100_000:
            self._partner.load_state_dict(Envelope(**self.options).state_dict())

    def settle(self):
        """Compare with an envelope that one thread showed the same; nobody may be using it."""
        want = Envelope(**self.options)
        for batch, times in zip(self.batches, self.shown, strict=True):
            for _ in range(times):
                want.update(*batch)
        got, expected = self.envelope.tallies(), want.tallies()
        for name in ("seen", "invalid", "max_log_ratio"):
            assert torch.equal(got[name], expected[name]), (self.options, name, got, expected)
        if self.options["policy"] in ORDERLY:
            ids = torch.arange(self.options["groups"])
            log_M, expected_M = self.envelope.log_M(ids), want.log_M(ids)
            near = (log_M - expected_M).abs() < 1e-9
            same = near | (log_M == expected_M) | (log_M.isnan() & expected_M.isnan())
            assert same.all(), (self.options, log_M, expected_M)
