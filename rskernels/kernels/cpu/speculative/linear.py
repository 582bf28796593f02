"""Speculative steps in Numba on logits that are not stored, and rows of them that are made."""

from __future__ import annotations

import torch
from numba import njit
from torch import Tensor

from rskernels.kernels.cpu.cache import cached
from rskernels.kernels.cpu.dtypes import Kernels
from rskernels.kernels.cpu.launch import CODE, target_log_prob
from rskernels.kernels.cpu.linear import launch as linear
from rskernels.kernels.cpu.linear.blocks import (
    COLUMNS,
    Columns,
    blocks_of,
    factor_of,
    low_rank_of,
    multiply,
    padded,
    rows_of,
)
from rskernels.kernels.cpu.linear.fold import finish_of
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.vectors import named
from rskernels.kernels.cpu.speculative.launch import check, run_steps
from rskernels.kernels.cpu.threads import next_share, run_units
from rskernels.kernels.layout import wide_dtype
from rskernels.kernels.product import Product
from rskernels.kernels.steps import Backend
from rskernels.kernels.steps import speculate_product as take_steps
from rskernels.law.speculation import Speculated, Speculation

ROWS = 16  # that are made at a time


def speculate_product(
    product: Product,
    draft_tokens: Tensor,
    draft: Tensor | None,
    lengths: Tensor | None,
    law: Speculation,
) -> Speculated:
    """Accept draft tokens, draw the one that follows; (tokens, accepted, log_prob, counts)."""
    return take_steps(BACKEND, product, draft_tokens, draft, lengths, law)


def logits_of(product: Product, numbers: Tensor) -> Tensor:
    """Return the logits [n, V] of rows, float64 of float64 hidden states, else float32."""
    kept = product.hidden.detach().index_select(0, numbers)
    product = linear.addressable(product._replace(hidden=kept))
    n, V, dtype = len(numbers), len(product.weight), wide_dtype(product.hidden)
    factor = factor_of(product.hidden.dtype)
    rows = rows_of(product.hidden, low_rank_of(product), None)
    weight = Columns(product.weight, factor)
    B = None if product.lora is None else Columns(product.lora.B, factor.wide)
    z = torch.empty((n, V), dtype=dtype, device="cpu")
    for block in blocks_of(V, None):
        factors = weight.of(block), None if B is None else B.of(block)
        made = torch.empty(
            padded(n, rows.packed[0].shape[2]), padded(block.width, COLUMNS), dtype=dtype,
            device="cpu",
        )  # fmt: skip
        pairs = tuple(
            (packed, columns)
            for packed, columns in zip(rows.packed, factors, strict=True)
            if packed is not None and columns is not None
        )
        multiply(factor, n, pairs, made)
        first = block.start - block.first
        z[:, block.start : block.start + block.width] = made[:n, first : first + block.width]
    _finish(z, product)
    return z


def _finish(z: Tensor, product: Product) -> None:
    """Turn products into logits where they lie: scale, bias and softcap."""
    scale, softcap, bias = product.scale, product.softcap, product.bias
    if scale == 1.0 and softcap == 0.0 and bias is None:
        return
    n, V = z.shape
    affine = float(scale), float(softcap), 0 if bias is None else bias.data_ptr()
    run_units(finish_kernels[CODE[z.dtype]], (n, 1, n), n * V, (z.data_ptr(), V), affine)


def finish_rows_of(element):
    """Return the kernel that turns rows of products into logits where they lie."""
    finish, size = finish_of(element), element.size

    @cached
    @njit(nogil=True)
    @named(f"speculative_finish_{element.name}")
    def finish_rows(share, arguments):
        mode = keep_subnormals(0)
        counter, grab, units, unit_rows, N = share
        (address, V), affine = arguments
        begin = next_share(counter, -grab, grab)
        while begin < units:
            for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
                finish(address + n * V * size, V, affine)
            begin = next_share(counter, begin, grab)
        restore(mode)
        return 0

    return finish_rows


finish_kernels = Kernels(finish_rows_of)
BACKEND = Backend(linear.target_log_prob, target_log_prob, logits_of, run_steps, check, ROWS)
