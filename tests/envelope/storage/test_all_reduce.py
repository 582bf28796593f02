"""Envelope.all_reduce between real processes; what each of them checks is all_reduce_ranks.py."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from rskernels.envelope import Envelope

from ...support.ranks import run_script

RANKS = Path(__file__).with_name("all_reduce_ranks.py")


@pytest.mark.process
@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_every_rank_ends_with_what_one_process_would_hold(ranks):
    run_script(RANKS, ranks)


def test_no_process_group_is_an_error():
    envelope = Envelope()
    with pytest.raises(ValueError, match="process group has not been initialized"):
        envelope.all_reduce()
    envelope.update(torch.zeros(3))
    assert envelope.seen.item() == 3


def test_the_thread_that_reduces_changes_nothing_meanwhile(monkeypatch):
    """A handler of a signal may try: to wait for itself would hang."""
    envelope = Envelope()

    def meanwhile(group):
        envelope.update(torch.zeros(3))

    monkeypatch.setattr(dist, "get_rank", meanwhile)
    with pytest.raises(RuntimeError, match="in the thread that all-reduces it"):
        envelope.all_reduce()
    assert envelope.seen.item() == 0
    envelope.update(torch.zeros(3))
    assert envelope.seen.item() == 3
