"""Decisions and log-probabilities of logits that are not stored, for CUDA and ROCm tensors.

The rows that are open are packed by index; the vocabulary is summed by blocks, in rounds where it
is lazy; a row is decided from all of its blocks, or closed before. Nothing waits for the device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton

from rskernels.kernels.gpu.launch import (
    on_device,
    outputs_of,
    row_arguments,
    seed_arguments,
    sums_of,
    temperature_arguments,
    wide_of,
)
from rskernels.kernels.gpu.linear.decide import (
    decide_kernel,
    log_prob_kernel,
    look_kernel,
    open_mask_kernel,
)
from rskernels.kernels.gpu.linear.packing import open_kernel, pack_kernel
from rskernels.kernels.gpu.linear.product import low_rank_kernel
from rskernels.kernels.gpu.linear.sums import reference_kernel, sums_kernel
from rskernels.kernels.gpu.linear.tiles import (
    BLOCK,
    CHUNK,
    FEW,
    GROUP,
    STEP,
    Machine,
    aligned,
    machine_of,
    matrix_arguments,
    product_arguments,
    product_constants,
    rounds_of,
)
from rskernels.kernels.layout import row_scalar, wide_dtype
from rskernels.kernels.product import Product
from rskernels.law.decision import Decided, DecidedWithTotals, Law


class Rows(NamedTuple):
    """The rows of a batch whose logits are a product, and how their tiles are computed."""

    product: Product  # hidden [N, D]
    targets: torch.Tensor  # [N]
    machine: Machine
    arguments: dict[str, Any]  # of a kernel that computes tiles of logits
    constants: dict[str, Any]
    temperature: dict[str, Any]  # arguments too

    @property
    def N(self) -> int:
        """How many rows there are."""
        return self.product.hidden.shape[0]

    @property
    def blocks(self) -> int:
        """How many blocks of the vocabulary are summed."""
        return int(triton.cdiv(self.product.weight.shape[0], BLOCK))

    @property
    def row_tiles(self) -> int:
        """How many tiles the rows make up."""
        return int(triton.cdiv(self.N, self.constants["ROWS"]))

    def empty(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        """Return fresh memory beside the weight."""
        return torch.empty(shape, dtype=dtype, device=self.product.weight.device)


class Packed(NamedTuple):
    """Rows by index: the first ``length`` of ``rows``."""

    rows: torch.Tensor  # int32 [N]
    length: torch.Tensor  # int32 [1]


class Blocks(NamedTuple):
    """What the open rows' blocks were summed to, beside each row's verdict."""

    reference: torch.Tensor  # float64 [N], the targets' logits
    verdict: torch.Tensor  # int8 [N]
    tops: torch.Tensor  # [blocks, N]
    sums: torch.Tensor  # [blocks, N]


def decide(product: Product, targets: torch.Tensor, law: Law) -> Decided:
    """Decide every row, and return (mask, log_prob, log_ratio, counts, excess)."""
    mask, log_prob, log_ratio, summary, _ = _decide(product, targets, law, True)
    return mask, log_prob, log_ratio, *sums_of(summary)


def decide_with_totals(product: Product, targets: torch.Tensor, law: Law) -> DecidedWithTotals:
    """Decide every row, and return as well what the gradient of log_prob needs of it [..., 2]."""
    mask, log_prob, log_ratio, summary, totals = _decide(product, targets, law, True)
    return log_prob, totals, mask, log_ratio, *sums_of(summary)


def mask(
    product: Product,
    targets: torch.Tensor,
    law: Law,
    is_lazy: bool = False,
    order: torch.Tensor | None = None,
) -> torch.Tensor:
    """Decide every row, and return only the mask.

    Where ``is_lazy``, a row's blocks are multiplied until its decision is certain: what follows is
    taken to be valid where the model is the proposal. ``order`` is int64 [blocks], the order in
    which that is tried.
    """
    return _decide(product, targets, law, False, is_lazy, order)[0]


def target_log_prob(
    product: Product,
    targets: torch.Tensor,
    temperature: torch.Tensor | float,
    ignore_index: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log q of the target [...], and what the gradient needs of each row [..., 2]."""
    wide = wide_dtype(product.weight)
    log_prob = torch.empty(targets.shape, dtype=wide, device=targets.device)
    totals = torch.empty((*targets.shape, 2), dtype=torch.float64, device=targets.device)
    if targets.numel() == 0:
        return log_prob, totals
    with on_device(targets.device):
        rows = rows_of(product, targets, temperature)
        low = low_rank_of(rows)
        rows.arguments.update(product_arguments(rows.product, low))
        blocks = _sum_all(rows, ignore_index)
        log_prob_kernel[(triton.cdiv(rows.N, FEW),)](
            **_block_arguments(rows, blocks), **rows.temperature, ignore_index=ignore_index,
            log_prob_ptr=log_prob, totals_ptr=totals, FEW=FEW, STEP=STEP,
        )  # fmt: skip
    return log_prob, totals


def rows_of(product: Product, targets: torch.Tensor, temperature: torch.Tensor | float) -> Rows:
    """Lay out a batch, whose leading dimensions are those of the targets."""
    D = product.weight.shape[1]
    product = product._replace(hidden=aligned(product.hidden.reshape(-1, D)))
    machine = machine_of(product.weight.device)
    return Rows(
        product,
        targets.contiguous().view(-1),
        machine,
        product_arguments(product, None),
        product_constants(product, machine),
        temperature_arguments(temperature, targets.shape, product.weight),
    )


def low_rank_of(rows: Rows) -> torch.Tensor | None:
    """Return s (h A^T) as summands [parts, N, r], None without a low-rank change."""
    hidden, weight, *_, lora = rows.product
    if lora is None:
        return None
    rank, D = lora.A.shape
    constants = {
        name: value
        for name, value in rows.constants.items()
        if name not in ("COLUMNS", "HAS_BIAS", "HAS_SOFTCAP", "HAS_LORA")
    }
    low = rows.empty(constants["PARTS"], rows.N, rank, dtype=weight.dtype)
    grid = (rows.row_tiles, triton.cdiv(rank, constants["RANK"]))
    low_rank_kernel[grid](
        **matrix_arguments("hidden", hidden), **matrix_arguments("A", lora.A),
        lora_scale=lora.scale, D=D, R=rank, N=rows.N, low_ptr=low, **constants,
    )  # fmt: skip
    return low


def _decide(product, targets, law, has_outputs, is_lazy=False, order=None):
    weight, shape = product.weight, targets.shape
    mask = torch.empty(shape, dtype=torch.bool, device=weight.device)
    N = targets.numel()
    log_prob, log_ratio, summary = outputs_of(weight, shape, N, has_outputs)
    totals = weight  # as the outputs, some address where it is not wanted
    if has_outputs:
        totals = torch.empty((*shape, 2), dtype=torch.float64, device=weight.device)
    if N == 0:
        return mask, log_prob, log_ratio, summary, totals
    with on_device(weight.device):
        rows = rows_of(product, targets, law.temperature)
        rows.arguments.update(product_arguments(rows.product, low_rank_of(rows)))
        law_arguments = _law_arguments(law, shape, weight)
        if has_outputs:
            blocks = _sum_all(rows, law.ignore_index)
        else:
            blocks = _sum_open(rows, law, law_arguments, is_lazy, order)
        decide_kernel[(triton.cdiv(N, FEW),)](
            **_block_arguments(rows, blocks), **law_arguments, **rows.temperature,
            mask_ptr=mask, log_prob_ptr=log_prob, log_ratio_ptr=log_ratio, summary_ptr=summary,
            totals_ptr=totals, FEW=FEW, STEP=STEP, WIDE=wide_of(weight), HAS_OUTPUTS=has_outputs,
        )  # fmt: skip
    return mask, log_prob, log_ratio, summary, totals


def _sum_all(rows, ignore_index):
    """Sum all blocks of every row that has a target."""
    blocks, counts = _reference(rows), counts_of(rows)
    open_kernel[(len(counts),)](
        targets_ptr=rows.targets, V=rows.product.weight.shape[0], N=rows.N,
        **rows.temperature, ignore_index=ignore_index,
        verdict_ptr=blocks.verdict, counts_ptr=counts, CHUNK=CHUNK,
    )  # fmt: skip
    _sum(rows, blocks, pack(rows, None, blocks.verdict, counts), None, (0, rows.blocks))
    return blocks


def _sum_open(rows, law, law_arguments, is_lazy, order):
    """Sum the blocks of the rows whose decision is open, in rounds where that is lazy."""
    blocks, counts, N = _reference(rows), counts_of(rows), rows.N
    headroom = rows.empty(N if is_lazy else 1, dtype=torch.float64)
    passed = torch.empty_like(headroom)
    open_mask_kernel[(len(counts),)](
        targets_ptr=rows.targets, reference_ptr=blocks.reference,
        V=rows.product.weight.shape[0], N=N, **law_arguments, **rows.temperature,
        verdict_ptr=blocks.verdict, headroom_ptr=headroom, passed_ptr=passed, counts_ptr=counts,
        CHUNK=CHUNK, BLOCK=BLOCK, WIDE=rows.constants["WIDE"], IS_LAZY=is_lazy,
    )  # fmt: skip
    packed = pack(rows, None, blocks.verdict, counts)
    rounds = [(0, rows.blocks)]
    if is_lazy:
        rounds = rounds_of(rows.blocks, rows.row_tiles, rows.machine.processors)
    order = order if is_lazy and rows.blocks > 1 else None
    for at, (first, count) in enumerate(rounds):
        _sum(rows, blocks, packed, order, (first, count))
        if at == len(rounds) - 1:
            break
        look_kernel[(len(counts),)](
            rows_ptr=packed.rows, count_ptr=packed.length,
            order_ptr=packed.rows if order is None else order, first=first, blocks=count,
            reference_ptr=blocks.reference, headroom_ptr=headroom, **rows.temperature, N=N,
            tops_ptr=blocks.tops, sums_ptr=blocks.sums, passed_ptr=passed,
            verdict_ptr=blocks.verdict, counts_ptr=counts, CHUNK=CHUNK, STEP=STEP,
            HAS_ORDER=order is not None, MODEL_IS_TARGET=law.model_is_target,
        )  # fmt: skip
        packed = pack(rows, packed, blocks.verdict, counts)
    return blocks


def _reference(rows):
    """Return the targets' logits, beside room for what the rows' blocks are summed to."""
    wide, N = wide_dtype(rows.product.weight), rows.N
    blocks = Blocks(
        rows.empty(N, dtype=torch.float64),
        rows.empty(N, dtype=torch.int8),
        rows.empty(rows.blocks, N, dtype=wide),
        rows.empty(rows.blocks, N, dtype=wide),
    )
    reference_kernel[(rows.row_tiles,)](
        **rows.arguments, targets_ptr=rows.targets, N=N, reference_ptr=blocks.reference,
        **{**rows.constants, "num_stages": 1},
    )  # fmt: skip
    return blocks


def _sum(rows, blocks, packed, order, places):
    """Sum the blocks at (first, number of) places in an order of packed rows."""
    first, count = places
    programs = min(rows.row_tiles * count, rows.machine.processors)
    sums_kernel[(programs,)](
        **rows.arguments, rows_ptr=packed.rows, count_ptr=packed.length,
        order_ptr=packed.rows if order is None else order, first=first, blocks=count,
        **rows.temperature, N=rows.N, tops_ptr=blocks.tops, sums_ptr=blocks.sums,
        BLOCK=BLOCK, GROUP=GROUP, HAS_ORDER=order is not None, **rows.constants,
    )  # fmt: skip


def pack(rows: Rows, packed: Packed | None, verdict: torch.Tensor, counts: torch.Tensor) -> Packed:
    """Pack the rows that are open, of those that were or of all."""
    again = Packed(rows.empty(rows.N, dtype=torch.int32), rows.empty(1, dtype=torch.int32))
    before = again if packed is None else packed
    pack_kernel[(len(counts),)](
        rows_ptr=before.rows, count_ptr=before.length, N=rows.N,
        verdict_ptr=verdict, counts_ptr=counts,
        packed_ptr=again.rows, packed_count_ptr=again.length,
        CHUNK=CHUNK, IS_PACKED=packed is not None,
    )  # fmt: skip
    return again


def counts_of(rows: Rows) -> torch.Tensor:
    """Return room for how many rows are open in each chunk."""
    return rows.empty(triton.cdiv(rows.N, CHUNK), dtype=torch.int32)


def _block_arguments(rows, blocks):
    return {
        "targets_ptr": rows.targets,
        "reference_ptr": blocks.reference,
        "tops_ptr": blocks.tops,
        "sums_ptr": blocks.sums,
        "verdict_ptr": blocks.verdict,
        "V": rows.product.weight.shape[0],
        "N": rows.N,
        "blocks": rows.blocks,
    }


def _law_arguments(law, shape, unused):
    """Return the kernels' arguments that describe a law, but for the temperature."""
    return {
        **row_arguments("density", row_scalar(law.density, shape), law.log_space, unused),
        **row_arguments("M", row_scalar(law.M, shape), law.log_space, unused),
        **seed_arguments(law.seed, unused),
        "row_offset": law.row_offset,
        "ignore_index": law.ignore_index,
        "LOG_SPACE": law.log_space,
        "MODEL_IS_TARGET": law.model_is_target,
    }
