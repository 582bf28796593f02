"""Faults planted in the decider, one at a time: a test of it must catch each."""

import math

import pytest
import torch

from rskernels.integrations import decider
from rskernels.integrations.decider import Decider

from . import test_decider as tests


def plant(monkeypatch, name):
    """Put a fault in."""
    part, decide = Decider._part, Decider.decide

    if name == "ids by position in the micro-batch":
        monkeypatch.setattr(Decider, "_ids", lambda self, size, given: list(range(size)))
    elif name == "ids of all ranks alike":
        monkeypatch.setattr(
            Decider, "_ids", lambda self, size, given: list(range(self.count, self.count + size))
        )
    elif name == "one seed of all rules":
        start = Decider.__init__

        def alike(self, rule, *, seed=0, **more):
            start(self, rule, seed=seed, **more)
            self.draw_seed = seed

        monkeypatch.setattr(Decider, "__init__", alike)
    elif name == "the geometric mean for the product":
        monkeypatch.setattr(decider.Rule, "statistic", "mean")
    elif name == "a clamp a token":
        monkeypatch.setattr(
            Decider, "_part", lambda self, r, m, i, M: part(self, r.clamp(-0.5, 0.5), m, i, M)
        )
    elif name == "padding decided":
        monkeypatch.setattr(
            Decider, "decide", lambda self, r, m, ids=None: decide(self, r, torch.ones_like(m), ids)
        )
    elif name == "M of the batch itself":

        def learnt(self, r, m, i, M):
            self.envelope.update(r.sum(1).double())
            return part(self, r, m, i, self._log_M(None))

        monkeypatch.setattr(Decider, "_part", learnt)
    else:
        assert name == "a token's id without its sequence"
        draw = decider.bernoulli

        def without_sequence(*rest, ids, **law):
            return draw(*rest, ids=(ids >> 20) + (ids & (1 << 20) - 1), **law)

        monkeypatch.setattr(decider, "bernoulli", without_sequence)


def law():
    tests.test_accepted_sequences_have_the_law_of_the_target()


def splits():
    tests.test_micro_batches_padding_and_lists_change_nothing("seq_sum_bernoulli:1.5")


def learns_later():
    decider = Decider("seq_sum_bernoulli:max")
    decider.decide(torch.zeros(2, 1), torch.ones(2, 1))
    assert decider.decide(torch.ones(2, 1), torch.ones(2, 1)).log_M == 0.0
    assert decider.decide(torch.ones(2, 1), torch.ones(2, 1)).counts[1] == 0
    first = Decider("seq_sum_bernoulli:max")
    first.decide(torch.zeros(2, 1), torch.ones(2, 1))
    assert first.decide(torch.full((9, 1), 5.0), torch.ones(9, 1)).counts[1] == 9


def neighbours_share_no_draw():
    kept = Decider("token_bernoulli:1").decide(torch.full((400, 8), -0.7), torch.ones(400, 8))
    first, second = kept.token_mask[:-1, 1:].flatten(), kept.token_mask[1:, :-1].flatten()
    correlation = torch.corrcoef(torch.stack([first, second]).double())[0, 1]
    assert abs(correlation) < 5 / math.sqrt(len(first))


FAULTS = {
    "ids by position in the micro-batch": splits,
    "ids of all ranks alike": tests.test_ranks_seeds_rules_and_places_share_no_draw,
    "one seed of all rules": tests.test_ranks_seeds_rules_and_places_share_no_draw,
    "the geometric mean for the product": law,
    "a clamp a token": law,
    "padding decided": tests.test_nan_padding_and_empty_sequences_are_in_no_share,
    "M of the batch itself": learns_later,
    "a token's id without its sequence": neighbours_share_no_draw,
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(monkeypatch, name):
    FAULTS[name]()
    plant(monkeypatch, name)
    with pytest.raises(AssertionError):
        FAULTS[name]()
