"""Faults planted in the selection, one at a time: a test of it must catch each."""

import pytest
import torch

from rskernels.select import decide, forms
from rskernels.select.pilot import Pilot, Standing

from . import test_law as laws

weigh, draw, standing = forms.weigh, decide.bernoulli_mask, Pilot.standing


def by_its_own_rows(*given):
    weighted = weigh(*given)
    return weighted._replace(log_ratio=weighted.log_ratio - weighted.log_ratio.max())


def without_beta(form, rewards, groups, beta, options):
    return weigh(form, rewards, groups, 1.0, options)


def by_place(log_ratio, *, ids, **law):
    return draw(log_ratio, ids=torch.arange(len(ids)), **law)


def by_short_ids(log_ratio, *, ids, **law):
    return draw(log_ratio, ids=ids % 64, **law)


def by_strict_ranks(self, *given):
    below, _ = standing(self, *given)
    return Standing(below, below)


def by_weak_ranks(self, *given):
    _, up_to = standing(self, *given)
    return Standing(up_to, up_to)


def of_n(at, n):
    return forms_of_best(at, n + 1)


def without_ties(at, n):
    return (n - 1) * at.up_to.log()


forms_of_best = forms.of_best


def law(form):
    return lambda: laws.check_law(form, 200_000)


def orders(form):
    return lambda: laws.check_orders(form, 10_000)


FAULTS = {
    "M of the rows that it decides": (decide, "weigh", by_its_own_rows, orders("learnt")),
    "beta left out": (decide, "weigh", without_beta, law("bounded")),
    "ids by place": (decide, "bernoulli_mask", by_place, orders("verifier")),
    "ids of a few bits": (decide, "bernoulli_mask", by_short_ids, law("quantile")),
    "ranks of what is less": (Pilot, "standing", by_strict_ranks, law("quantile")),
    "ranks of what is less or equal": (Pilot, "standing", by_weak_ranks, law("quantile")),
    "the best of one more": (forms, "of_best", of_n, law("best_of")),
    "the best of n without ties": (forms, "of_best", without_ties, law("best_of")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(monkeypatch, name):
    place, attribute, fault, check = FAULTS[name]
    check()
    monkeypatch.setattr(place, attribute, fault)
    with pytest.raises(AssertionError):
        check()
