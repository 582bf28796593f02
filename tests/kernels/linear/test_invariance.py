"""Law 3 from hidden states: a row's bits are the same in any batch and place, on any threads."""

import pytest
import torch

from rskernels.law.decision import Law

from ...support.bits import same_bits
from .products import OPTIONS, draw_case, draw_product, rows_of

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Batch:
    """Rows with what decides them, and what they are decided with in parts."""

    def __init__(self, cpu, N, D, V, dtype=torch.float32, options="plain", order=None):
        self.linear = cpu.kernels.linear
        self.product = draw_product(N, D, V, dtype, options, seed=N + D + V)
        self.targets, log_p = draw_case(self.product)
        self.law = Law(
            log_p, torch.linspace(-1.0, 1.0, N), 21, log_space=True,
            temperature=torch.linspace(0.5, 2.0, N), model_is_target=True,
        )  # fmt: skip
        self.order = order

    def decide(self, rows=slice(None), row_offset=0):
        """Return (mask, log_prob, log_ratio, lazy mask) of some of the rows."""
        law = self.law._replace(
            density=self.law.density[rows], M=self.law.M[rows], row_offset=row_offset,
            temperature=self.law.temperature[rows],
        )  # fmt: skip
        product, targets = rows_of(self.product, rows), self.targets[rows]
        lazy = self.linear.mask(product, targets, law, True, self.order)
        full = self.linear.mask(product, targets, law, False, self.order)
        assert torch.equal(lazy, full), "lazy decisions are not those of the full product"
        if self.order is not None:
            return (full,)
        mask, log_prob, log_ratio, _, _ = self.linear.decide(product, targets, law)
        assert torch.equal(mask, full)
        return mask, log_prob, log_ratio


def part(seen, rows):
    return tuple(each[rows] for each in seen)


@pytest.mark.parametrize("dtype", DTYPES)
def test_batches_of_1_to_70_rows(cpu, dtype):
    batch = Batch(cpu, 70, 33, 1100, dtype, "lora")
    whole = batch.decide()
    for N in range(1, 71):
        assert same_bits(batch.decide(slice(0, N)), part(whole, slice(0, N)))
        last = slice(70 - N, 70)
        assert same_bits(batch.decide(last, 70 - N), part(whole, last))


@pytest.mark.parametrize("D", [1, 3, 8, 31, 64, 100, 257, 768, 1000, 2049, 5000])
@pytest.mark.parametrize("V", [1, 7, 64, 300, 1100])
def test_shapes_of_products(cpu, D, V):
    batch = Batch(cpu, 300, D, V)
    whole = batch.decide()
    for begin, end in ((0, 1), (5, 6), (13, 46), (299, 300), (40, 297)):
        assert same_bits(batch.decide(slice(begin, end), begin), part(whole, slice(begin, end)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS)
def test_permuted_rows_have_the_same_log_probabilities(cpu, options, dtype):
    batch = Batch(cpu, 290, 40, 900, dtype, options)
    order = torch.randperm(290, generator=torch.Generator().manual_seed(1))
    _, log_prob, log_ratio = batch.decide()
    _, moved, moved_ratio = batch.decide(order)
    assert same_bits((moved, moved_ratio), (log_prob[order], log_ratio[order]))


@pytest.mark.parametrize("size", [1, 7, 16, 100, 512, 513])
def test_a_batch_in_parts(cpu, size):
    batch = Batch(cpu, 560, 48, 1500, options="all")
    whole = batch.decide()
    for begin in range(0, 560 if size > 1 else 40, size):
        rows = slice(begin, begin + size)
        assert same_bits(batch.decide(rows, begin), part(whole, rows))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("D", [20, 768, 3000])
def test_one_thread_or_two(cpu, threads, D, dtype):
    order = torch.tensor([1, 4, 0, 2, 3])
    for N, V, blocks in ((1, 2100, None), (300, 2100, None), (520, 5000, order)):
        batch = Batch(cpu, N, D, V, dtype, "lora", blocks)
        threads(1)
        alone = batch.decide()
        threads(2)
        assert same_bits(batch.decide(), alone)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_poisoned_neighbours(cpu, dtype, bad):
    batch = Batch(cpu, 40, 24, 700, dtype)
    before = batch.decide()
    batch.product.hidden[17] = bad
    after = batch.decide()
    others = torch.arange(40) != 17
    assert same_bits(part(after, others), part(before, others))
    if bad != 1e30:
        assert not after[0][17]
        assert after[1][17].isnan()


def test_neighbours_that_end_otherwise(cpu):
    # Rows that are left or ignored give their places in a tile to others.
    batch = Batch(cpu, 400, 24, 3000)
    mask, log_prob, _ = batch.decide()
    batch.targets[torch.arange(400) % 3 > 0] = -100
    fewer, less, _ = batch.decide()
    assert torch.equal(fewer[::3], mask[::3])
    assert same_bits(less[::3], log_prob[::3])
    assert not fewer[1::3].any()
