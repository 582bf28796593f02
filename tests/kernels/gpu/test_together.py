"""Programs that the interpreter runs together write what each writes alone."""

import pytest
import torch
import triton
import triton.language as tl

from ...support.interpreter import together

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(torch.cuda.is_available(), reason="Triton runs on the GPU"),
]
LANES, ROWS = 8, 4


@triton.jit
def steps_kernel(rows_ptr, counts_ptr, out_ptr, LANES: tl.constexpr):
    """Add a row to itself until its sum is large; every program takes as long as its row needs."""
    program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    lanes = tl.arange(0, LANES)
    row = tl.load(rows_ptr + program * LANES + lanes)
    count = tl.load(counts_ptr + program)
    tl.store(counts_ptr + program, count + 1)  # what is undone where programs part
    while tl.sum(row, 0) < 40.0:
        row += row
        count += 1
    if count % 2 == 0:
        row = tl.where(lanes < count, row, -row)
    for step in range(0, count):
        row += step
    tl.store(counts_ptr + program, count, mask=program % 3 != 0)
    tl.store(out_ptr + program * LANES + lanes, row + tl.cumsum(row, 0))
    tl.store(out_ptr + program * LANES, tl.max(row, 0) - tl.min(row, 0), mask=count % 2 == 1)


@triton.jit
def shapes_kernel(tiles_ptr, out_ptr, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Turn, cut, spread, reduce and multiply a tile."""
    program = tl.program_id(0)
    rows, lanes = tl.arange(0, ROWS), tl.arange(0, LANES)
    at = rows[:, None] * LANES + lanes[None, :]
    tile = tl.load(tiles_ptr + program * ROWS * LANES + at)
    turned = tl.trans(tile)
    flat = tl.reshape(turned, [ROWS * LANES])
    pairs = tl.reshape(tl.join(flat, flat * 0.0 + program), [ROWS * LANES, 2])
    both = tl.reshape(tl.sum(pairs, 1), [LANES, ROWS])
    product = tl.dot(tile, both)
    wide = tl.dot(tile.to(tl.float64), both.to(tl.float64), out_dtype=tl.float64)
    product += wide.to(tl.float32)
    spread = tl.broadcast_to(tl.max(tile, 1, keep_dims=True), [ROWS, ROWS])
    total = tl.sum(tile) + tl.sum(tl.sum(tile, 0), 0)
    result = product + spread + total + tl.cumsum(product, 1)
    tl.store(out_ptr + program * ROWS * ROWS + rows[:, None] * ROWS + rows[None, :], result)


def steps(grid):
    count = grid[0] * grid[1]
    rows = torch.rand(count, LANES, generator=torch.Generator().manual_seed(0)) + 0.01
    counts, out = torch.arange(count) % 5, torch.zeros(count, LANES)
    steps_kernel[grid](rows, counts, out, LANES=LANES)
    return counts, out


def shapes(grid):
    count = grid[0]
    tiles = torch.randn(count, ROWS, LANES, generator=torch.Generator().manual_seed(0))
    out = torch.zeros(count, ROWS, ROWS)
    shapes_kernel[grid](tiles, out, ROWS=ROWS, LANES=LANES)
    return (out,)


@pytest.mark.parametrize(("run", "grid"), [(steps, (7, 3)), (shapes, (9,))])
def test_each_writes_what_it_writes_alone(monkeypatch, run, grid):
    monkeypatch.setattr(together, "ELEMENTS", 1)
    alone = run(grid)
    for elements in (64, 1 << 17):
        monkeypatch.setattr(together, "ELEMENTS", elements)
        for seen, want in zip(run(grid), alone, strict=True):
            assert torch.equal(seen, want)
    assert alone[-1].abs().min() > 0


def test_one_program_at_a_time_goes_every_way_once(monkeypatch):
    """The counts are of every kind, so that programs part."""
    counts, _ = steps((7, 3))
    assert len(set(counts.tolist())) > 4
