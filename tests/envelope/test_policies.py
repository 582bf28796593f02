"""Envelope's choices: what violations lead to, what is reported, what may be passed."""

import json
import math
import re
import threading

import numpy as np
import pytest
import torch

from rskernels import _core
from rskernels.envelope import Envelope, EnvelopeViolation, NoFiniteM, estimate_M

NAN = math.nan


def ratios(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("text", "policy", "parameter"),
    [
        ("max", "max", {}),
        ("leave_one_out", "leave_one_out", {}),
        ("tail", "tail", {}),
        ("fixed:2.5", "fixed", {"M": 2.5}),
        ("decayed:100", "decayed", {"half_life": 100.0}),
        ("budget:0.5", "budget", {"rate": 0.5}),
        ("quantile:0.9", "quantile", {"level": 0.9}),
    ],
)
def test_parse_is_the_inverse_of_the_reports_policy(text, policy, parameter):
    envelope = Envelope.parse(text)
    assert envelope.policy == policy
    assert envelope.report().policy == text
    assert all(envelope.state_dict()[name] == value for name, value in parameter.items())


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "'fixed' needs a M in (0, inf), got none", {"policy": "fixed"}),
        (ValueError, "M must be in (0, inf), got 0.0", {"policy": "fixed", "M": 0.0}),
        (ValueError, "M is for 'fixed' only, got M=2.0 with 'max'", {"M": 2.0}),
        (ValueError, "rate must be in (0, 1], got 1.5", {"policy": "budget", "rate": 1.5}),
        (ValueError, "'decayed' needs a half_life", {"policy": "decayed"}),
        (ValueError, "half_life is for 'quantile', 'budget'", {"policy": "tail", "half_life": 5}),
        (ValueError, "confidence is for 'quantile'", {"confidence": 0.9}),
        (
            ValueError,
            "confidence must be in (0, 1), got 1.0",
            {"policy": "quantile", "level": 0.5, "confidence": 1.0},
        ),
        (ValueError, "policy must be one of fixed, max, leave", {"policy": ["max"]}),
        (ValueError, "on_violation must be one of cap, raise,", {"on_violation": "ignore"}),
    ],
)
def test_options_that_fit_no_policy(error, message, options):
    with pytest.raises(error, match=re.escape(message)):
        Envelope(**options)


def test_raise_takes_the_batch_in_and_raises():
    envelope = Envelope(on_violation="raise")
    assert envelope.update(ratios(0.0, 1.0)) is None
    with pytest.raises(EnvelopeViolation, match="2 of 3 rows had a ratio above the M"):
        envelope.update(ratios(1.0, 2.0, 3.0))
    assert envelope.log_M().item() == 3.0
    assert envelope.seen.tolist() == [5]
    envelope.update(ratios(3.0))


def test_control_returns_the_weights_under_the_M_that_was_met():
    envelope = Envelope("max", groups=2, on_violation="control")
    ids = torch.tensor([[0, 1]])
    first = envelope.update(ratios(1.0, 2.0)[None], ids)
    assert first.isnan().all()
    weights = envelope.update(ratios(3.0, 1.0)[None], ids)
    assert weights.shape == (1, 2)
    assert weights.tolist() == [[pytest.approx(math.exp(2.0)), 1.0]]
    assert envelope.update(ratios(NAN, 0.0)[None], ids).isnan().tolist() == [[True, False]]


def test_thin_keeps_all_where_M_has_not_grown():
    envelope = Envelope("max", groups=2)
    ids = torch.tensor([0, 1])
    envelope.update(ratios(1.0, 2.0), ids)
    before = envelope.log_M(ids)
    assert envelope.thin(ratios(0.5, 2.0), before, ids, seed=0).all()
    with pytest.raises(ValueError, match="needs the group of every row"):
        envelope.thin(ratios(0.5), 1.0)


def test_thin_takes_the_M_of_a_host_for_rows_of_a_device():
    envelope = Envelope("fixed", M=2.0)
    elsewhere = torch.zeros(3, device="meta")
    assert envelope.thin(elsewhere, envelope.log_M(), seed=0).is_meta


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "log_ratio must be a torch.Tensor, got list", ([1.0], 0.0)),
        (TypeError, "log_ratio must be float32, .*, got torch.int64", (torch.zeros(5).long(), 0.0)),
        (TypeError, "log_M must be a number or a tensor, got NoneType", (torch.zeros(5), None)),
        (ValueError, r"log_M must be below \+inf, got nan", (torch.zeros(5), NAN)),
        (
            ValueError,
            r"log_M must broadcast to the decisions' shape \[5\], got \[3\]",
            (torch.zeros(5), torch.zeros(3)),
        ),
        (
            ValueError,
            r"groups must have the shape of log_ratio, \[5\], got \[3\]",
            (torch.zeros(5), 0.0, torch.zeros(3).long()),
        ),
    ],
)
def test_thin_says_what_it_takes(error, message, arguments):
    with pytest.raises(error, match=message):
        Envelope("fixed", M=2.0).thin(*arguments)


def test_tail_says_when_there_is_no_M():
    envelope = Envelope("tail")
    assert envelope.log_M().isnan()
    envelope.update(torch.from_numpy(np.random.default_rng(1).standard_cauchy(5000)).abs().log())
    with pytest.raises(NoFiniteM, match=r"k = [01]\.\d+, so no finite M bounds p/q; .*'budget'"):
        envelope.log_M()
    assert "undecided whether a finite M exists" in envelope.report().meaning


def test_report_against_numpy():
    generator = np.random.default_rng(2)
    log_ratio = generator.normal(size=(50, 100)).astype(np.float32)
    ids = generator.integers(0, 3, size=(50, 100)).astype(np.int32)
    mask = generator.random((50, 100)) < 0.3
    envelope = Envelope("fixed", M=1.5, groups=3)
    log_ratio[0, :2] = [NAN, math.inf]
    envelope.update(log_ratio, ids, accepted=mask)
    report = envelope.report()
    for group in range(3):
        in_group = ids == group
        valid = in_group & (log_ratio < math.inf)
        w = np.exp(log_ratio[valid].astype(np.float64))
        expected = {
            "seen": in_group.sum(),
            "valid": valid.sum(),
            "decided": valid.sum(),
            "violations": (log_ratio[valid] > math.log(1.5)).sum(),
            "max_log_ratio": log_ratio[valid].max(),
            "delta": np.maximum(w - 1.5, 0).sum() / w.sum(),
            "expected_acceptance": np.minimum(w / 1.5, 1).mean(),
            "observed_acceptance": mask[in_group].mean(),
            "ess": w.sum() ** 2 / (w**2).sum(),
            "chi_squared": len(w) * (w**2).sum() / w.sum() ** 2 - 1,
            "log_M": math.log(1.5),
        }
        for name, value in expected.items():
            assert report.groups[name][group].item() == pytest.approx(value, rel=1e-9), name
    assert report.overall["seen"] == 5000
    assert report.overall["invalid"] == 2
    json.dumps(report.to_dict(), allow_nan=False)
    assert "groups" not in report.to_dict(groups=False)


def test_counts_and_tallies_ask_for_no_M_and_no_tail(monkeypatch):
    envelope = Envelope("tail", groups=2)
    envelope.update(ratios(1.0, NAN, 2.0), torch.tensor([0, 0, 1]))
    reported = envelope.report().groups

    def refuse(*arguments):
        raise AssertionError("a tail would be fitted, or a state copied")

    for name in ("log_M", "report", "state"):
        monkeypatch.setattr(_core.Envelope, name, refuse)
    with pytest.raises(AssertionError, match="a tail would be fitted"):
        envelope.report()
    tallies = envelope.tallies()
    assert set(reported) - set(tallies) == {"log_M", "pareto_k"}
    for name, column in tallies.items():
        torch.testing.assert_close(column, reported[name], rtol=0, atol=0, equal_nan=True)
    assert envelope.seen.tolist() == [2, 1]
    assert envelope.invalid.tolist() == [1, 0]
    assert envelope.violations.tolist() == [0, 0]
    assert repr(envelope) == "Envelope(tail, groups=2, seen=3, violations=0, invalid=1)"


def test_an_envelope_without_a_finite_M_has_a_repr():
    envelope = Envelope("tail")
    envelope.update(torch.from_numpy(np.random.default_rng(1).standard_cauchy(5000)).abs().log())
    assert repr(envelope) == "Envelope(tail, log_M=nan, seen=5000, violations=0, invalid=0)"


def test_tail_takes_an_atom_for_M_only_where_it_fills_the_tail():
    envelope = Envelope("tail", groups=2)
    positive = torch.full((100,), 0.5)
    few = torch.where(torch.arange(100) < 19, positive, -math.inf)
    envelope.update(torch.stack((positive, few)), torch.tensor([[0], [1]]).expand(2, 100))
    assert envelope.log_M()[0] == 0.5
    assert envelope.log_M()[1].isnan()


def test_the_table_has_a_line_a_group():
    envelope = Envelope(groups=30)
    envelope.update(torch.zeros(30), torch.arange(30))
    lines = str(envelope.report()).splitlines()
    assert lines[0].split()[:4] == ["group", "seen", "invalid", "violations"]
    assert [line.split()[0] for line in lines[1:4]] == ["all", "0", "1"]
    assert lines[-2] == "and 10 more groups"
    assert lines[-1].startswith("policy max, on violation cap; ")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_arrays_are_as_good_as_tensors(dtype):
    array = np.random.default_rng(3).normal(size=(40, 30)).astype(dtype)
    ids = np.arange(30, dtype=np.int32).repeat(40).reshape(30, 40).T
    a, b = Envelope(groups=30), Envelope(groups=30)
    array.flags.writeable = False
    a.update(array[::2], ids[::2])
    b.update(torch.tensor(array[::2]), torch.tensor(ids[::2]))
    assert torch.equal(a.log_M(), b.log_M())
    assert torch.equal(a.seen, b.seen)
    swapped = Envelope(groups=30)
    swapped.update(array[::2].astype(array.dtype.newbyteorder()), ids[::2])
    assert torch.equal(swapped.log_M(), a.log_M())


def test_rows_that_are_refused():
    envelope = Envelope(groups=2)
    with pytest.raises(TypeError, match="float64, float32 or float16 as an array, got int64"):
        envelope.update(np.arange(3))
    with pytest.raises(TypeError, match="groups must be int64 or int32, got uint8"):
        envelope.update(np.zeros(3), np.zeros(3, np.uint8))
    with pytest.raises(TypeError, match="accepted must be a bool tensor or array, got"):
        envelope.update(np.zeros(3), np.zeros(3, np.int64), accepted=np.zeros(3))
    with pytest.raises(ValueError, match="log_ratio is for 'leave_one_out' only"):
        envelope.log_M(torch.zeros(3, dtype=torch.int64), log_ratio=torch.zeros(3))
    assert envelope.seen.tolist() == [0, 0]


def test_sums_do_not_depend_on_threads(threads):
    log_ratio = torch.randn(500_000, generator=torch.Generator().manual_seed(4))
    ids = torch.randint(50, (500_000,), generator=torch.Generator().manual_seed(5))
    for groups, id_tensor in ((1, None), (50, ids)):
        states = []
        for count in (1, 2, 3):
            threads(count)
            envelope = Envelope("quantile", level=0.5, groups=groups)
            envelope.update(log_ratio, id_tensor)
            envelope.update(log_ratio, id_tensor)
            states.append(envelope.to_bytes())
        assert states[0] == states[1] == states[2]


def test_a_million_groups_in_the_memory_that_is_stated():
    groups = 1_000_000
    envelope = Envelope(groups=groups)
    ids = torch.arange(groups)
    envelope.update(torch.zeros(groups), ids)
    assert torch.equal(envelope.log_M(ids), torch.zeros(groups, dtype=torch.float64))
    # 13 columns of 8 bytes a group; no ratios are kept for a shape of each.
    assert len(envelope.to_bytes()) < 105 * groups
    assert envelope.report().groups["pareto_k"].isnan().all()


@pytest.mark.parametrize("policy", ["decayed:50", "budget:0.5", "tail", "leave_one_out"])
def test_concurrent_updates_lose_nothing(policy):
    envelope = Envelope.parse(policy)
    batch = torch.arange(100, dtype=torch.float64) / 100

    def work():
        for _ in range(20):
            envelope.update(batch)
            envelope.report()
            envelope.merge(Envelope.parse(policy))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert envelope.seen.tolist() == [8000]


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint32])
def test_numpys_integers_are_groups_and_numbers(kind):
    for envelope in (
        Envelope(groups=kind(3)),
        Envelope.parse("quantile:0.9", groups=kind(3), half_life=kind(5)),
        Envelope("decayed", half_life=kind(5), groups=kind(3)),
        Envelope("fixed", M=kind(2), groups=kind(3)),
    ):
        assert type(envelope.groups) is int
        assert all(not isinstance(value, np.generic) for value in envelope.state_dict().values())
        assert Envelope.from_bytes(envelope.to_bytes()).groups == 3
    ratios, seed = torch.zeros(4), kind(7)
    envelope = Envelope("fixed", M=2)
    kept = envelope.thin(ratios, 0.0, seed=seed, row_offset=kind(2))
    assert torch.equal(kept, envelope.thin(ratios, 0.0, seed=7, row_offset=2))
    logits, targets = torch.zeros(2, 4), torch.tensor([1, 3])
    M = estimate_M(logits, 0.5, targets=targets, ignore_index=kind(3))
    assert pytest.approx(2.0, rel=1e-5) == M


@pytest.mark.parametrize("groups", [True, np.bool_(True), 3.0, np.float64(3.0), "3"])
def test_other_counts_of_groups_are_refused(groups):
    with pytest.raises(TypeError, match="groups must be an int, got"):
        Envelope(groups=groups)


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "fixed", "M": 10**400},
        {"policy": "decayed", "half_life": 10**400},
        {"policy": "quantile", "level": -(10**400)},
    ],
)
def test_integers_beyond_every_float_are_refused_as_the_numbers_they_are(options):
    with pytest.raises(ValueError, match="must be"):
        Envelope(**options)
