"""Law 1 without targets: every entry of a row is a decision with a uniform of its own."""

import math

import pytest
import torch

import rskernels
from rskernels.law.decision import Law

from ..support.bits import same_bits
from ..support.cases import draw_case, layouts
from ..support.lawful import assert_lawful

WIDTHS = [1, 2, 10, 15, 16, 17, 63, 64, 65, 1023, 1024, 1025, 4095, 4096, 4097, 8193]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", WIDTHS)
def test_every_width_and_dtype(kernel, V, dtype):
    logits, _, log_p = draw_case((kernel.rows(9, slow=1), V), dtype, seed=V, dense=True)
    got = assert_lawful(kernel, logits, None, log_p, 0.4, seed=V, log_space=True)
    assert got.mask.shape == logits.shape
    assert got.counts[2:].tolist() == [0, 0]


@pytest.mark.parametrize("V", [32000])
def test_wide_rows(kernel, V):
    logits, _, log_p = draw_case((2, V), dense=True)
    assert_lawful(kernel, logits, None, log_p, 0.4, log_space=True, model_is_target=True)


@pytest.mark.parametrize("N", [0, 1, 2, 33, 245, 246, 247, 493])
def test_every_number_of_rows(kernel, N):
    if kernel.is_slow and N > 33:
        pytest.skip("interpreted Triton takes milliseconds a row")
    logits, _, log_p = draw_case((N, 10), dense=True)
    got = assert_lawful(kernel, logits, None, log_p, 0.0, seed=1, log_space=True)
    assert got.mask.shape == (N, 10)


@pytest.mark.parametrize("model_is_target", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_decisions_are_mixed_and_lawful(kernel, dtype, model_is_target):
    logits, _, log_p = draw_case((kernel.rows(200), 100), dtype, dense=True)
    law = {"log_space": True, "model_is_target": model_is_target}
    counts = assert_lawful(kernel, logits, None, log_p, 0.2, **law).counts
    assert 0.4 * logits.numel() < counts[0] < 0.9 * logits.numel()
    assert counts[1] > 0.2 * logits.numel()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 2), (2, 0, 4)])
@pytest.mark.parametrize("layout", ["sliced", "stepped", "transposed"])
def test_leading_shapes_and_layouts(kernel, shape, layout):
    logits, _, log_p = draw_case((*shape, 37), dense=True)
    log_p = log_p.float()
    law = {"seed": 3, "row_offset": 11, "log_space": True}
    want = assert_lawful(kernel, logits, None, log_p, 0.1, **law)
    view = getattr(layouts(logits), layout)
    assert same_bits(kernel.decide(view, None, log_p, 0.1, **law), want)
    # The density lies otherwise than the logits.
    view = getattr(layouts(log_p), layout)
    assert same_bits(kernel.decide(logits, None, view, 0.1, **law), want)
    assert same_bits(kernel.decide(logits, None, view, log_p * 0 + 0.1, **law), want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (19,), (3, 1), (2, 1, 1), (2, 3, 1), (2, 3, 19)])
def test_densities_and_M_broadcast(kernel, shape, dtype):
    logits, _, _ = draw_case((2, 3, 19), dense=True)
    generator = torch.Generator().manual_seed(1)
    density = (0.1 * torch.rand(shape, generator=generator)).to(dtype)
    M = (0.5 + torch.rand(shape, generator=generator)).to(dtype)
    assert_lawful(kernel, logits, None, density, M, seed=2)
    if not kernel.is_slow:
        assert_lawful(kernel, logits, None, 0.05, M, seed=2, model_is_target=True)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5)])
@pytest.mark.parametrize("wide", [False, True])
def test_no_rows(kernel, shape, wide):
    logits = torch.zeros(shape)
    density = torch.ones(shape if wide else 5)
    assert kernel.mask(logits, None, density, density).shape == shape
    assert kernel.decide(logits, None, density, 2.0).counts.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wide", [False, True])
def test_odd_densities(kernel, dtype, wide):
    logits, _, _ = draw_case((kernel.rows(20), 37), dtype, dense=True)
    odd = torch.tensor([0.0, -1.0, math.nan, math.inf, 1e-38, 1e-45, 1e30, 0.1])
    density = (odd if dtype == torch.float64 else odd.float()).repeat(5)[:37]
    density = density.expand(logits.shape).contiguous() if wide else density
    for M in (1.0, 1e-3, 1e3, torch.tensor([0.5]), density.abs()):
        assert_lawful(kernel, logits, None, density, M, seed=4)
    logs = torch.tensor([-math.inf, math.inf, math.nan, -1e4, 1e4, -700.0, 700.0, -3.0])
    density = logs.repeat(5)[:37].expand(logits.shape if wide else (37,)).contiguous()
    for log_M in (0.0, -60.0, 60.0, 1e4):
        assert_lawful(kernel, logits, None, density, log_M, seed=5, log_space=True)


@pytest.mark.parametrize("factor", [1.0, 30.0, 300.0, 3e4])
def test_deep_rows(kernel, factor):
    # The ratio is a small difference of large logarithms.
    logits, _, _ = draw_case((kernel.rows(50), 100), torch.float64)
    logits = (factor * logits).float()
    log_q = logits.double().log_softmax(-1)
    noise = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1))
    assert_lawful(kernel, logits, None, log_q - 5 * noise, 0.0, log_space=True)
    assert_lawful(
        kernel, logits, None, log_q + 5 * noise, 0.0, log_space=True, model_is_target=True
    )


@pytest.mark.parametrize("V", [17, 4100])
def test_a_row_of_V_decides_its_columns(kernel, V):
    # Long-tail class frequencies: one density a class, shared by all rows.
    logits, _, _ = draw_case((3, V))
    density = torch.linspace(1, 2, V) / V
    assert_lawful(kernel, logits, None, density, 1.5, seed=2)
    assert_lawful(kernel, logits, None, density[None], torch.linspace(1, 3, V), seed=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["large", "ascending", "late", "sparse"])
def test_awkward_rows(kernel, kind, dtype):
    rows = kernel.rows(2, slow=1)
    logits = draw_case((rows, 8193), torch.float64, spread=1.0)[0]
    if kind == "large":
        logits = 1e4 * torch.sin(1e3 * logits)
    if kind == "ascending":
        logits = torch.linspace(-300, 300, 8193).expand(rows, -1).clone()
    if kind == "late":
        logits[:, :4096] = -math.inf
    if kind == "sparse":
        logits[torch.rand(logits.shape) < 0.99] = -math.inf
    logits = logits.to(dtype)
    empty = int((logits == -math.inf).sum())
    # No proposal has the class: a target density there is invalid, a target of 0 is not.
    got = assert_lawful(kernel, logits, None, 1e-4, 1.0, seed=8)
    assert got.counts[2] == empty
    got = assert_lawful(kernel, logits, None, 1e-4, 1.0, seed=8, model_is_target=True)
    assert got.counts[2] == 0


@pytest.mark.parametrize("temperature", [0.05, 0.7, 3.0, 20.0, 1e-30, 1e30])
@pytest.mark.parametrize("dtype", DTYPES)
def test_temperatures(kernel, dtype, temperature):
    logits, _, log_p = draw_case((2, 100), dtype, dense=True, temperature=max(temperature, 0.05))
    assert_lawful(kernel, logits, None, log_p, 0.3, temperature=temperature, log_space=True)


@pytest.mark.parametrize("seed", [0, -1, -(2**63), torch.tensor([2**62 + 77])])
@pytest.mark.parametrize("row_offset", [0, 2**32 - 1, 2**63 - 9])
def test_seeds_and_row_ids(kernel, seed, row_offset):
    logits, _, log_p = draw_case((3, 21), dense=True)
    law = {"seed": seed, "row_offset": row_offset, "log_space": True}
    assert_lawful(kernel, logits, None, log_p, 0.0, **law)


def test_column_0_is_the_decision_of_target_0(backend):
    # The same draw decides both forms.
    logits, _, log_p = draw_case((20, 5), torch.float64, dense=True)
    dense = backend.mask(logits, None, log_p, 0.0, seed=6, log_space=True)
    targets = torch.zeros(20, dtype=torch.int64)
    single = backend.mask(logits, targets, log_p[:, 0], 0.0, seed=6, log_space=True)
    assert torch.equal(dense[:, 0], single)


def test_tiny_densities_with_a_tiny_M(kernel):
    # As float32 both would be 0.
    tiny = torch.full((2, 4), 1e-60, dtype=torch.float64)
    got = assert_lawful(kernel, torch.zeros(2, 4), None, tiny, 8 * tiny)
    assert got.counts[2] == 0


@pytest.mark.parametrize("name", ["accept", "verify"])
def test_public_functions_are_the_kernels(name):
    from rskernels.kernels import cpu

    logits, _, log_p = draw_case((4, 3, 50), dense=True)
    law = {"temperature": 0.8, "log_space": True, "seed": -5, "row_offset": 17}
    decide = getattr(rskernels, name)
    mask = getattr(rskernels, f"{name}_mask")
    want = cpu.decide(logits, None, Law(log_p, 0.3, -5, 17, 0.8, True, name == "verify"))
    assert same_bits(decide(logits, log_p, 0.3, targets=None, **law), want)
    assert same_bits(mask(logits, log_p, 0.3, targets=None, **law), want[0])
