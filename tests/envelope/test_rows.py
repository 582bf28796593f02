"""What rows an envelope takes: any layout of numbers, nothing without memory, all or none."""

import math
import sys

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rskernels import Envelope

RATIOS = np.linspace(-2.0, 1.0, 7)
IDS = np.arange(7) % 3


def kept_from_grad():
    kept = []
    torch.func.grad(lambda x: (kept.append(x), x.sum())[1])(torch.zeros(4))
    return kept[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch._efficientzerotensor(4),
        lambda: torch.empty(4, device="meta"),
        lambda: FakeTensorMode().from_tensor(torch.zeros(4)),
        lambda: torch.zeros(4).to_sparse(),
        kept_from_grad,
    ],
    ids=["zero", "meta", "fake", "sparse", "wrapped"],
)
@pytest.mark.filterwarnings("ignore")
def test_rows_without_memory_are_refused(make):
    envelope = Envelope()
    with pytest.raises(ValueError, match="log_ratio has no values to take M from"):
        envelope.update(make())
    assert envelope.seen == 0


@pytest.mark.parametrize("on_violation", ["cap", "control"])
@pytest.mark.parametrize(
    "lay",
    [
        lambda x: x[::-1],
        lambda x: np.repeat(x, 2)[::2],
        lambda x: np.asfortranarray(x[:, None])[:, 0],
        lambda x: x.astype(x.dtype.newbyteorder(">")),
        lambda x: np.broadcast_to(x, x.shape),
        lambda x: np.array([(0, x[0])], [("other", np.int8), ("x", x.dtype)])["x"],
    ],
    ids=["backwards", "strided", "column", "big endian", "read only", "one of records"],
)
def test_arrays_of_any_layout(lay, on_violation):
    ratios, ids, accepted = lay(RATIOS), lay(IDS), lay(RATIOS > 0)
    seen, plain = (Envelope(groups=3, on_violation=on_violation) for _ in range(2))
    for _ in range(2):
        weights = seen.update(ratios, ids, accepted=accepted)
        want = plain.update(
            torch.tensor(ratios.tolist(), dtype=torch.float64),
            torch.tensor(ids.tolist()),
            accepted=torch.tensor(accepted.tolist()),
        )
        assert (weights is None) == (want is None) == (on_violation == "cap")
        if weights is not None:
            torch.testing.assert_close(weights, want, rtol=0.0, atol=0.0, equal_nan=True)
    assert seen.to_bytes() == plain.to_bytes()


def test_a_batch_that_raises_has_not_been_taken_in():
    envelope = Envelope()
    with pytest.raises(ValueError, match="accepted must have the shape"):
        envelope.update(np.zeros(4), accepted=np.ones(3, bool))
    with pytest.raises(ValueError, match="accepted has no values"):
        envelope.update(np.zeros(4), accepted=torch.ones(4, dtype=torch.bool).to_sparse())
    assert envelope.seen == 0


@pytest.mark.parametrize("groups", [None, torch.zeros(3, dtype=torch.int64)])
def test_rows_that_are_none_are_refused(groups):
    envelope = Envelope()
    with pytest.raises(TypeError, match=r"log_ratio must be a NumPy array .*, got NoneType"):
        envelope.update(None, groups)
    assert envelope.seen == 0


def test_an_envelope_is_read_from_bytes_only():
    data = Envelope().to_bytes()
    for source in (bytearray(data), memoryview(data), data.decode("latin1")):
        for read in (Envelope.from_bytes, Envelope().load_bytes):
            with pytest.raises(TypeError, match="read from bytes, got"):
                read(source)


def test_control_without_an_M_weighs_nan_and_goes_on():
    heavy = torch.distributions.Cauchy(0.0, 1.0)
    torch.manual_seed(0)
    envelope = Envelope("tail", on_violation="control")
    for _ in range(3):
        weights = envelope.update(heavy.sample((2000,)).abs().log())
        assert weights.isnan().all()
    assert envelope.seen == 6000
    nothing = Envelope(on_violation="control")
    nothing.update([-math.inf] * np.ones(1))
    assert nothing.update(np.zeros(3)).isnan().all()


def test_an_excess_is_not_known_of_what_has_not_been_decided():
    envelope = Envelope(on_violation="control")
    envelope.update(RATIOS)
    assert math.isnan(envelope.report().overall["delta"])
    envelope.update(RATIOS)
    assert envelope.report().overall["delta"] == 0.0


@pytest.mark.parametrize(
    "text", ["quantile:0.9999999", "fixed:123456789.25", "decayed:1000", "budget:0.1", "fixed:2"]
)
def test_a_policy_is_told_as_it_was_given(text):
    assert Envelope.parse(text).report().policy == text


def hidden(values):
    return np.ma.masked_array(values, mask=[False, True])


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("log_ratio", (hidden([1.0, 900.0]), None, None)),
        ("groups", (torch.zeros(2), hidden([0, 0]), None)),
        ("accepted", (torch.zeros(2), None, hidden([True, True]))),
        ("log_ratio", (torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), None, None)),
    ],
)
def test_rows_that_hide_elements_are_refused(name, rows):
    envelope = Envelope()
    log_ratio, groups, accepted = rows
    with pytest.raises(TypeError, match=f"{name} must be a plain array or tensor, got a"):
        envelope.update(log_ratio, groups, accepted=accepted)
    assert envelope.seen.item() == 0


def test_an_update_and_its_M_make_few_calls():
    """They go with every batch, however small."""
    envelope, rows, called = Envelope(), torch.zeros(4), []

    def calls_of(call):
        called.clear()
        sys.setprofile(lambda frame, event, _: event == "call" and called.append(frame.f_code))
        try:
            call()
        finally:
            sys.setprofile(None)
        return len(called)

    envelope.update(rows)
    assert calls_of(lambda: envelope.update(rows)) <= 20, called
    assert calls_of(envelope.log_M) <= 10, called
