"""Decisions that stop reading: the same as those of a full pass, in any order of the columns."""

import itertools
import math

import pytest
import torch

import rskernels
from rskernels import ColumnOrder
from rskernels.kernels import reference

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Within the head of the CPU's rows, and a column beyond it, the next part and the first two blocks.
WIDTHS = (1, 60, 512, 513, 2049, 8193, 16385)
BLOCKS = (-(-17000 // ColumnOrder.BLOCK), 17000)


def noise(logits, generator):
    return logits


def rising(logits, generator):
    return logits.sort(-1).values


def last_is_largest(logits, generator):
    logits[..., -1] = logits.amax(-1) + 12.0
    return logits


def with_holes(logits, generator):
    holes = torch.rand(logits.shape, generator=generator) < 0.3
    return logits.masked_fill(holes, -math.inf)


def with_masked_columns(logits, generator):
    # As far below as a float32 goes, like the masks of attention: over T < 1 it goes no further.
    holes = torch.rand(logits.shape, generator=generator) < 0.3
    return logits.masked_fill(holes, -3.38e38)


def far_from_zero(logits, generator):
    return logits + torch.linspace(-1e4, 1e4, len(logits))[:, None]


def wide(logits, generator):
    return 2500.0 * logits


def class_far_below(logits, generator):
    # Beyond what a float32 holds of the others' sum against it.
    logits[..., 0] = -100.0
    return logits


def class_far_above(logits, generator):
    logits[..., 0] = 100.0
    return logits


def extremes_of_float16(logits, generator):
    return logits.sign() * 65504.0


KINDS = (
    noise, rising, last_is_largest, with_holes, with_masked_columns, far_from_zero, wide,
    class_far_below, class_far_above, extremes_of_float16,
)  # fmt: skip
# Means and spreads of log r: from hardly any row accepted to all of them.
ACCEPTANCES = ((-7.0, 0.5), (-4.0, 1.0), (-1.5, 2.0), (0.0, 3.0), (2.0, 0.5))


def draw(kind, dtype, rows, V, decisions, seed, temperature=1.0):
    """Return logits [decisions, rows, V], targets and log densities of the model's entries."""
    generator = torch.Generator().manual_seed(seed)
    logits = kind(torch.randn(rows, V, generator=generator) * 2.0, generator).to(dtype)
    targets = torch.randint(V, (decisions, rows), generator=generator)
    targets[::4] = 0
    log_q = reference.log_softmax(logits, temperature)[0]
    log_prob = log_q.gather(-1, targets.mT).mT
    chosen = torch.randint(len(ACCEPTANCES), (decisions,), generator=generator)
    mean, spread = torch.tensor(ACCEPTANCES).double()[chosen].unbind(-1)
    log_r = torch.randn(decisions, rows, generator=generator).double() * spread[:, None]
    log_r += mean[:, None]
    return logits.expand(decisions, rows, V), targets, log_prob.clamp(min=-1e6), log_r


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_million_lazy_decisions_are_those_of_the_full_pass(cpu, dtype):
    # 4 dtypes x 10 kinds x 7 widths x 2 roles x 3200 decisions.
    decided = accepted = 0
    for kind, (at, V) in itertools.product(KINDS, enumerate(WIDTHS)):
        temperature = (1.0, 0.5, 7.0)[at % 3]
        logits, targets, log_prob, log_r = draw(kind, dtype, 16, V, 200, at, temperature)
        for model_is_target in (False, True):
            density = log_prob - log_r if model_is_target else log_prob + log_r
            law = {
                "seed": at + 100 * model_is_target, "temperature": temperature,
                "log_space": True, "model_is_target": model_is_target,
            }  # fmt: skip
            full = cpu.mask(logits, targets, density, 0.0, **law)
            lazy = cpu.mask(logits, targets, density, 0.0, is_lazy=True, **law)
            assert torch.equal(full, lazy), f"{kind.__name__}, V = {V}, target {model_is_target}"
            decided += full.numel()
            accepted += int(full.sum())
    assert decided == 448_000
    assert 0.2 < accepted / decided < 0.8


@pytest.fixture
def a_row_a_program(kernel, monkeypatch):
    """Let a GPU read few rows as it reads many: only then may a row be left."""
    if kernel.name == "gpu":
        monkeypatch.setattr(kernel.launch, "FEW_ROWS", 0)


@pytest.mark.usefixtures("a_row_a_program")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("V", [300, 9000])
@pytest.mark.parametrize("model_is_target", [False, True])
def test_lazy_decisions_of_every_kernel(kernel, kind, V, model_is_target):
    for dtype in (torch.bfloat16, torch.float64):
        logits, targets, log_prob, log_r = draw(kind, dtype, 4, V, kernel.rows(40, slow=4), 5)
        density = log_prob - log_r if model_is_target else log_prob + log_r
        law = {"seed": 3, "log_space": True, "model_is_target": model_is_target}
        full = kernel.mask(logits, targets, density, 0.0, **law)
        lazy = kernel.mask(logits, targets, density, 0.0, is_lazy=True, **law)
        assert torch.equal(full, lazy)
        assert 0 < full.sum() < full.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bound_itself(cpu, dtype):
    # Acceptance ratios a few roundings around u: where leaving too early would show.
    logits, targets, log_prob, _ = draw(noise, dtype, 16, 17000, 400, 0)
    log_u = rskernels.uniforms((400, 16), seed=9).log()
    step = torch.randint(-40, 41, (400, 16), generator=torch.Generator().manual_seed(1))
    log_r = log_u + step * 2.0 ** (-24 if dtype == torch.float32 else -50)
    law = {"seed": 9, "log_space": True, "model_is_target": True}
    full = cpu.mask(logits, targets, log_prob - log_r, 0.0, **law)
    lazy = cpu.mask(logits, targets, log_prob - log_r, 0.0, is_lazy=True, **law)
    assert torch.equal(full, lazy)
    assert 0.2 < full.float().mean() < 0.8


def rows_with(value):
    """Return a case whose decisions are certain by the head, and ``value`` at the rows' end."""
    logits = torch.zeros(20, 9000)
    logits[:, 0] = -5.0
    logits[:, -1] = value
    return logits, torch.zeros(20, dtype=torch.int64)


@pytest.mark.usefixtures("a_row_a_program")
def test_what_is_not_read_does_not_matter(kernel):
    # Of q = exp(-5)/9000 alone the rest of the row leaves hardly a doubt.
    logits, targets = rows_with(math.nan)
    law = {"seed": 0, "is_lazy": True}
    assert kernel.mask(logits, targets, 1.0, 1.0, **law).all()
    assert not kernel.mask(logits, targets, 1.0, 1.0, seed=0).any()
    assert not kernel.mask(logits, targets, 1.0, 1.0, model_is_target=True, **law).any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_accept_mask_reads_to_the_end_unless_told_not_to(value):
    logits, targets = rows_with(value)
    options = {"targets": targets, "seed": 1}
    assert not rskernels.accept_mask(logits, 0.9, 1.0, **options).any()
    assert rskernels.accept_mask(logits, 0.9, 1.0, assume_finite=True, **options).sum() > 12


@pytest.mark.usefixtures("a_row_a_program")
@pytest.mark.parametrize(
    ("q_hat", "M"), [(math.nan, 1.0), (-1.0, 1.0), (math.inf, 1.0), (0.0, 1.0), (0.1, math.nan)]
)
def test_invalid_rows_stay_rejected(kernel, q_hat, M):
    logits, targets = torch.zeros(4, 600), torch.zeros(4, dtype=torch.int64)
    densities, Ms = torch.full((4,), 1e-9), torch.ones(4)
    densities[2], Ms[2] = q_hat, M
    for model_is_target in (False, True):
        mask = kernel.mask(
            logits, targets, densities if model_is_target else densities * 1e12, Ms,
            seed=0, model_is_target=model_is_target, is_lazy=True,
        )  # fmt: skip
        assert mask.tolist() == [True, True, False, True]


@pytest.mark.usefixtures("a_row_a_program")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_target_logit_that_decides_alone(kernel, bad):
    logits, targets = torch.zeros(4, 600), torch.full((4,), 599)
    logits[1, 599] = bad
    for model_is_target, density in ((False, 1e3), (True, 1e-9)):
        law = {"seed": 0, "model_is_target": model_is_target, "is_lazy": True}
        mask = kernel.mask(logits, targets, density, 1.0, **law)
        assert mask.tolist() == [True, False, True, True]


def test_the_masks_decide_as_their_full_forms(cpu):
    logits, targets, log_prob, log_r = draw(noise, torch.float32, 16, 9000, 100, 2)
    options = {"targets": targets, "seed": 4, "log_space": True}
    lazy = rskernels.verify_mask(logits, log_prob - log_r, **options)
    assert torch.equal(lazy, rskernels.verify(logits, log_prob - log_r, **options).mask)
    lazy = rskernels.accept_mask(logits, log_prob + log_r, None, assume_finite=True, **options)
    assert torch.equal(lazy, rskernels.accept(logits, log_prob + log_r, None, **options).mask)


@pytest.mark.parametrize("is_lazy", [False, True])
def test_an_order_of_columns_is_as_invariant_as_none(kernel, monkeypatch, is_lazy):
    blocks, V = BLOCKS
    order = torch.randperm(blocks, generator=torch.Generator().manual_seed(3))
    if kernel.name == "gpu":
        monkeypatch.setattr(kernel.launch, "FEW_ROWS", 6)
    logits, targets, log_prob, log_r = draw(noise, torch.float32, 4, V, kernel.rows(66, 3), 6)
    logits, targets, log_r = logits.reshape(-1, V), targets.reshape(-1), log_r.reshape(-1)
    density = log_prob.reshape(-1) - log_r
    law = {"log_space": True, "model_is_target": True, "order": order, "is_lazy": is_lazy}
    whole = kernel.mask(logits, targets, density, 0.0, seed=8, **law)
    plain = kernel.mask(logits, targets, density, 0.0, seed=8, **{**law, "order": None})
    assert (whole != plain).sum() <= 1
    # Few rows, which a GPU sums by chunks side by side, and a part of a batch.
    for rows in (slice(0, 3), slice(4, len(whole))):
        part = kernel.mask(
            logits[rows], targets[rows], density[rows], 0.0, seed=8, row_offset=rows.start, **law
        )
        assert torch.equal(part, whole[rows])


def test_every_column_is_read_in_any_order(cpu):
    # The mass of a row lies in one column: a block left out or read twice would change it.
    blocks, V = BLOCKS
    order = ColumnOrder(torch.arange(blocks).flip(0), V)
    heavy = torch.arange(0, V, 97)
    logits = torch.zeros(len(heavy), V).scatter_(1, heavy[:, None], 30.0)
    options = {"targets": heavy, "seed": 0, "order": order}
    q = 1.0 / (1.0 + (V - 1) * math.exp(-30.0))
    assert rskernels.accept_mask(logits, q * (1 - 1e-5), 1.0, **options).all()
    assert rskernels.verify_mask(logits, q * (1 - 1e-5), **options).all()
    spread = {**options, "targets": (heavy + 1) % V}
    assert not rskernels.verify_mask(logits, 0.5, **spread).any()


def test_order_by_weight():
    weights = torch.zeros(2500)
    weights[2400], weights[1500], weights[3] = 5.0, 9.0, 1.0
    order = ColumnOrder.by_weight(weights)
    assert order.blocks.tolist() == [1, 2, 0]
    assert "3 blocks" in repr(order)
    assert order.to("cpu").blocks.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ColumnOrder([0], 5), TypeError, "blocks must be a torch.Tensor, got list"),
        (lambda: ColumnOrder(torch.zeros(1), 5), TypeError, "int64 or int32, got torch.float32"),
        (lambda: ColumnOrder(torch.tensor([0]), 5.0), TypeError, "V must be an int, got float"),
        (lambda: ColumnOrder(torch.tensor([0]), 0), ValueError, "V must be at least 1, got 0"),
        (lambda: ColumnOrder(torch.tensor([0, 1]), 5), ValueError, r"shape \[1\] for 5 columns"),
        (lambda: ColumnOrder(torch.tensor([1, 1]), 1025), ValueError, "permutation of 0 to 1"),
        (
            lambda: ColumnOrder(torch.zeros(1, dtype=torch.int64, device="meta"), 5),
            ValueError,
            "blocks must be a strided tensor that holds values, got .* on meta",
        ),
        (
            lambda: ColumnOrder.by_weight(torch.ones(5).to_sparse()),
            ValueError,
            "weights must be a strided tensor .* torch.sparse_coo on cpu",
        ),
        (lambda: ColumnOrder.by_weight([1.0]), TypeError, "weights must be a torch.Tensor"),
        (lambda: ColumnOrder.by_weight(torch.ones(2, 2)), ValueError, r"shape \[V\], got"),
        (lambda: ColumnOrder.by_weight(-torch.ones(2)), ValueError, "at least 0, got a negative"),
    ],
)
def test_orders_that_are_none(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_orders_that_do_not_fit():
    order = ColumnOrder(torch.tensor([1, 0]), 1500)
    logits, targets = torch.zeros(2, 1400), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="order is of 1500 columns, the logits have 1400"):
        rskernels.verify_mask(logits, 0.1, targets=targets, order=order)
    with pytest.raises(TypeError, match="order must be a ColumnOrder or None, got Tensor"):
        rskernels.verify_mask(logits, 0.1, targets=targets, order=order.blocks)
    with pytest.raises(ValueError, match="order is given without targets"):
        rskernels.accept_mask(torch.zeros(2, 1500), 0.1, 1.0, order=order)
    with pytest.raises(ValueError, match="order is on cpu, the logits on meta"):
        rskernels.verify_mask(
            torch.zeros(2, 1500, device="meta"), 0.1, targets=targets.to("meta"), order=order
        )
