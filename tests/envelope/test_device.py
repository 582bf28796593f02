"""Rows on a device: kept there without a wait, and in the end the state the CPU would have.

There is one path for every device. It runs here on CPU tensors, and on meta tensors, which have no
values that could be waited for; test_gpu.py runs it on a GPU.
"""

import math
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rskernels.envelope import Envelope, EnvelopeViolation, device
from rskernels.envelope import envelope as module

from ..support.states import columns

NAN = math.nan
INF = math.inf


@pytest.fixture
def device_path(monkeypatch):
    """Send tensors of every device along the path of CUDA tensors."""
    monkeypatch.setattr(module, "stays_on_device", lambda rows: isinstance(rows, torch.Tensor))


OPTIONS = [
    {},
    {"groups": 5},
    {"groups": 70_000},
    {"policy": "fixed", "M": 1.5},
    {"policy": "fixed", "M": 1.5, "groups": 5},
    {"policy": "quantile", "level": 0.9, "groups": 5},
    {"policy": "quantile", "level": 0.9, "half_life": 50.0},
    {"policy": "budget", "rate": 0.5},
    {"policy": "decayed", "half_life": 50.0, "groups": 5},
    {"policy": "tail"},
    {"policy": "leave_one_out"},
]


def batches(groups, dtype=torch.float64, count=6, rows=40):
    generator = torch.Generator().manual_seed(groups)
    for step in range(count):
        log_ratio = torch.randn(rows, 50, generator=generator, dtype=torch.float64) * (step + 1)
        log_ratio[0, :4] = torch.tensor([NAN, INF, -INF, -INF])
        ids = torch.randint(groups, (rows, 50), generator=generator)
        accepted = torch.rand(rows, 50, generator=generator) < 0.5
        yield log_ratio.to(dtype), ids, accepted


def assert_same_state(ours, theirs, rtol=1e-12):
    ours, theirs = columns(ours), columns(theirs)
    for name in ours:
        if name in ("weight", "square", "decided_weight", "excess", "expected"):
            torch.testing.assert_close(ours[name], theirs[name], rtol=rtol, atol=0)
        elif isinstance(ours[name], torch.Tensor):
            assert torch.allclose(ours[name], theirs[name], rtol=0, atol=0, equal_nan=True), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_state_is_that_of_cpu_rows(monkeypatch, options, dtype):
    want, got = Envelope(**options), Envelope(**options)
    groups = want.groups
    for log_ratio, ids, accepted in batches(groups, dtype):
        want.update(log_ratio, ids, accepted=accepted)
    with monkeypatch.context() as patch:
        patch.setattr(module, "stays_on_device", lambda rows: isinstance(rows, torch.Tensor))
        for log_ratio, ids, accepted in batches(groups, dtype):
            got.update(log_ratio, ids.int(), accepted=accepted)
            # The rows are the envelope's own from here on.
            log_ratio.fill_(1e3), ids.zero_()
    # The core weighs what is narrower than float64 as float32.
    assert_same_state(got, want, 1e-12 if dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize("policy", ["max", "fixed:2"])
def test_only_the_largest_rows_wait(monkeypatch, device_path, policy):
    monkeypatch.setattr(device, "MOST_WAITING", 3000)
    got, want = Envelope.parse(policy, groups=5), Envelope.parse(policy, groups=5)
    for log_ratio, ids, _ in batches(5, count=8, rows=100):
        got.update(log_ratio, ids)
        assert sum(len(ratio) for ratio, _ in got._store._waiting._tails._rows) <= 3000
        want.update(log_ratio.numpy(), ids.numpy())
    assert_same_state(got, want)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("on_device", [False, True])
def test_no_row_meets_or_violates_an_M_of_0(monkeypatch, on_device, groups):
    monkeypatch.setattr(module, "stays_on_device", lambda rows: on_device)
    ids = torch.zeros(2, dtype=torch.int64)
    envelope = Envelope(groups=groups)
    envelope.update(torch.full((2,), -INF), ids)
    assert envelope.log_M(device="cpu").view(-1)[0].item() == -INF
    envelope.update(torch.tensor([1.0, 2.0]), ids)
    overall = envelope.report().overall
    assert (overall["decided"], overall["violations"]) == (0, 0)
    assert math.isnan(overall["delta"])
    envelope.update(torch.tensor([1.0, 3.0]), ids)
    overall = envelope.report().overall
    assert (overall["decided"], overall["violations"]) == (2, 1)


ROWS = st.lists(
    st.tuples(st.just(-INF) | st.sampled_from([-2.0, 0.0, 1.5, INF, NAN]), st.integers(0, 1)),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("options", [{**o, "groups": 2} for o in OPTIONS if "groups" not in o])
@settings(deadline=None, max_examples=30)
@given(st.lists(ROWS, min_size=2, max_size=4))
def test_only_decided_rows_are_violations(options, on_device, batches):
    envelope = Envelope(**options)
    met, above = torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "stays_on_device", lambda rows: on_device)
        for batch in batches:
            values, ids = zip(*batch, strict=True) if batch else ((), ())
            log_ratio = torch.tensor(values, dtype=torch.float64)
            groups = torch.tensor(ids, dtype=torch.int64)
            alone = {"log_ratio": log_ratio} if envelope.policy == "leave_one_out" else {}
            log_M = envelope.log_M(groups, **alone)
            decided = (log_ratio < INF) & (log_M > -INF)
            met.index_add_(0, groups, decided.long())
            above.index_add_(0, groups, (decided & (log_ratio > log_M)).long())
            envelope.update(log_ratio, groups)
    state = columns(envelope)
    assert torch.equal(state["decided"], met)
    assert torch.equal(state["violations"], above)
    assert (state["violations"] <= state["decided"]).all()
    assert (state["decided"] <= state["seen"] - state["invalid"]).all()


def test_cpu_and_device_rows_may_alternate(monkeypatch):
    got, want = Envelope(groups=5), Envelope(groups=5)
    for step, (log_ratio, ids, _) in enumerate(batches(5)):
        monkeypatch.setattr(module, "stays_on_device", lambda rows, step=step: step % 3 > 0)
        got.update(log_ratio, ids)
        monkeypatch.setattr(module, "stays_on_device", lambda rows: False)
        want.update(log_ratio, ids)
    assert_same_state(got, want)


def test_M_is_at_hand(device_path):
    envelope = Envelope(groups=3)
    envelope.update(torch.tensor([1.0, 2.0]), torch.tensor([0, 2]))
    ids = torch.tensor([[2, 1], [-1, 3]])
    log_M = envelope.log_M(ids)
    assert log_M[0, 0].item() == 2.0
    assert log_M.isnan().tolist() == [[False, True], [True, True]]
    assert envelope.log_M(device="cpu")[:1].tolist() == [1.0]
    assert envelope._store._waiting is not None
    assert envelope.report().overall["seen"] == 2
    assert envelope._store._waiting is None
    with pytest.raises(ValueError, match="device is for log_M without rows, got device='cpu'"):
        envelope.log_M(ids, device="cpu")


@pytest.mark.parametrize("policy", ["max", "quantile:0.5"])
@pytest.mark.parametrize("groups", [1, 2])
def test_rows_of_no_group_are_left_out_and_told(device_path, policy, groups):
    envelope = Envelope.parse(policy, groups=groups)
    ids = torch.tensor([0, groups, -1, 0])
    envelope.update(torch.tensor([1.0, 5.0, 5.0, 1.0]), ids, accepted=torch.ones(4).bool())
    with pytest.raises(IndexError, match=rf"2 rows .* outside \[0, {groups}\); they were left out"):
        envelope.report()
    assert envelope.seen.sum() == 2
    assert envelope.log_M(device="cpu").view(-1)[0].item() == 1.0
    assert envelope.report().overall["observed_acceptance"] == 1.0


def test_reactions(device_path):
    control = Envelope("fixed", M=1.0, groups=2, on_violation="control")
    log_ratio, ids = torch.tensor([[-1.0, 2.0, NAN]]), torch.tensor([[0, 1, 1]])
    weights = control.update(log_ratio, ids)
    assert weights[0, :2].tolist() == [1.0, pytest.approx(math.exp(2.0))]
    assert weights[0, 2].isnan()
    strict = Envelope("fixed", M=1.0, on_violation="raise")
    with pytest.raises(EnvelopeViolation, match="1 of 3 rows"):
        strict.update(log_ratio)


def test_errors_come_at_once(device_path):
    envelope = Envelope(groups=2)
    log_ratio = torch.zeros(3)
    with pytest.raises(ValueError, match="of 2 groups needs the group of every row"):
        envelope.update(log_ratio)
    with pytest.raises(ValueError, match="groups must have the shape of log_ratio"):
        envelope.update(log_ratio, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"accepted must be a bool tensor or array, got torch\.int"):
        envelope.update(log_ratio, torch.zeros(3).long(), accepted=torch.zeros(3).long())
    assert envelope._store._waiting is None


def test_loading_forgets_what_waits(device_path):
    envelope, other = Envelope(), Envelope()
    data = other.to_bytes()
    envelope.update(torch.ones(3))
    envelope.load_bytes(data)
    assert envelope.seen.tolist() == [0]


def test_threads_may_add_and_ask(device_path):
    envelope = Envelope()

    def work():
        for _ in range(20):
            envelope.update(torch.ones(100))
            envelope.report()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert envelope.seen.tolist() == [8000]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_updates_never_wait(device_path, options):
    envelope = Envelope(**options)
    for _ in range(3):
        log_ratio = torch.randn(4, 300_000, device="meta")
        ids = torch.zeros(4, 300_000, device="meta", dtype=torch.int64)
        envelope.update(log_ratio, ids, accepted=log_ratio > 0)
        if envelope.policy in device.RUNNING:
            assert envelope.log_M(ids).device.type == "meta"
            assert envelope.log_M(device="meta").device.type == "meta"
            assert envelope.M(ids).shape == ids.shape
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor; no data"):
        envelope.report()
