"""What torch and C++ both compute: units of sums, merged tallies, tallies of a device."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rskernels.envelope import Envelope
from rskernels.envelope import envelope as module
from rskernels.envelope.units import (
    COUNTS,
    SUMS,
    TALLY,
    exponent_of,
    merge_tallies,
    power_of_two,
    unit_factors,
)

from ..support.states import columns

INF = math.inf
TAILS = {"tail", "group_tail", "group_tail_start"}
# Of one group no further apart than the powers of a double: the core weighs by one unit a group.
RATIO = st.floats(-300, 300) | st.sampled_from([-INF, INF, math.nan, 0.0, -0.0])
BATCH = st.lists(st.tuples(RATIO, st.integers(0, 2), st.booleans()), max_size=12)
POLICY = st.sampled_from([{}, {"policy": "fixed", "M": 1.5}])


def update(envelope, batch):
    ratios, ids, accepted = zip(*batch, strict=True) if batch else ((), (), ())
    envelope.update(
        torch.tensor(ratios, dtype=torch.float64),
        torch.tensor(ids, dtype=torch.int64),
        accepted=torch.tensor(accepted, dtype=torch.bool),
    )


def assert_same_tallies(ours, theirs):
    for name in TALLY:
        slack = 1e-12 if name in SUMS else 0.0
        # What underflows in units of the largest ratio is as good as 0.
        torch.testing.assert_close(ours[name], theirs[name], rtol=slack, atol=1e-100 * slack)


def test_the_fields_are_those_of_a_state():
    state = {name for name, column in columns(Envelope()).items() if hasattr(column, "dtype")}
    assert state == set(TALLY) | TAILS
    assert len(TALLY) == 1 + len(COUNTS) + len(SUMS)


@settings(deadline=None)
@given(st.floats(-1e6, 1e6) | st.sampled_from([-INF, 0.0, math.log(2.0), -math.log(2.0)]))
def test_the_exponent_is_that_of_the_core(log_ratio):
    envelope = Envelope()
    envelope.update(torch.tensor([log_ratio], dtype=torch.float64))
    state = columns(envelope)
    exponent = exponent_of(state["max_log_ratio"]).item()
    if log_ratio == -INF:
        assert (exponent, state["weight"].item()) == (0.0, 0.0)
    else:
        weight = math.exp(log_ratio - exponent * math.log(2.0))
        assert state["weight"].item() == pytest.approx(weight, rel=1e-8)
        assert state["square"].item() == pytest.approx(weight**2, rel=1e-8)
        assert 0.4999 < weight < 1.0001


@given(st.integers(-1074, 1023))
def test_powers_of_two_are_exact(exponent):
    power = power_of_two(torch.tensor(float(exponent), dtype=torch.float64))
    assert power.item() == math.ldexp(1.0, exponent)


def test_what_is_below_every_double_is_0_and_units_only_grow():
    exponent = torch.tensor([-1e9, -1075.0], dtype=torch.float64)
    assert power_of_two(exponent).tolist() == [0.0, 0.0]
    before, after = torch.tensor([0.0, 3.0]).double(), torch.tensor([2.0, -5.0]).double()
    factors = unit_factors(before, after)
    assert {name: factor.tolist() for name, factor in factors.items()} == {
        "weight": [0.25, 1.0],
        "square": [0.0625, 1.0],
        "decided_weight": [0.25, 1.0],
        "excess": [0.25, 1.0],
        "expected": [1.0, 1.0],
    }


@settings(deadline=None)
@given(POLICY, st.lists(BATCH, min_size=1, max_size=4))
def test_tallies_merge_as_in_the_core(options, batches):
    envelopes = [Envelope(groups=3, **options) for _ in batches]
    for envelope, batch in zip(envelopes, batches, strict=True):
        update(envelope, batch)
        update(envelope, batch)
    states = [columns(envelope) for envelope in envelopes]
    tallies = {name: torch.stack([state[name].double() for state in states]) for name in TALLY}
    whole = Envelope(groups=3, **options)
    for envelope in envelopes:
        whole.merge(envelope)
    assert_same_tallies(merge_tallies(tallies), columns(whole))


@settings(deadline=None, max_examples=40)
@given(POLICY, st.lists(BATCH, min_size=1, max_size=4))
def test_the_tally_of_a_device_is_that_of_the_core(options, batches):
    on_device, core = Envelope(groups=3, **options), Envelope(groups=3, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "stays_on_device", lambda rows: True)
        for batch in batches:
            update(on_device, batch)
    for batch in batches:
        update(core, batch)
    ours, theirs = columns(on_device), columns(core)
    assert_same_tallies(ours, theirs)
    for name in TAILS:
        assert torch.equal(ours[name], theirs[name])
