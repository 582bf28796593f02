"""Speculative steps in Triton on logits that are not stored, and rows of them that are made."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rskernels.kernels.gpu.launch import on_device, target_log_prob
from rskernels.kernels.gpu.linear import launch as linear
from rskernels.kernels.gpu.linear.product import logits_tile
from rskernels.kernels.gpu.linear.tiles import product_arguments
from rskernels.kernels.gpu.speculative.launch import run_steps
from rskernels.kernels.layout import wide_dtype
from rskernels.kernels.product import Product
from rskernels.kernels.steps import Backend
from rskernels.kernels.steps import speculate_product as take_steps
from rskernels.law.speculation import Speculated, Speculation

ROWS = 128  # that are made at a time: a tile of the product


@triton.jit(do_not_specialize=["N"])
def logits_kernel(
    hidden_ptr, hidden_step, hidden_stride, weight_ptr, weight_step, weight_stride,
    bias_ptr, bias_stride, low_ptr, B_ptr, B_step, B_stride,
    scale: tl.float64, softcap: tl.float64, D, V, R,
    out_ptr,  # [N, V]
    N,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, RANK: tl.constexpr,
    PARTS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, IS_EVEN: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, HAS_LORA: tl.constexpr,
):  # fmt: skip
    """Write a tile of the logits."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    z = logits_tile(
        hidden_ptr, hidden_step, hidden_stride, weight_ptr, weight_step, weight_stride,
        bias_ptr, bias_stride, low_ptr, B_ptr, B_step, B_stride, scale, softcap, D, R, N,
        tl.minimum(rows, N - 1), tl.minimum(columns, V - 1),
        ROWS, COLUMNS, DEPTH, RANK, PARTS, WIDE, PRECISION, IS_EVEN,
        HAS_BIAS, HAS_SOFTCAP, HAS_LORA,
    )  # fmt: skip
    at = out_ptr + rows.to(tl.int64)[:, None] * V + columns[None, :]
    tl.store(at, z, mask=(rows < N)[:, None] & (columns < V)[None, :])


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
    weight = product.weight
    part = product._replace(hidden=product.hidden.index_select(0, numbers))
    n, V = len(numbers), len(weight)
    z = torch.empty((n, V), dtype=wide_dtype(weight), device=weight.device)
    if n == 0:
        return z
    with on_device(weight.device):
        rows = linear.rows_of(part, numbers, 1.0)
        arguments = product_arguments(rows.product, linear.low_rank_of(rows))
        grid = (rows.row_tiles, triton.cdiv(V, rows.constants["COLUMNS"]))
        logits_kernel[grid](**arguments, out_ptr=z, N=n, **rows.constants)
    return z


def _check(tokens: Tensor, lengths: Tensor | None, V: int) -> None:
    """Look at nothing: that would wait for the device."""


BACKEND = Backend(linear.target_log_prob, target_log_prob, logits_of, run_steps, _check, ROWS)
