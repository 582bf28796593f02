"""The operations on logits that are not stored: rows opened, blocks multiplied, rows settled."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels.kernels.cpu.launch import (
    CODE,
    ROW_WORK,
    SCALAR_UNIT,
    draw_numbers,
    outputs_of,
    raise_outside,
    row_numbers,
    sums_of,
)
from rskernels.kernels.cpu.linear.blocks import (
    COLUMNS,
    FIRST_SPAN,
    SPAN_GROWTH,
    TILE,
    WIDEST_BLOCK,
    WIDEST_SPAN,
    Block,
    Columns,
    Rows,
    block_of,
    blocks_of,
    factor_of,
    low_rank_of,
    multiply,
    padded,
    rows_of,
    span_of,
)
from rskernels.kernels.cpu.linear.fold import fold_kernels
from rskernels.kernels.cpu.linear.micro import FEW, Factor
from rskernels.kernels.cpu.linear.rows import (
    GROUP,
    open_kernels,
    settle_kernels,
    target_logit_kernels,
)
from rskernels.kernels.cpu.simd.vectors import LANES
from rskernels.kernels.cpu.threads import run_units
from rskernels.kernels.cpu.turns import REFERENCE, TOTAL
from rskernels.kernels.layout import wide_dtype
from rskernels.kernels.product import Lora, Product
from rskernels.law.decision import Decided, DecidedWithTotals, Law

NO_LORA = (0, 0, 0, 0, 0, 0)
FAR_WORK = 4  # a feature of a target's weight, which lies anywhere, costs what so many logits do
TILE_STEP = 32  # a multiple of the rows that are packed together
LINE = LANES * 8  # bytes of what a group knows of one kind


class Opened(NamedTuple):
    """Rows whose products are still to be made."""

    V: int
    dtype: torch.dtype
    """Of the sums."""
    factor: Factor
    weight: Columns
    B: Columns | None
    groups: Tensor
    """int64 [groups, GROUP / 8]: what is known of each sixteen rows."""
    rows: Rows
    """Those that have to be read."""
    N: int
    """How many there are in all."""
    affine: tuple[float, float, int]
    """Scale, softcap and the address of the bias."""
    named: tuple[Any, ...]
    """What is addressed, so that it lives until the rows are settled."""

    @property
    def is_as_it_lies(self) -> bool:
        """Say whether blocks are multiplied where they lie, however wide they are."""
        return self.weight.is_as_it_lies and (self.B is None or self.B.is_as_it_lies)


def decide(product: Product, targets: Tensor, law: Law) -> Decided:
    """Decide every row, and return (mask, log_prob, log_ratio, counts, excess)."""
    opened = _open(product, targets, law, (False, False))
    _read(opened, is_lazy=False, order=None)
    return _settle(opened, targets, law.model_is_target)


def decide_with_totals(product: Product, targets: Tensor, law: Law) -> DecidedWithTotals:
    """Decide every row, and return as well what the gradient of log_prob needs of it [..., 2]."""
    opened = _open(product, targets, law, (False, False))
    _read(opened, is_lazy=False, order=None)
    decided, log_prob, log_ratio, counts, excess = _settle(opened, targets, law.model_is_target)
    return log_prob, _totals(opened, targets), decided, log_ratio, counts, excess


def mask(
    product: Product,
    targets: Tensor,
    law: Law,
    is_lazy: bool = False,
    order: Tensor | None = None,
) -> Tensor:
    """Decide every row, and return only the mask.

    Where ``is_lazy``, no further block is multiplied for a row whose decision is certain: what
    follows is taken to be valid where the model is the proposal. ``order`` is int64 [blocks], the
    order of the blocks of columns.
    """
    opened = _open(product, targets, law, (True, is_lazy))
    _read(opened, is_lazy, order)
    decided = torch.empty(targets.shape, dtype=torch.bool, device="cpu")
    _run_settle(opened, (law.model_is_target, True), (decided.data_ptr(), 0, 0, 0))
    return decided


def target_log_prob(
    product: Product, targets: Tensor, temperature: Tensor | float, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Return log q of the target [...], and (reference, total) of each row [..., 2].

    They are (-inf, 0) of a row of nothing but -inf, which other columns may yet give a softmax.
    """
    law = Law(1.0, 1.0, 0, temperature=temperature, ignore_index=ignore_index)
    opened = _open(product, targets, law, (False, False))
    _read(opened, is_lazy=False, order=None)
    totals = _totals(opened, targets)
    log_prob = _settle(opened, targets, False)[1]
    log_prob.masked_fill_(targets == ignore_index, 0.0)
    return log_prob, totals


def _totals(opened: Opened, targets: Tensor) -> Tensor:
    """Return (reference, total) of each row [..., 2], which its gradient needs."""
    known = opened.groups.view(torch.float64).view(-1, GROUP // LINE, LANES)
    totals = known[:, (REFERENCE // LINE, TOTAL // LINE)].transpose(1, 2).reshape(-1, 2)
    return totals[: targets.numel()].reshape(*targets.shape, 2).contiguous()


def _open(product: Product, targets: Tensor, law: Law, form: tuple[bool, bool]) -> Opened:
    """Return the rows as they are before the first block; ``form`` as ``open_rows_of`` has it."""
    product = addressable(product)
    hidden, weight, lora = product.hidden, product.weight, product.lora
    N, D = hidden.shape
    V, code, targets = len(weight), CODE[hidden.dtype], targets.contiguous()
    # Copies are named, so that they live until the kernel returns.
    _density, density_numbers = row_numbers(law.density, targets)
    _M, M_numbers = row_numbers(law.M, targets)
    _temperature, temperature_numbers = row_numbers(law.temperature, targets)
    low_rank = low_rank_of(product)
    numbers = _numbers_of(product, low_rank)
    groups = torch.empty((-(-N // LANES), GROUP // 8), dtype=torch.int64, device="cpu")
    reading = torch.empty(N, dtype=torch.bool, device="cpu")
    outside = run_units(
        open_kernels[code],
        (len(groups), LANES, N),
        N * (FAR_WORK * D + ROW_WORK),
        numbers,
        V,
        (targets.data_ptr(), CODE[targets.dtype]),
        density_numbers,
        M_numbers,
        draw_numbers(law.seed, law.row_offset),
        (temperature_numbers, law.log_space, law.model_is_target, law.ignore_index),
        form,
        (groups.data_ptr(), reading.data_ptr()),
    )
    if outside:
        raise_outside(targets, V, law.ignore_index)
    kept = None if bool(reading.all()) else reading.nonzero().view(-1)
    rows = rows_of(hidden, low_rank, kept)
    factor = factor_of(hidden.dtype)
    B = None if lora is None else Columns(lora.B, factor.wide)
    return Opened(
        V,
        wide_dtype(hidden),
        factor,
        Columns(weight, factor),
        B,
        groups,
        rows,
        N,
        numbers[3],
        (product.bias,),
    )


def _numbers_of(product: Product, low_rank: Tensor | None) -> tuple[tuple[Any, ...], ...]:
    """Return the addresses and numbers of an addressable product's parts, as kernels take them."""
    hidden, weight, bias, scale, softcap, lora = product
    of_low_rank: tuple[int, ...] = NO_LORA
    if low_rank is not None and lora is not None:
        of_low_rank = (
            low_rank.data_ptr(), low_rank.stride(0), len(lora.A),
            lora.B.data_ptr(), *lora.B.stride(),
        )  # fmt: skip
    return (
        (hidden.data_ptr(), hidden.stride(0), hidden.shape[1]),
        (weight.data_ptr(), *weight.stride()),
        of_low_rank,
        (scale, softcap, 0 if bias is None else bias.data_ptr()),
    )


def write_target_logits(
    product: Product, low_rank: Tensor | None, targets: Tensor, out: Tensor
) -> None:
    """Write each row's logit of its target, float64 [N]; a row without one is left as it is."""
    product = addressable(product)
    run_units(
        target_logit_kernels[CODE[product.hidden.dtype]],
        (-(-len(targets) // LANES), LANES, len(targets)),
        product.hidden.numel() + len(targets) * ROW_WORK,
        _numbers_of(product, low_rank),
        len(product.weight),
        (targets.data_ptr(), CODE[targets.dtype]),
        (out.data_ptr(), out.stride(0) * 8),
    )


def addressable(product: Product) -> Product:
    """Return the product with a bias and rows of the hidden states that lie side by side."""
    hidden, weight, bias, scale, softcap, lora = product
    hidden, D = hidden.detach(), hidden.shape[1]
    if (hidden.stride(1) != 1 and D > 1) or hidden.stride(0) < D:
        hidden = hidden.contiguous()
    if bias is not None:
        bias = bias.detach().to(wide_dtype(hidden)).contiguous()
    if lora is not None:
        lora = Lora(lora.A.detach(), lora.B.detach(), lora.scale)
    return Product(hidden, weight.detach(), bias, scale, softcap, lora)


def _read(opened: Opened, is_lazy: bool, order: Tensor | None) -> None:
    """Multiply block after block and add them to the rows' totals."""
    rows, widest = opened.rows, padded(opened.V, COLUMNS)
    tile = min(TILE, padded(rows.length, TILE_STEP))
    room = max(tile * min(widest, WIDEST_BLOCK), FEW * min(widest, WIDEST_SPAN))
    buffer = torch.empty(room, dtype=opened.dtype, device="cpu")
    is_over = torch.empty(rows.length, dtype=torch.bool, device="cpu")
    blocks = list(blocks_of(opened.V, order))
    table = torch.tensor([block[:2] for block in blocks], dtype=torch.int64, device="cpu")
    at, most = 0, FIRST_SPAN
    while at < len(blocks) and rows.length > 0:
        count = 1
        if rows.are_few and opened.is_as_it_lies:
            # Few rows wait for memory, and for every call between two blocks.
            count, most = span_of(blocks, at, most), min(SPAN_GROWTH * most, WIDEST_SPAN)
        start, last = blocks[at].start, blocks[at + count - 1]
        whole = block_of(start, last.start + last.width - start)
        _read_blocks(opened, rows, whole, table[at : at + count], buffer, is_over)
        at += count
        if is_lazy and at < len(blocks) and bool(is_over[: rows.length].any()):
            rows = rows.keep(is_over[: rows.length].logical_not().nonzero().view(-1))


def _read_blocks(
    opened: Opened, rows: Rows, block: Block, parts: Tensor, buffer: Tensor, is_over: Tensor
) -> None:
    """Multiply rows by a block, add its parts to their totals and note which rows are over.

    ``parts`` are int64 [n, 2] of (start, width), and added one by one until a row is over.
    """
    factors = opened.weight.of(block), None if opened.B is None else opened.B.of(block)
    width, numbers = padded(block.width, COLUMNS), rows.numbers
    group = rows.packed[0].shape[2]
    for start in range(0, rows.length, TILE):
        count, groups = (
            min(TILE, rows.length - start),
            slice(start // group, (start + TILE) // group),
        )
        pairs = tuple(
            (packed[groups], factor)
            for packed, factor in zip(rows.packed, factors, strict=True)
            if packed is not None and factor is not None
        )
        z = buffer[: padded(count, group) * width].view(-1, width)
        multiply(opened.factor, count, pairs, z)
        run_units(
            fold_kernels[CODE[opened.dtype]],
            (-(-count // LANES), LANES, count),
            count * block.width,
            opened.groups.data_ptr(),
            (z.data_ptr(), width, block.first),
            (parts.data_ptr(), len(parts)),
            opened.affine,
            (0, start) if numbers is None else (numbers[start:].data_ptr(), 0),
            is_over[start:].data_ptr(),
        )


def _settle(opened: Opened, targets: Tensor, model_is_target: bool) -> Decided:
    """Decide rows whose totals are known, and return what was decided and seen."""
    decided = torch.empty(targets.shape, dtype=torch.bool, device="cpu")
    log_prob = torch.empty(targets.shape, dtype=opened.dtype, device="cpu")
    log_ratio = torch.empty_like(log_prob)
    units = -(-opened.N // SCALAR_UNIT)
    summaries, places = outputs_of(units, decided, log_prob, log_ratio)
    _run_settle(opened, (model_is_target, False), places)
    return decided, log_prob, log_ratio, *sums_of(summaries)


def _run_settle(opened: Opened, form: tuple[bool, bool], outputs: tuple[int, ...]) -> None:
    units = -(-opened.N // SCALAR_UNIT)
    run_units(
        settle_kernels[CODE[opened.dtype]],
        (units, SCALAR_UNIT, opened.N),
        opened.N * ROW_WORK,
        opened.groups.data_ptr(),
        *form,
        outputs,
    )
