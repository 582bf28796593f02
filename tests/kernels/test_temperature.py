"""A temperature of each row: what a call on that row alone does at that number."""

import math

import pytest
import torch

from ..support.bits import same_bits
from ..support.cases import draw_case, layouts
from ..support.lawful import assert_lawful

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# Of a float32 as well as of a float64.
NONE = [math.nan, 0.0, -0.0, -1.0, math.inf, -math.inf, 9e-31, 1.1e30, 1e-45]
LAW = {"log_space": True, "seed": 3, "row_offset": 7}


def draw(rows, V, dtype=torch.float32, *, form="target"):
    """Return logits, targets or None, log densities, and a temperature of each row."""
    case = draw_case((rows, V), dtype, seed=V, dense=form == "dense")
    temperature = torch.rand(rows, generator=torch.Generator().manual_seed(V)) * 3 + 0.2
    return case, temperature


def row(n, case):
    """Return row ``n`` alone of logits, targets or None, and densities."""
    return tuple(None if part is None else part[n : n + 1] for part in case)


def assert_as_alone(backend, case, temperature, **law):
    """Compare every row with a call on it alone, and return what was decided of all."""
    got = assert_lawful(backend, *case, 0.3, temperature=temperature, **LAW, **law)
    for n, number in enumerate(temperature.tolist()):
        alone = {**LAW, "row_offset": LAW["row_offset"] + n, "temperature": number, **law}
        want = backend.decide(*row(n, case), 0.3, **alone)
        assert same_bits([part[n : n + 1] for part in got[:3]], want[:3])
    return got


# Short rows, parts of a block, and more than a block.
@pytest.mark.parametrize("V", [1, 10, 600, 9000])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["target", "dense"])
def test_each_row_is_decided_as_alone(kernel, form, dtype, V):
    case, temperature = draw(kernel.rows(37), V, dtype, form=form)
    assert_as_alone(kernel, case, temperature, model_is_target=V == 600)


@pytest.mark.parametrize("V", [10, 9000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_log_probabilities_and_gradients_are_as_alone(kernel, dtype, V):
    (logits, targets, _), temperature = draw(kernel.rows(20), V, dtype)
    log_prob = kernel.log_prob(logits, targets, temperature)
    upstream = torch.linspace(-1, 1, len(targets)).to(log_prob.dtype)
    gradient = kernel.gradient(upstream, logits, targets, temperature)
    for n, number in enumerate(temperature.tolist()):
        one, at = row(n, (logits, targets)), slice(n, n + 1)
        assert same_bits(kernel.log_prob(*one, number), log_prob[at])
        assert same_bits(kernel.gradient(upstream[at], *one, number), gradient[at])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["target", "dense"])
def test_every_dtype_of_temperatures(kernel, form, dtype):
    case, temperature = draw(kernel.rows(20), 50, form=form)
    assert_as_alone(kernel, case, temperature.to(dtype))


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (1, 4), (1, 1), (3, 4)])
@pytest.mark.parametrize("form", ["target", "dense"])
def test_temperatures_broadcast_to_the_rows(backend, form, shape):
    case = draw_case((3, 4, 20), seed=5, dense=form == "dense")
    temperature = torch.rand(shape, generator=torch.Generator().manual_seed(2)) + 0.3
    whole = temperature.expand(3, 4).contiguous()
    want = assert_lawful(backend, *case, 0.3, temperature=whole, **LAW)
    assert same_bits(backend.decide(*case, 0.3, temperature=temperature, **LAW), want)
    expanded = temperature.expand(3, 4)
    assert same_bits(backend.decide(*case, 0.3, temperature=expanded, **LAW), want)
    for view in vars(layouts(whole)).values():
        assert same_bits(backend.decide(*case, 0.3, temperature=view, **LAW), want)
    if form == "target" and backend.name != "reference":
        upstream = torch.ones(3, 4)
        for call in (backend.log_prob, lambda *case: backend.gradient(upstream, *case)):
            assert same_bits(call(*case[:2], temperature), call(*case[:2], whole))


@pytest.mark.parametrize("form", ["target", "dense"])
def test_the_logits_may_lie_in_any_order(kernel, form):
    logits, targets, log_p = draw_case((3, 4, 5, 6), seed=5, dense=form == "dense")
    temperature = torch.linspace(0.3, 3, 60).view(3, 4, 5)
    want = kernel.decide(logits, targets, log_p, 0.3, temperature=temperature, **LAW)
    for axes in ((0, 1), (1, 2), (0, 2), (0, 3)):
        view = logits.transpose(*axes).contiguous().transpose(*axes)
        got = kernel.decide(view, targets, log_p, 0.3, temperature=temperature, **LAW)
        assert same_bits(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("model_is_target", [False, True])
@pytest.mark.parametrize("form", ["target", "dense"])
@pytest.mark.parametrize("V", [10, 9000])
def test_a_row_without_a_temperature_is_rejected_and_counted(
    backend, V, form, model_is_target, dtype
):
    rows = backend.rows(2 * len(NONE) + 1, slow=19 if V == 10 else 3)
    case, temperature = draw(3 if backend.name == "reference" else rows, V, form=form)
    temperature = temperature.to(dtype)
    spoilt = temperature.clone()
    bad = torch.arange(len(temperature)) % 2 == 1
    spoilt[1::2] = torch.tensor(NONE, dtype=dtype)[: int(bad.sum())]
    law = {**LAW, "model_is_target": model_is_target}
    before = backend.decide(*case, 0.3, temperature=temperature, **law)
    seen = assert_lawful(backend, *case, 0.3, temperature=spoilt, **law)
    assert not seen.mask[bad].any()
    assert seen.log_prob[bad].isnan().all()
    assert seen.log_ratio[bad].isnan().all()
    assert same_bits([part[~bad] for part in seen[:3]], [part[~bad] for part in before[:3]])
    assert seen.counts[2:].tolist() == [bad.sum() * (V if form == "dense" else 1), 0]
    for is_lazy in (False, True) if form == "target" else (False,):
        mask = backend.mask(*case, 0.3, temperature=spoilt, is_lazy=is_lazy, **law)
        assert torch.equal(mask, seen.mask)


def test_what_is_certain_without_reading_needs_a_temperature(backend):
    logits, targets = torch.zeros(20, 4), torch.zeros(20, dtype=torch.int64)
    temperature = torch.ones(20)
    temperature[5] = math.nan
    # Accepted whatever q is, and the promise of finite logits given.
    mask = backend.mask(logits, targets, 5.0, temperature=temperature, is_lazy=True)
    assert mask.tolist() == [n != 5 for n in range(20)]


@pytest.mark.parametrize("number", [math.nan, 0.0, math.inf])
def test_one_temperature_of_all_rows_may_be_none(backend, number):
    (logits, targets, log_p), _ = draw(5, 30)
    temperature = torch.tensor(number)
    seen = backend.decide(logits, targets, log_p, temperature=temperature, **LAW)
    assert seen.counts.tolist() == [0, 0, 5, 0]
    assert backend.log_prob(logits, targets, temperature).isnan().all()


def test_ignored_rows_are_ignored_at_any_temperature(backend):
    (logits, targets, log_p), temperature = draw(5, 30)
    temperature[1] = math.nan
    targets[1] = -100
    seen = backend.decide(logits, targets, log_p, temperature=temperature, **LAW)
    assert seen.counts[2:].tolist() == [0, 1]
    log_prob = backend.log_prob(logits, targets, temperature)
    assert log_prob[1] == 0
    if backend.name != "reference":
        gradient = backend.gradient(torch.ones(5), logits, targets, temperature)
        assert gradient[1].eq(0).all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("V", [30, 9000])
def test_log_probabilities_and_gradients_without_a_temperature(kernel, V):
    (logits, targets, _), temperature = draw(4, V)
    spoilt = temperature.clone()
    spoilt[1:3] = torch.tensor([math.nan, math.inf])
    upstream = torch.tensor([1.0, 1.0, 0.0, 1.0])
    before = kernel.log_prob(logits, targets, temperature)
    slopes = kernel.gradient(upstream, logits, targets, temperature)
    log_prob = kernel.log_prob(logits, targets, spoilt)
    gradient = kernel.gradient(upstream, logits, targets, spoilt)
    assert log_prob.isnan().tolist() == [False, True, True, False]
    assert same_bits(log_prob[::3], before[::3])
    assert same_bits(gradient[::3], slopes[::3])
    # What is not used leaves no trace, not even of a NaN.
    assert gradient[1].isnan().all()
    assert gradient[2].eq(0).all()


@pytest.mark.parametrize("model_is_target", [False, True])
@pytest.mark.parametrize("V", [40, 600, 20_000])
def test_lazy_decisions_are_those_of_a_full_pass(kernel, V, model_is_target):
    rows = kernel.rows(800 if V < 20_000 else 100, slow=6)
    case, temperature = draw(rows, V)
    law = {**LAW, "model_is_target": model_is_target, "temperature": temperature}
    want = kernel.decide(*case, 0.3, **law).mask
    order = torch.arange(-(-V // 1024)).flip(0)
    assert torch.equal(kernel.mask(*case, 0.3, is_lazy=True, **law), want)
    assert torch.equal(kernel.mask(*case, 0.3, is_lazy=True, order=order, **law), want)
    assert kernel.is_slow or 0 < want.sum() < rows


@pytest.mark.parametrize("form", ["target", "dense"])
def test_both_launches_give_the_same_bits(gpu, monkeypatch, form):
    case, temperature = draw(3, 4097, form=form)
    temperature[1] = math.nan
    seen = []
    for few in (1 << 30, 0):
        monkeypatch.setattr(gpu.launch, "FEW_ROWS", few)
        seen.append(gpu.decide(*case, 0.3, temperature=temperature, **LAW))
        if form == "target":
            seen[-1] = (*seen[-1], gpu.log_prob(*case[:2], temperature))
    assert same_bits(*seen)


@pytest.mark.parametrize("form", ["target", "dense"])
def test_threads(cpu, threads, form):
    case, temperature = draw(4000, 100, form=form)
    seen = []
    for count in (1, 3):
        threads(count)
        seen.append(cpu.decide(*case, 0.3, temperature=temperature, **LAW))
    assert same_bits(*seen)
