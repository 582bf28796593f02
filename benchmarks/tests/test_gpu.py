"""The GPU harness without a GPU: what it measures, keeps to, finds and tells."""

import itertools
import json
import sys
from types import ModuleType

import pytest
import torch

import rskernels
from benchmarks.common import agreement, baselines
from benchmarks.common.cases import Pool
from benchmarks.common.timing import Timing
from benchmarks.gpu import device_tests, measure, public_packages, report, run
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.measure import GUESSES
from benchmarks.gpu.shapes import FULL, LARGE, Shape, calls_of, shapes


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Stub(measure.Cpu):
    """A device on which every call takes as long as it says, of a clock that nothing else moves."""

    def __init__(self, clock, seconds=0.01):
        self.clock, self.seconds, self.repeats = clock, seconds, []

    def time(self, call):
        call()
        self.clock.now += self.seconds
        self.repeats.append(self.repeat)
        return Timing(self.seconds, self.seconds, self.seconds, 3)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stubbed(clock, monkeypatch):
    """Return a budget and a device whose times are made up, and a compiler that takes 3 s."""

    def compiled(case, name):
        clock.now += 3.0
        return baselines.eager(case)[name].function

    def make(seconds):
        return Budget(seconds, GUESSES, clock), Stub(clock)

    monkeypatch.setattr(baselines, "compiled", compiled)
    return make


TINY = [Shape(4, 50, "float32"), Shape(3, 50, "bfloat16"), Shape(2, 50, "float32")]
HEADER = {
    "date": "", "command": "", "machine": {}, "versions": {}, "copy_bandwidth": 1e9,
    "tests": {"outcome": "passed", "summary": "3 passed", "failed": [], "seconds": 1.0},
}  # fmt: skip


def test_the_shapes_are_those_that_are_asked_for():
    rows, columns = (1, 16, 32, 64, 128, 256, 512, 4096), (32000, 128256, 151936)
    grid = itertools.product(rows, columns, ("bfloat16", "float32"))
    requested = {Shape(8192, 151936, "bfloat16"), *(Shape(*shape) for shape in grid)}
    assert shapes(is_quick=False)[0] == LARGE
    assert set(shapes(is_quick=False)) == requested
    assert len(shapes(is_quick=False)) == len(requested)


def test_acceptances_are_those_that_the_calls_name():
    shape = Shape(4000, 50, "float32")
    for name, (case, inputs) in calls_of(shape, Pool([shape.case(FULL)])).items():
        result = baselines.ours(case)(*inputs)
        mask = result.mask if name == "verify" else result
        error = (case.acceptance * (1 - case.acceptance) / 4000) ** 0.5
        assert abs(mask.float().mean() - case.acceptance) < 5 * error, name


def test_with_time_everything_is_measured(stubbed):
    budget, device = stubbed(100.0)
    record = run.measure(device, TINY, budget, HEADER, None)
    assert [result["rows"] for result in record["shapes"]] == [4, 3, 2]
    # Both forms for the first shape of a dtype, the faster one for the others.
    assert [len(result["compiled"]) for result in record["shapes"]] == [2, 2, 1]
    assert all(len(result["ours"]) == 6 for result in record["shapes"])
    assert all(len(result["eager"]) == 3 for result in record["shapes"])
    assert set(device.repeats) == {measure.REPEAT}
    assert record["failures"] == []
    assert not any("time" in note or "rounds" in note for note in record["notes"])


def test_time_is_kept_for_the_shapes_to_come(stubbed):
    # A shape's own times take 1.8 s: after one compiled form those of the others just fit.
    budget, device = stubbed(11.0)
    device.seconds = 0.2
    record = run.measure(device, TINY, budget, HEADER, None)
    assert [len(result["compiled"]) for result in record["shapes"]] == [1, 0, 0]
    assert f"No time to compile a torch form for: {TINY[1]}, {TINY[2]}." in record["notes"]
    assert budget.left > 0


def test_what_the_time_did_not_allow_is_named(stubbed, tmp_path):
    budget, device = stubbed(3.5)
    device.seconds = 0.2
    out = tmp_path / "gpu.json"
    record = run.measure(device, TINY, budget, HEADER, out)
    assert len(record["shapes"]) == 1
    assert set(device.repeats) == {measure.SHORT_REPEAT}
    assert f"No time to measure: {TINY[1]}, {TINY[2]}." in record["notes"]
    assert f"Measured in fewer rounds: {TINY[0]}." in record["notes"]
    text = out.with_suffix(".md").read_text(encoding="utf-8")
    assert f"- No time to measure: {TINY[1]}, {TINY[2]}." in text
    assert json.loads(out.read_text(encoding="utf-8"))["notes"] == record["notes"]


def test_a_compiler_that_fails_is_told(stubbed, monkeypatch):
    def compiled(case, name):
        raise RuntimeError("no compiler here\nand more")

    monkeypatch.setattr(baselines, "compiled", compiled)
    budget, device = stubbed(100.0)
    record = run.measure(device, TINY[:1], budget, HEADER, None)
    assert f"{TINY[0]}: torch.compile of logsumexp failed: no compiler here" in record["notes"]
    assert len(record["shapes"][0]["ours"]) == 6


@pytest.mark.parametrize("broken", ["accept_mask", "verify_mask"])
def test_wrong_decisions_are_found(stubbed, monkeypatch, broken):
    right = getattr(rskernels, broken)
    monkeypatch.setattr(rskernels, broken, lambda *a, **k: ~right(*a, **k))
    budget, device = stubbed(100.0)
    record = run.measure(device, TINY[:1], budget, HEADER, None)
    assert len(record["failures"]) == (1 if broken == "accept_mask" else 4)
    assert "differ from the float64 reference" in record["failures"][0]
    text = report.markdown(record)
    assert "## Wrong" in text
    assert "| none differ | 1 cases differ" in text or "| none differ | 4 cases differ" in text


def test_a_lazy_decision_that_differs_is_found(stubbed, monkeypatch):
    # One wrong row between those that are compared with the reference.
    shape = Shape(2 * agreement.ROWS + 1, 50, "float32")
    right = rskernels.verify_mask

    def verify_mask(*arguments, **law):
        mask = right(*arguments, **law)
        mask[agreement.ROWS] ^= True
        return mask

    monkeypatch.setattr(rskernels, "verify_mask", verify_mask)
    budget, device = stubbed(100.0)
    record = run.measure(device, [shape], budget, HEADER, None)
    assert len(record["failures"]) == 4
    assert all("1 lazy decisions differ" in failure for failure in record["failures"])


def test_no_memory_is_told_and_the_rest_measured(stubbed, monkeypatch):
    def softmax(*arguments):
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setitem(baselines.Q_FORMS, "softmax", softmax)
    budget, device = stubbed(100.0)
    record = run.measure(device, TINY[:1], budget, HEADER, None)
    assert f"{TINY[0]}: softmax ran out of memory" in record["notes"]
    assert set(record["shapes"][0]["eager"]) == {"log_softmax", "logsumexp"}


def fake_liger(monkeypatch, cross_entropy):
    module = ModuleType("liger_kernel.transformers.functional")
    module.liger_cross_entropy = cross_entropy
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_liger_is_compared_where_it_gives_the_same(stubbed, monkeypatch, dtype):
    fake_liger(monkeypatch, torch.nn.functional.cross_entropy)
    budget, device = stubbed(100.0)
    record = run.measure(device, [Shape(40, 500, dtype)], budget, HEADER, None)
    if dtype == "float32":
        assert set(record["shapes"][0]["public"]) == {"Liger"}
        assert report.Row(record["shapes"][0], 1e9).over("public") == 1.0
    else:
        assert record["shapes"][0]["public"] == {}
        assert "Liger left out in bfloat16: log q is off by" in record["notes"][0]


def test_liger_is_left_out_where_it_writes_over_the_logits(stubbed, monkeypatch):
    def cross_entropy(logits, targets, reduction):
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction=reduction)
        logits.zero_()
        return loss

    fake_liger(monkeypatch, cross_entropy)
    budget, device = stubbed(100.0)
    record = run.measure(device, TINY, budget, HEADER, None)
    assert record["notes"].count("Liger left out: it writes over its input") == 1
    assert all(result["public"] == {} for result in record["shapes"])


def test_packages_that_are_absent_are_told(stubbed, monkeypatch):
    for name in ("liger_kernel", "cut_cross_entropy"):
        monkeypatch.setitem(sys.modules, name, None)
    budget, device = stubbed(100.0)
    notes = run.measure(device, TINY[:1], budget, HEADER, None)["notes"]
    assert [note.partition(" left out: ")[0] for note in notes] == ["Liger", "cut cross-entropy"]
    assert all("pip install" in note for note in notes)


@pytest.fixture
def cut_cross_entropy(monkeypatch):
    def linear_cross_entropy(hidden, weight, targets, reduction):
        logits = hidden.float() @ weight.T.float()
        return torch.nn.functional.cross_entropy(logits, targets, reduction=reduction)

    module = ModuleType("cut_cross_entropy")
    module.linear_cross_entropy = linear_cross_entropy
    monkeypatch.setitem(sys.modules, "cut_cross_entropy", module)


def test_log_q_from_hidden_states(stubbed, cut_cross_entropy):
    budget, device = stubbed(100.0)
    record = run.measure(device, TINY[:1], budget, HEADER, None)
    assert set(record["hidden"]["times"]) == {"rskernels", "cut cross-entropy"}
    assert "Hidden states [40, 16], weights [300, 16]" in report.markdown(record)


def test_hidden_states_are_left_out_where_time_is_short(stubbed, cut_cross_entropy):
    budget, device = stubbed(40.0)
    record = run.measure(device, TINY[:1], budget, HEADER, None)
    assert record["hidden"] == {}
    assert "No time to measure: cut cross-entropy." in record["notes"]


def test_every_slower_operation_is_listed():
    ours = {FULL: 2e-3, "verify": 4e-3, "verify_mask 0.1 %": 0.5e-3, "verify_mask 1 %": 1e-3,
            "verify_mask 10 %": 2e-3, "verify_mask 50 %": 2e-3}  # fmt: skip
    result = {
        "rows": 8192, "columns": 151936, "dtype": "bfloat16",
        "ours": ours,
        "eager": {"softmax": 3e-3, "log_softmax": 6e-3},
        "compiled": {"logsumexp": 1e-3}, "public": {},
        "memory": {"ours": 2**20, "eager": 2**21},
    }  # fmt: skip
    header = {**HEADER, "copy_bandwidth": LARGE.logits_bytes / 1e-3}
    row = report.Row(result, header["copy_bandwidth"])
    assert (row.share, row.over("eager"), row.over("compiled")) == pytest.approx((0.5, 1.5, 0.5))
    assert row.over_full("verify_mask 0.1 %") == pytest.approx(4.0)
    text = report.markdown(
        {**header, "seconds": 1, "shapes": [result], "failures": [], "notes": ["a note"]}
    )
    below = text.partition("## Below 1×")[2]
    assert f"- {FULL} {LARGE}: 0.50× logsumexp (compiled)" in below
    assert f"- verify {LARGE}: 0.75× softmax (eager)" in below
    assert "verify_mask 0.1 %" not in below
    assert "| ≥ 0.85 | 0.50 | **not met** |" in text
    assert "| 0 | 1 of 1 | **not met** |" in text


def test_without_a_gpu_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "gpu.json"
    assert run.main(["--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith("no GPU: torch ")
    assert not out.exists()


@pytest.mark.parametrize("outcome", ["passed", "failed", "stopped after 150 s"])
def test_the_status_tells_of_failed_tests(stubbed, monkeypatch, outcome):
    tests = {**HEADER["tests"], "outcome": outcome}
    _, device = stubbed(1.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(run, "Device", lambda: device)
    monkeypatch.setattr(run, "_default_out", lambda device: None)
    monkeypatch.setattr(device_tests, "run", lambda seconds: tests)
    assert run.main(["--quick", "--minutes", "0"]) == (0 if outcome == "passed" else 1)


def test_a_package_that_fails_is_left_out():
    def broken(logits, targets):
        raise RuntimeError("no kernel for this device\nand why")

    package = public_packages.Package("Broken", broken)
    reason = public_packages.fault(package, torch.randn(4, 9), torch.zeros(4, dtype=torch.int64))
    assert reason == "Broken left out: no kernel for this device"
    exact = public_packages.Package("Exact", rskernels.target_log_prob)
    assert not public_packages.fault(exact, torch.randn(4, 9), torch.zeros(4, dtype=torch.int64))


def test_a_run_on_a_cpu_goes_through(tmp_path):
    out = tmp_path / "gpu.json"
    assert run.main(["--device", "cpu", "--quick", "--out", str(out)]) == 0
    results = json.loads(out.read_text(encoding="utf-8"))
    assert len(results["shapes"]) == len(shapes(is_quick=True))
    assert "GB/s" in out.with_suffix(".md").read_text(encoding="utf-8")
