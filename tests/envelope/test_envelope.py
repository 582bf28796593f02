"""Envelope: what it keeps and refuses. T9, a fresh ratio against its M, is in statistics/."""

import math
import os
import re
import signal
import threading

import numpy as np
import pytest
import torch

from rskernels.envelope import Envelope
from rskernels.ops import bernoulli

from ..support.states import columns

INF = math.inf
NAN = math.nan
BIN = 1 / 256


def ratios(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_max_counts_against_the_M_in_force():
    envelope = Envelope()
    assert envelope.log_M().isnan()
    envelope.update(ratios(NAN, INF))
    assert envelope.log_M().isnan()
    envelope.update(ratios(0.5, -INF, 1.0))
    assert envelope.log_M().item() == 1.0
    envelope.update(ratios(1.0, 2.0, 3.0, NAN))
    assert envelope.log_M().item() == 3.0
    assert envelope.seen.tolist() == [9]
    assert envelope.violations.tolist() == [2]
    assert envelope.invalid.tolist() == [3]
    assert all(count.dtype == torch.int64 for count in envelope.counts)


def test_only_ratio_zero():
    envelope = Envelope()
    envelope.update(ratios(-INF))
    assert envelope.log_M().item() == -INF
    assert envelope.M().item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_update_takes_any_float_dtype_and_layout(dtype):
    log_ratio = torch.randn(6, 10, generator=torch.Generator().manual_seed(0)).to(dtype)
    groups = torch.arange(10, dtype=torch.int32).expand(6, 10)
    envelope = Envelope(groups=10)
    envelope.update(log_ratio.t().contiguous().t(), groups)
    assert torch.equal(envelope.log_M(), log_ratio.double().amax(0))
    envelope.update(log_ratio[:, ::2].requires_grad_(), groups[:, ::2].long())
    assert envelope.seen.tolist() == [12, 6] * 5


def test_log_M_shapes():
    one, many = Envelope(), Envelope(groups=3)
    one.update(ratios(1.0))
    many.update(ratios(1.0, 2.0), torch.tensor([0, 2]))
    assert one.log_M().shape == ()
    assert one.log_M(torch.zeros(2, 3, dtype=torch.int64)).tolist() == [[1.0] * 3] * 2
    assert many.log_M().shape == (3,)
    assert many.log_M().dtype == torch.float64
    gathered = many.log_M(torch.tensor([[2], [0], [1]], dtype=torch.int32))
    assert gathered.shape == (3, 1)
    assert gathered[:2, 0].tolist() == [2.0, 1.0]
    assert gathered[2, 0].isnan()
    assert many.M(torch.tensor([1])).isnan().all()


def test_M_is_never_below_exp_log_M():
    generator = torch.Generator().manual_seed(0)
    log_M = torch.cat((torch.randn(500, generator=generator) * 200, ratios(0.0, 700.0, -740.0)))
    envelope = Envelope(groups=len(log_M))
    ids = torch.arange(len(log_M))
    envelope.update(log_M, ids)
    finite = envelope.M() < INF
    assert (envelope.M().log() >= envelope.log_M())[finite].all()
    ordinary = envelope.log_M().abs() < 700
    exact = envelope.log_M().exp()
    assert (envelope.M() / exact - 1)[ordinary].abs().max() < 1e-12


@pytest.mark.parametrize("level", [0.01, 0.5, 0.9, 0.99, 1.0])
def test_quantile_against_numpy(level):
    samples = torch.randn(20001, generator=torch.Generator().manual_seed(1)) * 10
    envelope = Envelope("quantile", level=level)
    for batch in samples.split(777):
        envelope.update(batch)
    exact = np.quantile(samples.double().numpy(), level, method="inverted_cdf")
    assert exact <= envelope.log_M().item() < exact + BIN
    assert envelope.M().item() <= math.exp(exact) * 1.004


def test_quantile_survives_outliers():
    envelope = Envelope("quantile", level=0.5)
    envelope.update(ratios(1e4, -1e4, 1e300, -1e300, 0.25))
    assert envelope.log_M().item() == 0.25


def test_the_largest_ratios_have_a_finite_M():
    envelope = Envelope("quantile", level=0.9)
    envelope.update(ratios(0.0, 1e307))
    assert 1e307 <= envelope.log_M().item() < INF


def test_options_may_be_numpy_scalars():
    envelope = Envelope("quantile", level=np.float32(0.5), half_life=np.int64(3))
    assert (envelope.level, envelope.half_life) == (0.5, 3.0)
    assert type(envelope.level) is float
    with pytest.raises(TypeError, match=re.escape("level must be a float in (0, 1], got bool")):
        Envelope("quantile", level=True)


def test_half_life_follows_the_recent_samples():
    forgetful = Envelope("quantile", level=0.5, half_life=100)
    steady = Envelope("quantile", level=0.5)
    for envelope in (forgetful, steady):
        envelope.update(torch.full((100_000,), 3.0))
        envelope.update(torch.full((101,), 1.0))
    assert forgetful.log_M().item() == 1.0
    assert steady.log_M().item() == 3.0


def test_batching_does_not_matter():
    samples = torch.randn(3000, generator=torch.Generator().manual_seed(2))
    for options in ({}, {"policy": "quantile", "level": 0.7, "half_life": 11.0}):
        whole, parts = Envelope(**options), Envelope(**options)
        whole.update(samples)
        for batch in samples.split(13):
            parts.update(batch)
        assert whole.log_M() == parts.log_M()
        a, b = columns(whole), columns(parts)
        for name in a.keys() & {"bin_count", "tail", "seen", "invalid"}:
            assert torch.equal(a[name], b[name])
        torch.testing.assert_close(a["weight"], b["weight"], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("error", "message", "arguments", "keywords"),
    [
        (
            ValueError,
            "leave_one_out, decayed, quantile, budget, tail, got 'median'",
            ("median",),
            {},
        ),
        (ValueError, "Envelope.parse reads 'quantile:LEVEL'", ("quantile:0.9",), {}),
        (ValueError, "'quantile' needs a level in (0, 1], got none", ("quantile",), {}),
        (ValueError, "level must be in (0, 1], got 1.5", ("quantile",), {"level": 1.5}),
        (ValueError, "got level=0.5 with 'max'", ("max",), {"level": 0.5}),
        (ValueError, "groups must be at least 1, got 0", (), {"groups": 0}),
        (ValueError, "groups must be below 2**48, got 4611686018427387904", (), {"groups": 2**62}),
        (TypeError, "groups must be an int, got float", (), {"groups": 2.0}),
        (ValueError, "a maximum does not decay", (), {"half_life": 10.0}),
        (
            ValueError,
            "half_life must be finite and at least 1 sample, got 0.5",
            ("quantile",),
            {"level": 0.5, "half_life": 0.5},
        ),
        (
            TypeError,
            "half_life must be a float, got str",
            ("quantile",),
            {"level": 0.5, "half_life": "5"},
        ),
    ],
)
def test_constructor_errors(error, message, arguments, keywords):
    with pytest.raises(error, match=re.escape(message)):
        Envelope(*arguments, **keywords)


def test_parse():
    assert Envelope.parse("max", groups=3).groups == 3
    envelope = Envelope.parse("quantile:0.9", half_life=20)
    assert (envelope.policy, envelope.level, envelope.half_life) == ("quantile", 0.9, 20.0)
    for text in ("", "min", "max:1", "quantile", "quantile:", "quantile:x"):
        with pytest.raises(ValueError, match=re.escape(f"LEVEL in (0, 1], got {text!r}")):
            Envelope.parse(text)
    with pytest.raises(ValueError, match=re.escape("level must be in (0, 1], got 2.0")):
        Envelope.parse("quantile:2")
    with pytest.raises(TypeError, match=r"an envelope is a str, 'max', .*; got NoneType"):
        Envelope.parse(None)


def test_update_errors():
    envelope = Envelope(groups=2)
    ids = torch.tensor([0, 1])
    with pytest.raises(TypeError, match=r"floating-point tensor, got torch\.int64"):
        envelope.update(ids, ids)
    with pytest.raises(TypeError, match="floating-point tensor, got float"):
        envelope.update(1.0)
    with pytest.raises(ValueError, match="of 2 groups needs the group of every row"):
        envelope.update(ratios(1.0, 2.0))
    with pytest.raises(ValueError, match=re.escape("shape of log_ratio, [2], got [1]")):
        envelope.update(ratios(1.0, 2.0), ids[:1])
    with pytest.raises(TypeError, match=r"strided int64 or int32 tensor, got torch\.float64"):
        envelope.update(ratios(1.0, 2.0), ratios(0.0, 1.0))
    for bad in (2, -1, 2**40):
        message = re.escape(f"group id {bad} of row 1 is outside [0, 2)")
        with pytest.raises(IndexError, match=message):
            envelope.update(ratios(1.0, 2.0), torch.tensor([0, bad]))
        with pytest.raises(IndexError, match=message):
            envelope.log_M(torch.tensor([0, bad]))
    assert envelope.seen.tolist() == [0, 0]


def test_report_and_repr():
    envelope = Envelope.parse("quantile:0.5", groups=2)
    envelope.update(ratios(1.0, 1.0, NAN), torch.tensor([0, 0, 0]))
    report = envelope.report().to_dict()
    assert (report["policy"], report["on_violation"]) == ("quantile:0.5", "cap")
    assert report["groups"]["seen"] == [3, 0]
    assert report["groups"]["invalid"] == [1, 0]
    assert report["groups"]["log_M"] == [1.0, None]
    assert report["overall"]["valid"] == 2
    assert repr(envelope) == "Envelope(quantile:0.5, groups=2, seen=3, violations=0, invalid=1)"
    single = Envelope()
    single.update(ratios(1.5))
    assert repr(single) == "Envelope(max, log_M=1.5, seen=1, violations=0, invalid=0)"


def test_concurrent_updates_lose_nothing():
    envelope = Envelope("quantile", level=0.5, groups=2)
    batch = torch.arange(1000, dtype=torch.float64) / 100
    ids = torch.arange(1000) % 2

    def work():
        for _ in range(50):
            envelope.update(batch, ids)
            envelope.log_M(ids)
            envelope.merge(Envelope("quantile", level=0.5, groups=2))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert envelope.seen.tolist() == [100_000, 100_000]
    alone = Envelope("quantile", level=0.5, groups=2)
    alone.update(batch, ids)
    assert torch.equal(envelope.log_M(), alone.log_M())


def test_fork():
    envelope = Envelope("quantile", level=0.8)
    envelope.update(torch.zeros(500))
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        envelope.update(ratios(1.0))
        os._exit(0 if envelope.seen.sum() == 501 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert envelope.seen.sum() == 500


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_report_agrees_with_what_was_decided_of_ratios(dtype):
    log_ratio = torch.randn(2000, generator=torch.Generator().manual_seed(0)).to(dtype)
    log_ratio[::50] = math.nan
    envelope = Envelope("fixed", M=1.7)
    seen = bernoulli(log_ratio, envelope.M(), seed=4)
    envelope.update(seen.log_ratio, accepted=seen.mask)
    report = envelope.report().overall
    accepted, violations, invalid, _ = seen.counts.tolist()
    assert (report["seen"], report["invalid"]) == (2000, invalid)
    assert report["violations"] == violations > 0
    assert report["observed_acceptance"] == pytest.approx(accepted / 2000)
    assert report["delta"] == pytest.approx((seen.excess[0] / seen.excess[1]).item(), rel=1e-6)
