"""estimate_M against float64 torch: values, layouts, invalid rows."""

import math
import re

import numpy as np
import pytest
import torch

from rskernels import accept
from rskernels.envelope import estimate_M

INF = math.inf
# Absolute error of log M below the margin, float32 logits of ordinary size.
TOLERANCE = 1e-6
WIDTHS = [1, 2, 31, 4095, 4096, 4097, 32000]


def reference(logits, p_hat, targets=None, temperature=1.0, log_space=False):
    """Return the log ratios in float64; NaN where invalid."""
    z = logits.double()
    top = z.amax(-1, keepdim=True)
    bad = z.isnan().any(-1) | (top.squeeze(-1).abs() == INF)
    log_q = torch.log_softmax((z - top) / temperature, -1)
    log_p = torch.as_tensor(p_hat).double()
    log_p = log_p if log_space else log_p.log()
    if targets is not None:
        log_q = log_q.gather(-1, targets.long().clamp(min=0)[..., None]).squeeze(-1)
    else:
        bad = bad[..., None]
    log_ratio = torch.where(log_p == -INF, -INF, log_p - log_q)
    return torch.where(bad | ~(log_ratio < INF), math.nan, log_ratio)


def raised(log_ratio):
    """Return log M as documented: raised by the margin."""
    return log_ratio + 2.0**-20 * max(1.0, abs(log_ratio))


def nanmax(log_ratio):
    return raised(log_ratio[~log_ratio.isnan()].max().item())


def problem(*shape, dtype=torch.float32, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(*shape, generator=generator) * scale).to(dtype)
    targets = torch.randint(0, shape[-1], shape[:-1], generator=generator)
    p_hat = torch.rand(shape[:-1], generator=generator)
    return logits, p_hat, targets


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("columns", WIDTHS)
def test_targets_agree_with_float64(columns, temperature):
    logits, p_hat, targets = problem(9, columns)
    log_M = math.log(estimate_M(logits, p_hat, targets=targets, temperature=temperature))
    expected = nanmax(reference(logits, p_hat, targets, temperature))
    assert log_M == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("p_shape", [(), (1,), (4, 1), (-1,), (4, -1)], ids=str)
def test_dense_form_agrees_with_float64(columns, p_shape):
    logits, _, _ = problem(4, columns)
    shape = [columns if n == -1 else n for n in p_shape]
    p_hat = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    expected = nanmax(reference(logits, p_hat))
    assert math.log(estimate_M(logits, p_hat)) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p_dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(dtype, p_dtype):
    logits, p_hat, targets = problem(6, 4100, dtype=dtype)
    p_hat = p_hat.to(p_dtype)
    # The logits are widened without rounding, so only the float32 sum is off.
    tolerance = 1e-13 if dtype == torch.float64 else TOLERANCE
    log_M = estimate_M(logits, p_hat.log(), targets=targets, log_space=True)
    expected = nanmax(reference(logits, p_hat.log(), targets, log_space=True))
    assert log_M == pytest.approx(expected, abs=tolerance)
    dense = p_hat[:, None].expand_as(logits)
    expected = nanmax(reference(logits, dense))
    assert math.log(estimate_M(logits, dense)) == pytest.approx(expected, abs=tolerance)


def layouts():
    full, _, _ = problem(6, 8, 4100)
    yield "next token", full[:, :-1]
    yield "inner rows skipped", full[:, ::3]
    yield "outer rows reversed", full.flip(0)[1:]
    yield "column slice", full[..., 3:4000]
    yield "columns skipped", full[..., ::2]
    yield "transposed rows", full.transpose(0, 1)
    yield "transposed columns", full[0].t().contiguous().t()
    yield "columns outermost", full.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    yield "expanded rows", full[:1].expand(5, -1, -1)
    yield "expanded columns", full[..., :1].expand(-1, -1, 33)
    yield "three levels", full.view(2, 3, 8, 4100)[:, :2, :5]
    yield "one row", full[0, 0]


@pytest.mark.parametrize(
    ("name", "logits"), list(layouts()), ids=lambda v: v if type(v) is str else ""
)
def test_layouts_give_the_bits_of_the_contiguous_tensor(name, logits):
    _, p_hat, targets = problem(*logits.shape)
    packed = logits.contiguous()
    assert estimate_M(logits, p_hat, targets=targets) == estimate_M(packed, p_hat, targets=targets)
    p_dense = torch.rand(logits.shape[-1])
    assert estimate_M(logits, p_dense) == estimate_M(packed, p_dense)
    strided = torch.rand(2 * logits.shape[-1])[::2]
    assert estimate_M(logits, strided) == estimate_M(packed, strided.contiguous())


@pytest.mark.parametrize("offset", [-1e4, 0.0, 1e4])
def test_large_logits_keep_their_digits(offset):
    logits, p_hat, targets = problem(16, 5000, scale=1.0)
    logits += offset
    expected = nanmax(reference(logits, p_hat, targets))
    log_M = estimate_M(logits, p_hat.log(), targets=targets, log_space=True)
    assert log_M == pytest.approx(expected, abs=TOLERANCE)


def test_distant_logits_give_a_large_log_M():
    logits = torch.full((1, 5000), -1e4)
    logits[0, 4500] = 1e4
    targets = torch.tensor([3])
    assert estimate_M(logits, 0.0, targets=targets, log_space=True) == raised(2e4)
    with pytest.raises(ValueError, match="has no float64 M; pass p_hat with log_space=True"):
        estimate_M(logits, 1.0, targets=targets)


@pytest.mark.parametrize("temperature", [0.25, 1.0])
def test_M_covers_the_rows_it_came_from_on_another_backend(temperature):
    for seed in range(10):
        logits, p_hat, targets = problem(64, 1000, scale=5.0, seed=seed)
        options = {"targets": targets, "temperature": temperature}
        M = estimate_M(logits, p_hat, **options)
        assert accept(logits, p_hat, M, seed=0, **options).counts[1] == 0
        log_q = torch.log_softmax(logits / temperature, -1)
        log_q = log_q.gather(-1, targets[:, None]).squeeze(-1)
        assert (p_hat.log() - log_q).max().item() <= math.log(M)


@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0])
def test_dense_entries_exceed_M_by_the_rounding_of_log_q_at_most(scale):
    # Every ratio is 1, so that entries of small q are as close to M as those of large q.
    logits, _, _ = problem(20, 1000, scale=scale)
    p_hat = torch.softmax(logits.double(), -1)
    M = estimate_M(logits, p_hat)
    result = accept(logits, p_hat, M, seed=0)
    assert (result.log_ratio - math.log(M) <= 2.0**-22 * result.log_prob.abs()).all()


def test_impossible_classes():
    logits, p_hat, targets = problem(8, 5000)
    logits[:, 100:4200] = -INF
    targets[:] = 4999
    expected = nanmax(reference(logits, p_hat, targets))
    M = estimate_M(logits, p_hat, targets=targets)
    assert math.log(M) == pytest.approx(expected, abs=TOLERANCE)
    p_dense = torch.rand(5000)
    p_dense[100:4200] = 0.0
    expected = nanmax(reference(logits, p_dense))
    assert math.log(estimate_M(logits, p_dense)) == pytest.approx(expected, abs=TOLERANCE)


def invalid_rows():
    z, targets = torch.zeros(1, 9), torch.tensor([0])
    for value in (math.nan, INF):
        for column in (0, 8):
            bad = z.clone()
            bad[0, column] = value
            yield f"logit {value} at {column}", bad, 1.0, targets, False
    yield "only -inf logits", z - INF, 1.0, targets, False
    for p_hat in (math.nan, -1e-9, -INF, INF):
        yield f"p_hat {p_hat}", z, p_hat, targets, False
    for p_hat in (math.nan, INF):
        yield f"log p_hat {p_hat}", z, p_hat, targets, True
    impossible = z.clone()
    impossible[0, 0] = -INF
    yield "q = 0 < p_hat", impossible, 1e-9, targets, False


@pytest.mark.parametrize(
    ("name", "logits", "p_hat", "targets", "log_space"),
    list(invalid_rows()),
    ids=lambda v: v if type(v) is str else "",
)
def test_invalid_rows_are_left_out(name, logits, p_hat, targets, log_space):
    p_alone = torch.tensor([p_hat], dtype=torch.float64)
    with pytest.raises(ValueError, match=re.escape("(0 valid, 1 invalid, 0 ignored)")):
        estimate_M(logits, p_alone, targets=targets, log_space=log_space)
    # Beside a valid row of a far smaller ratio only the valid one counts.
    both = torch.cat((logits, torch.zeros(1, 9)))
    p_both = torch.tensor([p_hat, math.log(1e-3) if log_space else 1e-3], dtype=torch.float64)
    log_M = estimate_M(both, p_both, targets=torch.tensor([0, 0]), log_space=log_space)
    log_M = log_M if log_space else math.log(log_M)
    assert log_M == pytest.approx(raised(math.log(9e-3)), abs=TOLERANCE)


def test_dense_form_leaves_out_invalid_entries():
    logits = torch.zeros(3, 5)
    logits[0, 2] = math.nan
    logits[1, 4] = -INF
    p_hat = torch.full((3, 5), 0.1)
    p_hat[2, 0], p_hat[2, 1], p_hat[2, 2] = math.nan, -1.0, INF
    assert estimate_M(logits, p_hat) == pytest.approx(0.5, rel=1e-5)
    p_hat[2, 3:] = math.nan
    assert estimate_M(logits, p_hat) == pytest.approx(0.4, rel=1e-5)
    p_hat[1] = -1.0
    with pytest.raises(ValueError, match=re.escape("(0 valid, 15 invalid, 0 ignored)")):
        estimate_M(logits, p_hat)


def test_supremum_zero_is_an_error():
    logits = torch.zeros(3, 4)
    logits[0, 0] = -INF
    targets = torch.tensor([0, 1, -100])
    with pytest.raises(
        ValueError, match=re.escape("max of p_hat / q is 0 (2 valid, 0 invalid, 1 ignored)")
    ):
        estimate_M(logits, 0.0, targets=targets)


def test_no_rows():
    with pytest.raises(ValueError, match=re.escape("(0 valid, 0 invalid, 0 ignored)")):
        estimate_M(torch.zeros(0, 4), 1.0)
    with pytest.raises(ValueError, match=re.escape("(0 valid, 0 invalid, 2 ignored)")):
        estimate_M(torch.zeros(2, 4), 1.0, targets=torch.tensor([-100, -100]))


def test_ignored_rows_may_hold_anything():
    logits = torch.zeros(2, 4)
    logits[0] = math.nan
    targets = torch.tensor([7, 1], dtype=torch.int32)
    M = estimate_M(logits, torch.tensor([-1.0, 0.5]), targets=targets, ignore_index=7)
    assert pytest.approx(2.0, rel=1e-5) == M


@pytest.mark.parametrize("target", [4, -1, 2**62, -(2**63)])
def test_target_out_of_range(target):
    targets = torch.tensor([0, target])
    message = f"targets must be in [0, 4) or equal to ignore_index (-100), got {target} in row 1"
    with pytest.raises(IndexError, match=re.escape(message)):
        estimate_M(torch.zeros(2, 4), 1.0, targets=targets)


@pytest.mark.parametrize("level", [0.001, 0.25, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("dense", [False, True])
def test_quantile(level, dense):
    logits, p_hat, targets = problem(1501, 300)
    targets = None if dense else targets
    p_hat = p_hat[:, None] if dense else p_hat
    ratios = reference(logits, p_hat, targets).reshape(-1).sort().values
    exact = ratios[math.ceil(level * ratios.numel()) - 1].item()
    log_M = estimate_M(
        logits, p_hat.log(), targets=targets, log_space=True, method="quantile", level=level
    )
    assert exact - TOLERANCE <= log_M <= raised(exact + 1 / 256) + TOLERANCE


def test_the_largest_quantile_is_finite():
    log_M = estimate_M(
        torch.zeros(1, 2, dtype=torch.float64), 1e307, method="quantile", level=1.0, log_space=True
    )
    assert 1e307 <= log_M < INF


def test_level_may_be_a_numpy_scalar():
    logits, p_hat, targets = problem(50, 10)
    options = {"targets": targets, "method": "quantile"}
    expected = estimate_M(logits, p_hat, level=0.5, **options)
    assert estimate_M(logits, p_hat, level=np.float32(0.5), **options) == expected


def negated(tensor):
    """Return the same values with the negative bit set."""
    lazy = torch.conj(torch.complex(torch.zeros_like(tensor), -tensor)).imag
    assert lazy.is_neg()
    return lazy


@pytest.mark.parametrize("form", ["targets", "dense"])
def test_negative_bit(form):
    logits, p_hat, targets = problem(8, 50)
    if form == "dense":
        p_hat, targets = torch.rand(8, 50), None
    expected = estimate_M(logits, p_hat, targets=targets)
    assert estimate_M(negated(logits), p_hat, targets=targets) == expected
    assert estimate_M(logits, negated(p_hat), targets=targets) == expected
    assert estimate_M(logits, torch._neg_view(-p_hat.double()), targets=targets) == expected
    if targets is not None:
        assert estimate_M(logits, p_hat, targets=torch._neg_view(-targets)) == expected


def test_requires_grad_is_no_obstacle():
    logits, p_hat, targets = problem(4, 10)
    plain = estimate_M(logits, p_hat, targets=targets)
    assert estimate_M(logits.requires_grad_(), p_hat.requires_grad_(), targets=targets) == plain
