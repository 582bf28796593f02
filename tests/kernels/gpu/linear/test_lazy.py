"""Decisions that leave products out are those of the full pass, to the last one (law 8)."""

import itertools
import math

import pytest
import torch

from rskernels.kernels.gpu.linear import packing, tiles
from rskernels.law.decision import Law

from .cases import FORMS, Linear, draw_product

pytestmark = pytest.mark.triton
LINEAR = Linear()
BLOCK = 256  # columns, where a launch takes 1,024: the interpreter is slow
V = 5 * BLOCK + 3
# Means and spreads of log r: from hardly any row accepted to nearly all.
ACCEPTANCES = [(-7.0, 0.5), (-2.0, 2.0), (0.0, 3.0), (3.0, 0.5)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Sum small blocks, and one of them first, as where rows fill the device."""
    launch = "rskernels.kernels.gpu.linear.launch"
    monkeypatch.setattr(f"{launch}.BLOCK", BLOCK)
    monkeypatch.setattr(f"{launch}.machine_of", lambda device: tiles.Machine(90, 4))


@pytest.mark.parametrize(
    ("form", "dtype"),
    [("plain", torch.float32), ("all", torch.bfloat16), ("softcap", torch.float64)],
)
def test_lazy_decisions_are_the_full_ones(form, dtype):
    N = 60
    product, targets = draw_product(N, V, 8, dtype, **FORMS[form], spread=3.0)
    T = torch.linspace(0.3, 3.0, N)
    generator = torch.Generator().manual_seed(2)
    log_q = LINEAR.log_prob(product, targets, T)[0].double()
    accepted = 0
    for at, (mean, spread) in enumerate(ACCEPTANCES):
        log_r = mean + spread * torch.randn(N, generator=generator).double()
        order = torch.randperm(6, generator=generator) if at % 2 else None
        for model_is_target in (False, True):
            density = log_q - log_r if model_is_target else log_q + log_r
            law = Law(density, 0.0, 11 + at, 7, T, True, model_is_target)
            full = LINEAR.decide(product, targets, law).mask
            assert torch.equal(LINEAR.mask(product, targets, law, True, order), full)
            accepted += int(full.sum())
    assert 0.2 < accepted / (2 * len(ACCEPTANCES) * N) < 0.8


@pytest.mark.parametrize("is_ordered", [False, True])
def test_what_comes_after_a_certain_decision_is_not_computed(is_ordered):
    product, targets = draw_product(130, V, 8, torch.bfloat16)
    order = torch.tensor([3, 1, 2, 0, 4, 5]) if is_ordered else None
    first = 3 if is_ordered else 0
    # A NaN in any later block would reject the rows that their first block has accepted.
    weight = product.weight
    weight[torch.arange(V) // BLOCK != first] = math.nan
    targets = targets % BLOCK + BLOCK * first
    law = Law(0.0, 5.0, 3, log_space=True)
    sure = Law(-60.0, 5.0, 3, log_space=True)
    assert not LINEAR.decide(product, targets, law).mask.any()
    assert LINEAR.mask(product, targets, law._replace(density=8.0), True, order).all()
    assert not LINEAR.mask(product, targets, sure, True, order).any()


def test_rows_with_nan_inf_and_no_chance_are_rejected():
    product, targets = draw_product(7, 1100, 8, torch.float32)
    product.hidden[0] = math.nan
    product.hidden[1, 0] = math.inf
    density = torch.tensor([-3.0, -3.0, math.inf, math.nan, -math.inf, -3.0, -3.0])
    M = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, math.nan, math.inf])
    for model_is_target, is_lazy in itertools.product((False, True), repeat=2):
        law = Law(density, M, 3, log_space=True, model_is_target=model_is_target)
        assert not LINEAR.mask(product, targets, law, is_lazy).any()
        assert not LINEAR.decide(product, targets, law).mask.any()


def test_open_rows_are_packed_in_order():
    N, chunk = 5000, 64
    generator = torch.Generator().manual_seed(0)
    verdict = torch.randint(3, (N,), generator=generator).to(torch.int8)
    programs = -(-N // chunk)
    counts = torch.stack([(part == 0).sum() for part in verdict.split(chunk)]).int()
    packed, count = torch.empty(N, dtype=torch.int32), torch.empty(1, dtype=torch.int32)

    def pack(rows_ptr, count_ptr, IS_PACKED):
        packing.pack_kernel[(programs,)](
            rows_ptr=rows_ptr, count_ptr=count_ptr, N=N, verdict_ptr=verdict, counts_ptr=counts,
            packed_ptr=packed, packed_count_ptr=count, CHUNK=chunk, IS_PACKED=IS_PACKED,
        )  # fmt: skip
        return packed[: int(count)].long()

    rows = pack(packed, count, False)
    assert torch.equal(rows, (verdict == 0).nonzero()[:, 0])
    before, those = packed.clone(), count.clone()
    verdict[rows[::3]] = 1
    inside = [before[start : start + chunk] for start in range(0, int(those), chunk)]
    inside = [part[: int(those) - at * chunk].long() for at, part in enumerate(inside)]
    counts.zero_()
    counts[: len(inside)] = torch.stack([(verdict[part] == 0).sum() for part in inside]).int()
    assert torch.equal(pack(before, those, True), (verdict == 0).nonzero()[:, 0])
