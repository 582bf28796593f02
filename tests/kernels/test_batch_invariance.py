"""Law 3: a decision depends on its row's inputs, the seed and the row's id, and nothing else.

All comparisons are of bits: masks, log-probabilities and log ratios.
"""

import pytest
import torch

from ..support.bits import same_bits
from ..support.cases import draw_case, layouts

LAW = {"seed": 21, "log_space": True}


class Batch:
    """Rows with what decides them, and which rows of a batch were asked for."""

    def __init__(self, logits, targets, density, log_M):
        self.parts = (logits, targets, density, log_M)
        self.logits = logits

    def __getitem__(self, rows):
        return Batch(*(None if part is None else part[rows] for part in self.parts))

    def decide(self, backend, row_offset=0):
        seen = backend.decide(*self.parts, row_offset=row_offset, **LAW)
        if not backend.is_slow:
            mask = backend.mask(*self.parts, row_offset=row_offset, **LAW)
            assert torch.equal(mask, seen.mask)
        return seen[:3]


@pytest.fixture(params=["target", "dense"])
def draw_batch(request):
    def draw(N, V, dtype=torch.float32):
        logits, targets, log_p = draw_case(
            (N, V), dtype, dense=request.param == "dense", seed=N + V
        )
        log_M = torch.randn(log_p.shape, generator=torch.Generator().manual_seed(V)).abs()
        return Batch(logits, targets, log_p, log_M)

    return draw


def rows_of(seen, rows):
    return tuple(part[rows] for part in seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("V", [1, 17, 100, 4097])
def test_alone_and_in_a_batch_of_989(kernel, draw_batch, V, dtype):
    if kernel.is_slow and (V > 100 or dtype == torch.float16):
        pytest.skip("interpreted Triton takes milliseconds a row")
    N = kernel.rows(989, slow=7)
    batch = draw_batch(N, V, dtype)
    together = batch.decide(kernel)
    for n in (0, 1, N // 2, N - 2, N - 1):
        alone = batch[n : n + 1].decide(kernel, row_offset=n)
        assert same_bits(alone, rows_of(together, slice(n, n + 1)))


@pytest.mark.parametrize("V", [10, 4100])
def test_permuted_rows(kernel, draw_batch, V):
    N = kernel.rows(200)
    batch = draw_batch(N, V)
    together = batch.decide(kernel)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    # Row ids count positions, so a permuted batch is asked row by row, each under its old id.
    shuffled, ids = batch[order], order.tolist()
    for n in range(0, N, max(1, N // 20)):
        seen = shuffled[n : n + 1].decide(kernel, row_offset=ids[n])
        assert same_bits(seen, rows_of(together, slice(ids[n], ids[n] + 1)))
    # What does not depend on the id is the same in any order.
    assert same_bits(shuffled.decide(kernel)[1:], rows_of(together[1:], order))


@pytest.mark.parametrize("V", [10, 4100])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_split_in_two_with_row_offset(kernel, draw_batch, V, share):
    N = kernel.rows(500)
    batch, cut = draw_batch(N, V), int(N * share)
    whole = batch.decide(kernel, row_offset=2**32 - 1 - N // 2)
    first = batch[:cut].decide(kernel, row_offset=2**32 - 1 - N // 2)
    second = batch[cut:].decide(kernel, row_offset=2**32 - 1 - N // 2 + cut)
    assert same_bits([torch.cat(pair) for pair in zip(first, second, strict=True)], whole)


@pytest.mark.parametrize("V", [10, 37, 4100])
def test_a_row_does_not_feel_its_neighbours(kernel, draw_batch, V):
    N = kernel.rows(100)
    batch, other = draw_batch(N, V), draw_batch(N, V)
    kept = torch.arange(0, N, 2)
    other.logits.mul_(-3e3)
    other.logits[kept] = batch.logits[kept]
    assert same_bits(rows_of(other.decide(kernel), kept), rows_of(batch.decide(kernel), kept))


@pytest.mark.parametrize("V", [37, 48, 4100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_strides_and_alignment(kernel, draw_batch, V, dtype):
    batch = draw_batch(kernel.rows(50, slow=2), V, dtype)
    want = batch.decide(kernel)
    for view in vars(layouts(batch.logits)).values():
        assert same_bits(Batch(view, *batch.parts[1:]).decide(kernel), want)
    # Rows that begin anywhere in a vector register; NumPy has none.
    for start in range(1, 1 if kernel.is_slow else 4):
        room = torch.empty(batch.logits.numel() + start, dtype=dtype)
        moved = room[start:].view(batch.logits.shape).copy_(batch.logits)
        assert same_bits(Batch(moved, *batch.parts[1:]).decide(kernel), want)


@pytest.mark.parametrize("V", [100, 4097])
def test_threads(cpu, draw_batch, threads, V):
    batch = draw_batch(8000 if V == 100 else 300, V)
    seen = []
    for count in (1, 2, 3, 7):
        threads(count)
        seen.append(batch.decide(cpu))
    assert all(same_bits(one, seen[0]) for one in seen)


def test_sums_do_not_depend_on_threads(cpu, draw_batch, threads):
    batch = draw_batch(8000, 100)
    seen = []
    for count in (1, 2, 5):
        threads(count)
        seen.append(cpu.decide(*batch.parts, **LAW)[3:])
    assert all(same_bits(one, seen[0]) for one in seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("V", [4097, 12288])
def test_both_launches_give_the_same_bits(gpu, draw_batch, monkeypatch, V, dtype):
    # A program a chunk where rows are few, a program a row where they are many.
    batch = draw_batch(3, V, dtype)
    monkeypatch.setattr(gpu.launch, "FEW_ROWS", 1 << 30)
    few = batch.decide(gpu)
    monkeypatch.setattr(gpu.launch, "FEW_ROWS", 0)
    assert same_bits(batch.decide(gpu), few)


@pytest.mark.parametrize("name", ["log_prob", "gradient"])
def test_target_log_prob(kernel, name):
    N = kernel.rows(500)
    logits, targets, _ = draw_case((N, 200))
    upstream = torch.linspace(-1, 1, N)
    arguments = (upstream, logits, targets) if name == "gradient" else (logits, targets)
    whole = getattr(kernel, name)(*arguments)
    for n in range(0, N, max(1, N // 8)):
        alone = getattr(kernel, name)(*(part[n : n + 1] for part in arguments))
        assert same_bits(alone, whole[n : n + 1])


@pytest.mark.parametrize("N", [33, 1025])
def test_bernoulli(backend, N):
    log_ratio = torch.randn(N, generator=torch.Generator().manual_seed(0))
    whole = backend.bernoulli(log_ratio, seed=2, row_offset=5, stream=3)
    for n in range(0, N, N // 8):
        alone = backend.bernoulli(log_ratio[n:], seed=2, row_offset=5 + n, stream=3)
        assert torch.equal(alone, whole[n:])
        seen = backend.decide_ratios(log_ratio[n:], seed=2, row_offset=5 + n, stream=3)
        assert torch.equal(seen.mask, whole[n:])


def test_the_accounts_of_ratios_do_not_depend_on_threads(cpu, threads):
    log_ratio = torch.randn(300_000, generator=torch.Generator().manual_seed(0))
    seen = []
    for count in (1, 2, 5):
        threads(count)
        seen.append(cpu.decide_ratios(log_ratio, 1.5, seed=2))
    assert all(same_bits(one, seen[0]) for one in seen)
