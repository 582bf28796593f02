"""Envelope merged, saved, loaded and copied."""

import copy
import io
import math
import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rskernels.envelope import Envelope

from ...support.states import columns

INF = math.inf
NAN = math.nan


def ratios(*values):
    return torch.tensor(values, dtype=torch.float64)


SUMS = ("weight", "square", "decided_weight", "excess", "expected", "bin_mass", "bias")


def same(a, b, rtol=0.0):
    """Compare two envelopes through their states: to the bit, sums to rtol."""
    a, b = columns(a), columns(b)
    assert a.keys() == b.keys()

    def agree(name):
        if not isinstance(a[name], torch.Tensor):
            return a[name] == b[name]
        if a[name].shape != b[name].shape:
            return False
        slack = rtol if name in SUMS else 0.0
        # Sums are in units that the largest ratio gives; what underflows there is as good as 0.
        return torch.allclose(a[name], b[name], rtol=slack, atol=1e-30 * slack, equal_nan=True)

    return all(map(agree, a))


BATCH = st.lists(
    st.tuples(
        st.floats(allow_nan=True, allow_infinity=True, width=64) | st.floats(-20, 20),
        st.integers(0, 2),
    ),
    max_size=12,
)
POLICY = st.sampled_from(
    [
        {},
        {"policy": "fixed", "M": 2.0},
        {"policy": "leave_one_out"},
        {"policy": "decayed", "half_life": 3.0},
        {"policy": "quantile", "level": 0.3},
        {"policy": "quantile", "level": 0.3, "confidence": 0.9},
        {"policy": "budget", "rate": 0.5},
        {"policy": "tail"},
    ]
)


def grouped(options, batch):
    envelope = Envelope(groups=3, **options)
    values, ids = zip(*batch, strict=True) if batch else ((), ())
    envelope.update(torch.tensor(values, dtype=torch.float64), torch.tensor(ids, dtype=torch.int64))
    return envelope


@settings(deadline=None)
@given(POLICY, BATCH, BATCH, BATCH)
def test_merge_is_commutative_and_associative(options, x, y, z):
    def a():
        return grouped(options, x)

    def b():
        return grouped(options, y)

    def c():
        return grouped(options, z)

    assert same(a().merge(b()), b().merge(a()), 1e-12)
    assert same(a().merge(b()).merge(c()), a().merge(b().merge(c())), 1e-12)
    assert same(a().merge(Envelope(groups=3, **options)), a())


@settings(deadline=None)
@given(POLICY, BATCH, BATCH)
def test_merge_is_as_if_one_had_seen_both(options, x, y):
    merged = grouped(options, x).merge(grouped(options, y))
    both = grouped(options, x + y)
    if options.get("policy") != "decayed":
        torch.testing.assert_close(
            merged.log_M(), both.log_M(), rtol=1e-12, atol=1e-12, equal_nan=True
        )
    a, b = columns(merged), columns(both)
    for name in ("seen", "invalid", "max_log_ratio", "tail", "group_tail"):
        assert torch.equal(a[name], b[name])
    for name in ("weight", "square"):
        torch.testing.assert_close(a[name], b[name], rtol=1e-12, atol=1e-200)


# Seed, rows and law of a batch: a tail is fitted from 25 rows on, and cut past 8191.
LONG = st.tuples(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 60, 2000, 10_000]),
    st.sampled_from(["bounded", "atoms"]),
)


def with_tail(*batches):
    """Return an envelope of three groups, one of nearly all rows and one of none."""
    envelope = Envelope("tail", groups=3)
    for seed, rows, law in batches:
        generator = torch.Generator().manual_seed(seed)
        log_ratio = torch.rand(rows, generator=generator, dtype=torch.float64).log()
        if law == "atoms":
            log_ratio = (8 * log_ratio).ceil() / 8
        log_ratio[::17], log_ratio[1::17] = -INF, NAN
        envelope.update(log_ratio, (torch.rand(rows, generator=generator) < 0.02).long())
    return envelope


def known_log_M(envelope):
    """Return log M of every group, NaN where it has none; no finite M is NaN too."""
    return envelope.report().groups["log_M"]


@settings(deadline=None, max_examples=30)
@given(LONG, LONG, LONG)
def test_tails_merge_as_if_one_had_seen_all(x, y, z):
    a, b, c = with_tail(x), with_tail(y), with_tail(z)
    whole = with_tail(x, y, z)
    left = with_tail(x).merge(b).merge(c)
    right = with_tail(z).merge(with_tail(y).merge(a))
    assert same(left, right, 1e-12)
    assert same(with_tail(x).merge(Envelope("tail", groups=3)), a)
    held = columns(whole)
    for merged in (left, right):
        state = columns(merged)
        for name in ("seen", "invalid", "max_log_ratio", "tail", "group_tail", "group_tail_start"):
            assert torch.equal(state[name], held[name])
        torch.testing.assert_close(
            known_log_M(merged), known_log_M(whole), rtol=0, atol=0, equal_nan=True
        )
    lengths = [rows for _, rows, _ in (x, y, z)]
    positive = sum(n - len(range(0, n, 17)) - len(range(1, n, 17)) for n in lengths)
    assert len(held["tail"]) == min(4096, positive)
    if sum(lengths) >= 2000 and {law for *_, law in (x, y, z)} == {"bounded"}:
        assert known_log_M(whole)[0].isfinite()


@settings(deadline=None)
@given(BATCH)
def test_M_bounds_every_valid_ratio(batch):
    for options in ({}, {"policy": "quantile", "level": 1.0}):
        envelope = grouped(options, batch)
        for value, group in batch:
            if value < INF:
                assert envelope.log_M()[group].item() >= value


def test_merge_returns_self_and_refuses_other_options():
    envelope = Envelope("quantile", level=0.5, groups=2)
    assert envelope.merge(Envelope("quantile", level=0.5, groups=2)) is envelope
    for other in (
        Envelope(groups=2),
        Envelope("quantile", level=0.6, groups=2),
        Envelope("quantile", level=0.5, groups=3),
        Envelope("quantile", level=0.5, groups=2, half_life=5),
    ):
        with pytest.raises(ValueError, match=re.escape("the envelopes differ: this one is {'poli")):
            envelope.merge(other)
    with pytest.raises(TypeError, match="only an Envelope can be merged, got dict"):
        envelope.merge({})


def test_merge_with_itself_doubles():
    envelope = Envelope()
    envelope.update(ratios(1.0, NAN))
    assert envelope.merge(envelope).seen.tolist() == [4]


OPTIONS = [
    {},
    {"policy": "quantile", "level": 0.8, "groups": 4},
    {"policy": "quantile", "level": 0.8, "groups": 4, "half_life": 3.0},
    {"policy": "quantile", "level": 0.5, "confidence": 0.9},
    {"policy": "fixed", "M": 1.1, "on_violation": "control"},
    {"policy": "leave_one_out", "groups": 4},
    {"policy": "decayed", "groups": 4, "half_life": 5.0, "on_violation": "thin"},
    {"policy": "budget", "groups": 4, "rate": 0.3},
    {"policy": "budget", "rate": 0.3, "half_life": 20.0},
    {"policy": "tail"},
]


def filled(options):
    envelope = Envelope(**options)
    generator = torch.Generator().manual_seed(3)
    log_ratio = torch.randn(500, generator=generator) * 5
    log_ratio[:3] = torch.tensor([NAN, INF, -INF])
    # The last group stays empty.
    ids = torch.randint(0, max(1, envelope.groups - 1), (500,), generator=generator)
    envelope.update(log_ratio, ids)
    return envelope


@pytest.mark.parametrize("options", OPTIONS)
def test_state_survives_torch_save_pickle_and_copy(options):
    envelope = filled(options)
    file = io.BytesIO()
    torch.save([envelope.state_dict(), columns(envelope)], file)
    file.seek(0)
    # A state dict, and one as it was before it held bytes.
    loaded = [Envelope(**options) for _ in range(2)]
    for other, state in zip(loaded, torch.load(file, weights_only=True), strict=True):
        other.load_state_dict(state)
    copies = [*loaded, copy.deepcopy(envelope), pickle.loads(pickle.dumps(envelope))]
    before = columns(envelope)
    for other in copies:
        assert same(other, envelope)
        other.update(ratios(1.0), torch.tensor([0]))
    # Nothing is shared, and the future is the same too.
    assert torch.equal(columns(envelope)["seen"], before["seen"])
    assert torch.equal(columns(envelope)["weight"], before["weight"])
    envelope.update(ratios(1.0), torch.tensor([0]))
    assert all(same(other, envelope) for other in copies)


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (TypeError, "state must be a mapping, got list", lambda s: []),
        (ValueError, "state lacks ['seen'] and has unknown entries []", lambda s: s.pop("seen")),
        (ValueError, "unknown entries ['x']", lambda s: s.update(x=1)),
        (ValueError, "the envelopes differ", lambda s: s.update(level=0.5)),
        (ValueError, "the envelopes differ", lambda s: s.update(policy="max")),
        (TypeError, "state['seen'] must be a torch.int64 tensor, got list", "seen:list"),
        (TypeError, "state['seen'] must be a torch.int64 tensor, got ndarray", "seen:array"),
        (TypeError, "state['level'] must be a float or None, got ndarray", {"level": np.ones(2)}),
        (TypeError, "state['level'] must be a float or None, got str", {"level": "0.8"}),
        (TypeError, "state['groups'] must be an int, got Tensor", {"groups": torch.tensor(4)}),
        (TypeError, "state['groups'] must be an int, got ndarray", {"groups": np.array([4, 4])}),
        (TypeError, "state['policy'] must be a str, got ndarray", {"policy": np.array(["max"])}),
        (TypeError, "state['on_violation'] must be a str, got list", {"on_violation": ["cap"]}),
        (ValueError, "state['seen'] must hold its values in memory, got a Tensor of", "seen:meta"),
        (ValueError, "torch.strided on meta", "group_tail:none"),
        (ValueError, "of layout torch.sparse_coo on cpu", "bin_count:sparse"),
        (TypeError, "must be a torch.float64 tensor, got torch.float32", "bin_count:float"),
        (ValueError, "must have one dimension, got shape [1, 4]", "seen:unsqueeze"),
        (ValueError, "the state holds 3 groups, this envelope 4", "seen:short"),
        (ValueError, "group 0: a count is negative, or more than the rows", "invalid:neg"),
        (ValueError, "group 0: the histogram does not fit the counts", "bin_count:double"),
        (ValueError, "group 0: bin edges must be ascending multiples of 1/256", "bin_edge:flip"),
        (ValueError, "bin edges must be ascending multiples of 1/256, or -inf", "bin_edge:inf"),
        (ValueError, "bin_start, bin_edge and bin_count do not fit each other", "bin_edge:short"),
    ],
)
def test_load_refuses_and_changes_nothing(error, message, change):
    changes = {
        "list": lambda t: t.tolist(),
        "array": lambda t: t.numpy(),
        "meta": lambda t: t.to("meta"),
        "none": lambda t: t[:0].to("meta"),
        "sparse": lambda t: t.to_sparse(),
        "float": lambda t: t.float(),
        "unsqueeze": lambda t: t[None],
        "short": lambda t: t[:-1],
        "neg": lambda t: -t - 1,
        "double": lambda t: 2 * t,
        "flip": lambda t: t.flip(0),
        "inf": lambda t: torch.where(t == t.max(), INF, t),
    }
    envelope = filled(OPTIONS[1])
    before = copy.deepcopy(envelope)
    state = columns(envelope)
    if callable(change):
        result = change(state)
        state = result if isinstance(result, list) else state
    elif isinstance(change, dict):
        state.update(change)
    else:
        key, how = change.split(":")
        state[key] = changes[how](state[key])
    with pytest.raises(error, match=re.escape(message)):
        envelope.load_state_dict(state)
    assert same(envelope, before)


@pytest.mark.parametrize("options", OPTIONS)
def test_bytes_return_the_envelope(options):
    envelope = filled(options)
    data = envelope.to_bytes()
    assert same(Envelope.from_bytes(data), envelope)
    other = Envelope(**options)
    other.load_bytes(data)
    assert same(other, envelope)
    assert other.merge(envelope).seen.sum() == 2 * envelope.seen.sum()


def test_a_mass_that_no_envelope_holds_is_refused():
    envelope = Envelope("budget", rate=0.5)
    envelope.update(ratios(-INF, 0.0))
    state = columns(envelope)
    assert state["bin_edge"][0] == -INF
    state["bin_mass"][0] = 5e-324
    with pytest.raises(ValueError, match="ratios of 0 have no mass"):
        envelope.load_state_dict(state)


def test_bytes_that_are_no_envelope_change_nothing():
    envelope = filled(OPTIONS[1])
    before = copy.deepcopy(envelope)
    data = envelope.to_bytes()
    generator = torch.Generator().manual_seed(4)
    damaged = [data[:size] for size in range(0, len(data), 37)]
    for place in torch.randint(len(data), (200,), generator=generator).tolist():
        damaged.append(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
    for bad in damaged:
        with pytest.raises(ValueError, match=r"envelope|version"):
            envelope.load_bytes(bad)
    with pytest.raises(ValueError, match="version 2, this library reads version 1"):
        envelope.load_bytes(data[:8] + b"\x02" + data[9:])
    with pytest.raises(ValueError, match="the envelopes differ"):
        envelope.load_bytes(filled(OPTIONS[0]).to_bytes())
    with pytest.raises(TypeError):
        envelope.load_bytes([1, 2])
    assert same(envelope, before)
