"""Law 3 of a few rows, which are multiplied otherwise than many are: it must not show.

Faults are planted in copies of their kernel, and each must be found.
"""

import pytest
import torch

from rskernels.kernels.product import Lora, Product
from rskernels.law.decision import Law

from ...statistics.faults.mutants import plant
from ...support.backends import backend_of
from ...support.bits import same_bits
from . import wrong
from .test_invariance import DTYPES, Batch, part

D = 260  # a section of a product, and a little of the next
WIDTHS = (9005, 8997)  # whole vectors of columns, and a half of one at the end
FEW = "kernels.cpu.linear.few"
FAULTS = {
    "a column's lane holds another's": {f"{FEW}._transposed": wrong.of_lane_before},
    "the words of a piece are turned round": {f"{FEW}._transposed": wrong.turned_round},
    "the pieces lie in other lanes": {f"{FEW}._join": wrong.turned_round},
    "a row has the sum of another": {f"{FEW}._section": wrong.of_row_before},
    "sections are of half the features": {f"{FEW}.emit_sections": wrong.of_half_sections},
    "sections are added from the last": {f"{FEW}.emit_sections": wrong.of_last_sections},
    "the last column of a part of a vector is left out": {f"{FEW}._store": wrong.without_last},
}


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """Return a backend of a copy of the kernels with changes planted."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(changes):
        mutant = backend_of("cpu", plant(tmp_path, changes))
        assert mutant.kernels.__name__.startswith("mutant")
        return mutant

    return make


def check_few_rows(cpu, dtype, V, ranks=(None, 4, 12)):
    """Compare a few rows, alone and as several blocks at once, with the same in a batch."""
    batch = Batch(cpu, 24, D, V, dtype)
    lora = batch.product.lora
    draw = torch.Generator().manual_seed(3)
    for rank in ranks:
        if rank is not None:
            A, B = (torch.randn(n, m, generator=draw).to(dtype) for n, m in ((rank, D), (V, rank)))
            lora = Lora(A, B, 0.1)
        batch.product = batch.product._replace(lora=lora)
        whole = batch.decide()
        for begin, end in ((0, 1), (7, 9), (20, 24), (19, 24)):
            rows = slice(begin, end)
            same = same_bits(batch.decide(rows, begin), part(whole, rows))
            assert same, f"few rows {begin} to {end} of rank {rank} have other bits"


def check_widths(cpu):
    for V in WIDTHS:
        check_few_rows(cpu, torch.float32, V, ranks=(None,))


@pytest.mark.parametrize("V", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_few_rows_that_several_blocks_are_made_for_at_once(cpu, dtype, V):
    check_few_rows(cpu, dtype, V)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(copy, name):
    mutant = copy(FAULTS[name])
    with pytest.raises(AssertionError, match=r"^(few rows|lazy decisions)"):
        check_widths(mutant)


def test_a_copy_without_a_fault_passes(copy):
    check_widths(copy({f"{FEW}._store": wrong.as_it_was}))


@pytest.mark.parametrize("column", [100, 3000, 8000])
def test_few_rows_are_left_where_many_are(cpu, column):
    # Beyond the place where a row is left lies what would make it invalid: its neighbours must not
    # have it read on.
    N, V = 40, 9000
    hidden, weight = torch.ones(N, 8), torch.zeros(V, 8)
    weight[column:] = torch.nan
    product = Product(hidden, weight, None, 1.0, 0.0, None)
    targets = torch.zeros(N, dtype=torch.int64)
    # Certain once the total, of one a column, is as many as these.
    counts = torch.linspace(1.0, 20_000.0, N, dtype=torch.float64)
    law = Law(-counts.log(), 0.0, 5, log_space=True)
    many = cpu.kernels.linear.mask(product, targets, law, True)
    for n in range(N):
        rows = slice(n, n + 1)
        own = law._replace(density=law.density[rows], row_offset=n)
        one = product._replace(hidden=hidden[rows])
        assert torch.equal(cpu.kernels.linear.mask(one, targets[rows], own, True), many[rows])
    assert 0 < int(many.sum()) < N
