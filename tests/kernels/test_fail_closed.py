"""Law 4: what has no meaning is rejected and counted, and its neighbours do not notice."""

import math

import pytest
import torch

import rskernels

from ..support.bits import same_bits
from ..support.cases import draw_case
from ..support.guarded import run_guarded

NAN, INF = math.nan, math.inf
# Of a row of 8193: the first lanes of a block, its last, the block after, and the tail of the row.
PLACES = [0, 1, 15, 16, 63, 4095, 4096, 8191, 8192]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# Would be accepted surely, were the row sound.
CERTAIN = {"density": 1e6, "M": 1.0, "seed": 3}


def decide(backend, logits, targets, **change):
    law = {**CERTAIN, **change}
    arguments = (logits, targets, law.pop("density"), law.pop("M"))
    seen = backend.decide(*arguments, **law)
    if not backend.is_slow:
        assert torch.equal(backend.mask(*arguments, **law), seen.mask)
    return seen


def assert_only_row_1_is_rejected(seen, before):
    assert not seen.mask[1].any()
    assert seen.log_ratio[1].isnan().all()
    rejected = seen.mask[1].numel()
    assert seen.counts.tolist() == [before.counts[0] - rejected, seen.counts[1], rejected, 0]
    others = [0, 2]
    assert same_bits([part[others] for part in seen[:3]], [part[others] for part in before[:3]])
    assert seen.excess.isfinite().all()


@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", ["target", "dense"])
def test_nan_and_inf_logits_anywhere(backend, form, place, bad):
    if backend.is_slow and place not in (0, 4095, 4096, 8192):
        pytest.skip("interpreted Triton takes milliseconds a row")
    for dtype in DTYPES if backend.name == "cpu" else DTYPES[:1]:
        logits, targets, _ = draw_case((3, 8193), dtype, spread=1.0)
        targets = targets if form == "target" else None
        before = decide(backend, logits, targets)
        assert before.mask.all()
        logits[1, place] = bad
        seen = decide(backend, logits, targets)
        assert_only_row_1_is_rejected(seen, before)
        assert seen.log_prob[1].isnan().all()


@pytest.mark.parametrize("V", [1, 16, 17, 4097])
@pytest.mark.parametrize("fill", [NAN, INF, -INF])
@pytest.mark.parametrize("form", ["target", "dense"])
def test_rows_of_nothing_else(backend, form, fill, V):
    if backend.is_slow and V in (1, 16):
        pytest.skip("interpreted Triton takes milliseconds a row")
    logits, targets, _ = draw_case((3, V), spread=1.0)
    targets = targets if form == "target" else None
    before = decide(backend, logits, targets)
    logits[1] = fill
    assert_only_row_1_is_rejected(decide(backend, logits, targets), before)


@pytest.mark.parametrize("form", ["target", "dense"])
@pytest.mark.parametrize("model_is_target", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("bad", "log_space"), [(NAN, False), (-1e-3, False), (-INF, False), (INF, False),
                           (NAN, True), (INF, True)],
)  # fmt: skip
def test_densities_that_are_none(backend, form, model_is_target, dtype, bad, log_space):
    if backend.is_slow and dtype != torch.float32:
        pytest.skip("interpreted Triton takes milliseconds a row")
    logits, targets, _ = draw_case((3, 18), spread=1.0)
    density = torch.full((3,), -9.0 if model_is_target else 9.0, dtype=dtype)
    density = density if log_space else density.exp()
    if form == "dense":
        targets, density = None, density[:, None].expand(3, 18).clone()
    law = {"log_space": log_space, "M": 0.0 if log_space else 1.0}
    before = decide(
        backend, logits, targets, density=density, model_is_target=model_is_target, **law
    )
    assert before.mask.all()
    density[1] = bad
    seen = decide(backend, logits, targets, density=density, model_is_target=model_is_target, **law)
    assert_only_row_1_is_rejected(seen, before)
    # The model's own log-probability is still told.
    assert same_bits(seen.log_prob, before.log_prob)


@pytest.mark.parametrize("form", ["target", "dense"])
@pytest.mark.parametrize(
    ("bad", "log_space"),
    [(NAN, False), (0.0, False), (-0.0, False), (-2.0, False), (-INF, False),
     (NAN, True), (-INF, True)],
)  # fmt: skip
def test_envelopes_that_are_none(backend, form, bad, log_space):
    logits, targets, _ = draw_case((3, 18), spread=1.0)
    shape = (3, 1) if form == "dense" else (3,)
    targets = targets if form == "target" else None
    M = torch.full(shape, 0.0 if log_space else 1.0)
    law = {"density": 9.0 if log_space else 1e4, "log_space": log_space}
    before = decide(backend, logits, targets, M=M, **law)
    M[1] = bad
    seen = decide(backend, logits, targets, M=M, **law)
    assert_only_row_1_is_rejected(seen, before)


@pytest.mark.parametrize("form", ["target", "dense"])
def test_an_infinite_envelope_accepts_nothing_and_is_valid(backend, form):
    logits = torch.zeros(3, 5)
    targets = torch.zeros(3, dtype=torch.int64) if form == "target" else None
    for M in (INF, torch.tensor(INF)):
        seen = decide(backend, logits, targets, M=M)
        assert not seen.mask.any()
        assert seen.counts.tolist() == [0, 0, 0, 0]
        assert seen.excess.tolist() == [0, 0]


@pytest.mark.parametrize("form", ["target", "dense"])
def test_a_target_density_of_0_is_a_ratio_of_0(backend, form):
    # Whatever the proposal's density is.
    half = backend.rows(20)
    logits = torch.zeros(2 * half, 3)
    logits[half:, 0] = -INF
    targets = torch.zeros(2 * half, dtype=torch.int64) if form == "target" else None
    for zero in (0.0, torch.tensor(0.0), torch.tensor(-0.0)):
        seen = decide(backend, logits, targets, density=zero)
        assert not seen.mask.any()
        assert seen.log_ratio.eq(-INF).all()
        assert seen.counts.tolist() == [0, 0, 0, 0]
    seen = decide(backend, logits, targets, density=-INF, M=0.0, log_space=True)
    assert seen.counts.tolist() == [0, 0, 0, 0]
    model = decide(backend, logits[half:], None if form == "dense" else targets[half:],
                   density=0.5, model_is_target=True)  # fmt: skip
    column = model.mask if form == "target" else model.mask[:, 0]
    assert not column.any()
    assert model.counts[2] == 0


@pytest.mark.parametrize("form", ["target", "dense"])
@pytest.mark.parametrize("model_is_target", [False, True])
def test_a_proposal_density_of_0_is_invalid(backend, form, model_is_target):
    # Nothing is drawn where the proposal has no density.
    logits = torch.zeros(4, 3)
    if not model_is_target:
        logits[:, 0] = -INF
    targets = torch.zeros(4, dtype=torch.int64) if form == "target" else None
    density = 0.0 if model_is_target else 0.5
    seen = decide(backend, logits, targets, density=density, model_is_target=model_is_target)
    column = seen.mask if form == "target" else seen.mask[:, 0]
    assert not column.any()
    assert seen.counts[2] == (4 if form == "target" else 12 if model_is_target else 4)
    assert seen.excess.isfinite().all()


@pytest.mark.parametrize("target", [-1, -101, 5, 6, 2**31, -(2**63), 2**63 - 1])
def test_targets_outside_the_row(backend, target):
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 4])
    before = decide(backend, logits, targets)
    targets[1] = target
    if backend.name == "cpu":
        for call in (backend.decide, backend.mask):
            with pytest.raises(
                IndexError, match=rf"\[0, 5\).*ignore_index \(-100\), got {target} in row 1$"
            ):
                call(logits, targets, 1.0)
        with pytest.raises(IndexError, match=f"got {target} in row 1$"):
            backend.log_prob(logits, targets)
    else:
        seen = decide(backend, logits, targets)
        assert_only_row_1_is_rejected(seen, before)
        assert seen.log_prob[1].isnan()


@pytest.mark.parametrize("ignore_index", [-100, -1, 2, 5, 2**40])
def test_ignored_rows_are_counted_apart(backend, ignore_index):
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 4, 3])
    before = decide(backend, logits, targets)
    targets[1:3] = ignore_index
    # Being ignored comes before being invalid.
    logits[2], density, M = NAN, torch.full((4,), 1e6), torch.ones(4)
    density[1], M[1] = NAN, -1
    seen = decide(backend, logits, targets, density=density, M=M, ignore_index=ignore_index)
    assert seen.counts.tolist() == [2, seen.counts[1], 0, 2]
    assert seen.mask.tolist() == [True, False, False, True]
    assert seen.log_prob.isnan().tolist() == [False, True, True, False]
    assert seen.log_ratio.isnan().tolist() == [False, True, True, False]
    assert same_bits([part[[0, 3]] for part in seen[:3]], [part[[0, 3]] for part in before[:3]])


def test_all_rows_rejected_or_ignored(backend):
    logits = torch.full((4, 5), NAN)
    targets = torch.zeros(4, dtype=torch.int64)
    assert decide(backend, logits, targets).counts.tolist() == [0, 0, 4, 0]
    assert decide(backend, logits, None).counts.tolist() == [0, 0, 20, 0]
    seen = decide(backend, logits, targets - 100)
    assert seen.counts.tolist() == [0, 0, 0, 4]
    assert seen.excess.tolist() == [0, 0]


def test_public_functions_raise_for_a_target_outside():
    logits, targets = torch.zeros(2, 3, 4), torch.tensor([[0, 1, 2], [3, 4, -5]])
    for call in (rskernels.accept_mask, rskernels.verify_mask, rskernels.accept, rskernels.verify):
        with pytest.raises(IndexError, match=r"in \[0, 4\) .* got 4 in row 4$"):
            call(logits, 0.5, 1.0, targets=targets, seed=0)
    with pytest.raises(IndexError, match=r"in \[0, 4\) .* got 4 in row 4$"):
        rskernels.target_log_prob(logits, targets)
    with pytest.raises(IndexError, match=r"got -5 in row 5$"):
        rskernels.accept_mask(logits, 0.5, 1.0, targets=targets.clamp(max=3), seed=0)


GUARDED = """
from rskernels.kernels import {name} as kernels
from rskernels.law.decision import Law

for dtype in {dtypes}:
    for V in {widths}:
        for at_end in (False, True):
            logits = guarded(torch.randn(2, V).to(dtype), at_end)
            targets = guarded(torch.tensor([0, V - 1]), at_end)
            density = guarded(torch.rand(2), at_end)
            kernels.decide(logits, targets, Law(density, 1.0, 7))
            for shape in ((2, V), (V,)):
                kernels.decide(logits, None, Law(guarded(torch.rand(shape), at_end), 1.0, 7))
            # Of a row that is soon rejected, and of one that never is.
            q_hat = guarded(torch.tensor([1.0, 1e-9]), at_end)
            lazy = Law(q_hat, 1.0, 7, model_is_target=True), True
            order = guarded(torch.arange(-(-V // 1024)).flip(0), at_end)
            kernels.mask(logits, targets, *lazy)
            kernels.mask(logits, targets, *lazy, order)
            kernels.mask(logits[:, ::2], targets * 0, *lazy)
            ratios = guarded(torch.randn(V).to(dtype), at_end)
            kernels.bernoulli(ratios, 1.0, 7, 0, 0, False)
            kernels.decide_ratios(ratios, ratios, 7, 0, 0, True)
            log_prob, totals = kernels.target_log_prob(logits, targets, 1.0, -100)
            upstream = guarded(torch.ones(2, dtype=log_prob.dtype), at_end)
            kernels.target_log_prob_backward(upstream, logits, targets, totals, 1.0, -100)
            kernels.decide(logits[:, V // 2 :], targets * 0, Law(density, 1.0, 7))
            kernels.decide(logits[:, ::2], targets * 0, Law(density, 1.0, 7))
print("unharmed")
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "widths"),
    [("cpu", (1, 2, 15, 16, 17, 63, 64, 65, 511, 513, 2049, 4095, 4096, 4097, 8191, 8193)),
     ("gpu", (17, 4097))],
)  # fmt: skip
def test_no_memory_outside_a_tensor_is_read(name, widths):
    if name == "gpu" and torch.cuda.is_available():
        pytest.skip("protects the CPU's memory")
    # Interpreted Triton reads all of them alike.
    dtypes = DTYPES if name == "cpu" else DTYPES[:1]
    code = GUARDED.format(name=name, widths=widths, dtypes=f"({', '.join(map(str, dtypes))},)")
    assert run_guarded(code) == "unharmed"
