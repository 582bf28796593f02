"""The ranks of test_all_reduce.py: ``all_reduce_ranks.py COUNT`` forks as many and runs each."""

import math
import os
import signal
import sys
import tempfile
import threading
import time

import pytest
import torch
import torch.distributed as dist

from rskernels.envelope import Envelope
from rskernels.envelope.storage import Store
from rskernels.envelope.units import COUNTS, SUMS
from tests.support.ranks import run_ranks
from tests.support.states import columns

ROWS = 6000
OPTIONS = [
    {},
    {"groups": 5},
    {"groups": 70_000},
    {"policy": "fixed", "M": 1.5, "groups": 5},
    {"policy": "quantile", "level": 0.9, "groups": 5},
    {"policy": "quantile", "level": 0.9, "confidence": 0.9},
    {"policy": "budget", "rate": 0.3, "groups": 5},
    {"policy": "tail"},
    {"policy": "tail", "groups": 3},
]
# Of these the order of the rows, or those of the same batch, decide what becomes of a row.
AS_MERGED = [
    {"policy": "leave_one_out"},
    {"policy": "decayed", "half_life": 50.0, "groups": 5},
    {"policy": "quantile", "level": 0.9, "half_life": 50.0, "groups": 5},
    {"policy": "budget", "rate": 0.3, "half_life": 50.0, "groups": 5},
]


def draw(groups, rows=ROWS, has_outlier=True):
    """Return rows of every kind, with group 0 on rank 0 alone and group 1 with ratios 0 alone."""
    generator = torch.Generator().manual_seed(groups)
    log_ratio = 30 * torch.rand(rows, generator=generator, dtype=torch.float64).sqrt()
    log_ratio[::97], log_ratio[1::97], log_ratio[2::97] = math.nan, math.inf, -math.inf
    ids = torch.randint(groups, (rows,), generator=generator)
    log_ratio[ids == 1] = -math.inf
    if has_outlier:
        log_ratio[4] = 5000.0
    accepted = torch.rand(rows, generator=generator) < 0.5
    rank_of = torch.randint(dist.get_world_size(), (rows,), generator=generator)
    if groups > 1:
        rank_of[ids == 0] = 0
    return log_ratio, ids, accepted, rank_of


def fill(options, chosen=None):
    """Return an envelope of the chosen rows, decided in two batches where M does not learn."""
    envelope = Envelope(**options)
    # A tail is cut past 8191 rows, and one with an outlier has no end.
    is_tail = envelope.policy == "tail"
    rows = draw(envelope.groups, 10 * ROWS, False) if is_tail else draw(envelope.groups)
    log_ratio, ids, accepted, rank_of = rows
    is_chosen = torch.full(rank_of.shape, True) if chosen is None else rank_of == chosen
    for part in is_chosen.nonzero().tensor_split(2 if envelope.policy == "fixed" else 1):
        at = part[:, 0]
        envelope.update(log_ratio[at], ids[at], accepted=accepted[at])
    return envelope


def count_collectives(call):
    """Return how many collectives a call made."""
    calls = []
    names = ("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "broadcast")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            whole = getattr(dist, name)
            patch.setattr(
                dist, name, lambda *a, whole=whole, **k: (calls.append(1), whole(*a, **k))[1]
            )
        call()
    return len(calls)


def assert_same_on_all_ranks(envelope):
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, envelope.to_bytes())
    assert all(data == everyone[0] for data in everyone)


def refuse(store):
    raise IndexError("a group id lies outside")


def others_meanwhile(rank):
    """While rank 0 waits for the others its other threads read and fork, and updates come after."""
    group = dist.new_group()
    envelope, other, rows = fill({}, rank), Envelope(), torch.zeros(3)
    if rank == 0:
        seen = envelope.seen.item()
        calls = ((envelope.all_reduce, group), (envelope.update, rows), (envelope.merge, other))
        threads = [threading.Thread(target=call, args=[given]) for call, given in calls]
        threads[0].start()
        while envelope._store.reducing is None:
            time.sleep(0.001)
        for thread in threads[1:]:
            thread.start()
            thread.join(0.1)
        assert other.merge(envelope).seen.item() == envelope.seen.item() == seen
        if (child := os.fork()) == 0:
            signal.alarm(20)
            envelope.merge(other).update(rows)
            os._exit(envelope.seen.item() != 2 * seen + 3)
        assert os.waitpid(child, 0)[1] == 0
    dist.barrier()
    if rank == 0:
        for thread in threads:
            thread.join()
    else:
        envelope.all_reduce(group)
    more = seen + 3 if rank == 0 else 0
    assert envelope.seen.item() == fill({}).seen.item() + more


def main():
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for options in OPTIONS:
        envelope, whole = fill(options, rank), fill(options)
        assert count_collectives(envelope.all_reduce) <= 2
        assert_same_on_all_ranks(envelope)
        got, want = columns(envelope), columns(whole)
        assert got.keys() == want.keys()
        for name in got:
            if name in SUMS or name == "bin_mass":
                torch.testing.assert_close(got[name], want[name], rtol=1e-12, atol=0)
            elif isinstance(got[name], torch.Tensor):
                assert torch.equal(got[name], want[name]), (options, name)
        rtol = 1e-12 if options.get("policy") == "budget" else 0
        torch.testing.assert_close(
            envelope.log_M(), whole.log_M(), rtol=rtol, atol=0, equal_nan=True
        )
        if envelope.policy == "tail":
            # Of several groups the second has ratios 0 alone.
            ends = envelope.log_M().view(-1)[::2]
            assert ((ends > 29.99) & (ends < 30.1)).all()
            assert len(got["tail"]) == 4096

    for options in AS_MERGED:
        envelope = fill(options, rank).all_reduce()
        assert_same_on_all_ranks(envelope)
        merged = fill(options, 0)
        for other in range(1, ranks):
            merged.merge(fill(options, other))
        got, want = columns(envelope), columns(merged)
        for name in got:
            if name in (*COUNTS, "max_log_ratio", "decayed_log_M", "bin_edge", "bin_start"):
                assert (name in got) == (name in want)
                assert name not in got or torch.equal(got[name], want[name]), (options, name)
        torch.testing.assert_close(envelope.log_M(), merged.log_M(), rtol=1e-12, atol=1e-12)

    # Ranks without rows, and a group that leaves the last rank out.
    envelope = fill({}, 0) if rank == 0 else Envelope()
    assert_same_on_all_ranks(envelope.all_reduce())
    assert torch.equal(envelope.seen, fill({}, 0).seen)
    some = dist.new_group(list(range(ranks - 1)))
    envelope = fill({}, rank)
    before = envelope.to_bytes()
    if rank < ranks - 1:
        envelope.all_reduce(some)
        assert envelope.seen.item() == (draw(1)[3] < ranks - 1).sum()
    else:
        with pytest.raises(ValueError, match="not in the group"):
            envelope.all_reduce(some)
        assert envelope.to_bytes() == before

    for options in (
        {"policy": "fixed", "M": 1.0 + rank},
        {"groups": 2 + 1000 * rank},
        {"policy": "budget", "rate": 0.5} if rank == 0 else {"policy": "tail", "groups": 7},
    ):
        envelope = Envelope(**options)
        before = envelope.to_bytes()
        message = "the ranks hold envelopes of different options; rank"
        with pytest.raises(ValueError, match=message):
            envelope.all_reduce()
        assert envelope.to_bytes() == before

    # A rank that cannot read its rows, as one whose rows on a GPU have an id outside.
    envelope = fill({}, rank)
    before = envelope.to_bytes()
    is_broken = rank == ranks - 1
    with pytest.MonkeyPatch.context() as patch:
        if is_broken:
            patch.setattr(Store, "core", property(refuse))
        with pytest.raises(IndexError if is_broken else RuntimeError, match=r"outside|of rank"):
            envelope.all_reduce()
    assert envelope.to_bytes() == before
    others_meanwhile(rank)
    dist.barrier()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(not run_ranks(int(sys.argv[1]), f"{folder}/store", main))
