"""How large the tiles of a product are, and how many programs compute them: known by the host."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from rskernels.kernels.layout import ORDER_BLOCK
from rskernels.kernels.product import Product

BLOCK = ORDER_BLOCK  # columns that are summed by themselves
GROUP = 32  # row tiles that programs take together: as many columns as rows in the cache
CARRY_GROUP = 8  # row tiles that programs take together where a band is carried on
CHUNK = 256  # rows that a program packs
FEW = 32  # rows that a program decides
STEP = 8  # blocks that are added at once
BAND = 4096  # columns whose gradient is kept at once
MOST_RANK = 32  # ranks of a low-rank change that are multiplied at once


class Machine(NamedTuple):
    """What a launch must know of a device."""

    capability: int  # 90 for an H100; 0 of ROCm
    processors: int


class Tiles(NamedTuple):
    """A tile of a product, and how a program computes it."""

    ROWS: int
    COLUMNS: int
    DEPTH: int
    warps: int
    stages: int


def machine_of(device: torch.device) -> Machine:
    """Return what a launch must know of a device, without waiting for it."""
    if device.type != "cuda":
        return Machine(90, 4)  # interpreted
    return _machine(device.index)


@functools.cache
def _machine(index: int | None) -> Machine:
    properties = torch.cuda.get_device_properties(index)
    capability = 0 if torch.version.hip else 10 * properties.major + properties.minor
    return Machine(capability, properties.multi_processor_count)


def tiles_of(product: Product, capability: int) -> Tiles:
    """Return the tiles of a product: they settle every logit's bits.

    They are the largest that leave a thread the registers to reduce its part of a tile. Rows of
    which 16 elements do not make up whole ones are loaded an element at a time.
    """
    dtype, is_narrow = product.weight.dtype, product.weight.shape[1] % 16 != 0
    has_bias, has_softcap = product.bias is not None, product.softcap != 0.0
    has_lora, is_ampere = product.lora is not None, 0 < capability < 90
    if dtype == torch.float64:
        return Tiles(32, 32, 16, 4, 2)
    if dtype == torch.float32:
        if is_narrow:
            return Tiles(64, 64, 16, 8, 2)
        return Tiles(128, 64, 16 if is_ampere else 32, 8, 3 if capability else 2)
    if is_narrow:
        return Tiles(64, 64, 32, 8, 2)
    if capability == 0:
        return Tiles(128, 128, 64, 8, 2)
    if is_ampere:
        return Tiles(128, 128, 32, 8, 4)
    if capability == 90 and not has_lora and not (has_bias and has_softcap):
        return Tiles(128, 256, 64, 8, 4)
    if capability > 90 and has_lora and has_bias:
        return Tiles(128, 64, 64, 8, 3)
    return Tiles(128, 128, 64, 8, 3)


def product_constants(product: Product, machine: Machine) -> dict[str, Any]:
    """Return the constants of a launch that computes tiles of logits."""
    weight, lora = product.weight, product.lora
    tiles = tiles_of(product, machine.capability)
    rank = 16 if lora is None else triton.next_power_of_2(lora.A.shape[0])
    return {
        **_constants(tiles, weight.dtype, machine),
        "RANK": min(MOST_RANK, max(16, rank)),
        "PARTS": parts_of(weight.dtype),
        "IS_EVEN": weight.shape[1] % tiles.DEPTH == 0,
        "HAS_BIAS": product.bias is not None,
        "HAS_SOFTCAP": product.softcap != 0.0,
        "HAS_LORA": lora is not None,
    }


def band_constants(product: Product, machine: Machine) -> dict[str, Any]:
    """Return the constants of a launch that writes the gradient of tiles of logits."""
    constants, capability = product_constants(product, machine), machine.capability
    is_heavy = product.lora is not None and product.bias is not None
    if constants["COLUMNS"] > 128 or (0 < capability <= 90 and is_heavy):
        # What is written needs more registers than what is summed.
        constants["COLUMNS"] //= 2
    if 0 < capability < 90 and is_heavy and product.weight.dtype == torch.float32:
        constants["ROWS"], constants["num_warps"] = constants["ROWS"] // 2, 4
    return constants


def carry_constants(product: Product, across: int, parts: int, machine: Machine) -> dict[str, Any]:
    """Return the constants of a launch that multiplies a band by a matrix ``across`` wide."""
    plain = product._replace(bias=None, softcap=0.0, lora=None)
    tiles = tiles_of(plain, machine.capability)
    most = max(16, triton.next_power_of_2(across))
    columns = min(most, tiles.COLUMNS, 128)
    if parts > 1 or across < tiles.COLUMNS:
        tiles = tiles._replace(ROWS=64, DEPTH=32, stages=2)
        columns = min(columns, 64)
    tiles = tiles._replace(COLUMNS=columns)
    if machine.capability == 90:
        # The addresses of a tile of either factor lie in registers, beside the sums.
        tiles = tiles._replace(DEPTH=min(tiles.DEPTH, 32))
    return {**_constants(tiles, product.weight.dtype, machine), "GROUP": CARRY_GROUP}


def parts_of(dtype: torch.dtype) -> int:
    """Return how many summands of a dtype hold what float32 does, or float64 of itself."""
    return 3 if dtype.itemsize == 2 else 1


def _constants(tiles: Tiles, dtype: torch.dtype, machine: Machine) -> dict[str, Any]:
    exact = "tf32x3" if machine.capability else "ieee"
    return {
        "ROWS": tiles.ROWS,
        "COLUMNS": tiles.COLUMNS,
        "DEPTH": tiles.DEPTH,
        "WIDE": tl.float64 if dtype == torch.float64 else tl.float32,
        "PRECISION": exact if dtype == torch.float32 else "ieee",
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
        # Fused, a product's rounding would depend on what else a kernel does with it.
        "enable_fp_fusion": False,
    }


def product_arguments(product: Product, low: torch.Tensor | None) -> dict[str, Any]:
    """Return the arguments of a kernel that computes tiles of logits."""
    hidden, weight, bias, scale, softcap, lora = product
    B = weight if lora is None else lora.B
    return {
        **matrix_arguments("hidden", hidden),
        **matrix_arguments("weight", weight),
        "bias_ptr": hidden if bias is None else bias,
        "bias_stride": 0 if bias is None else bias.stride(0),
        "low_ptr": hidden if low is None else low,
        **matrix_arguments("B", B),
        "scale": scale,
        "softcap": softcap,
        "D": weight.shape[1],
        "V": weight.shape[0],
        "R": 0 if lora is None else B.shape[1],
    }


def aligned(hidden: torch.Tensor) -> torch.Tensor:
    """Return hidden states whose rows begin where a vector does, copied if they do not."""
    step, stride = hidden.stride()
    places = (hidden.data_ptr(), step * hidden.element_size())
    is_aligned = stride == 1 and not any(place % 16 for place in places)
    return hidden if is_aligned else hidden.clone(memory_format=torch.contiguous_format)


def matrix_arguments(name: str, matrix: torch.Tensor) -> dict[str, Any]:
    """Return the arguments that say where a matrix's rows and columns are."""
    step, stride = matrix.stride()
    return {
        f"{name}_ptr": matrix,
        f"{name}_step": step,
        # That of a single column may be any.
        f"{name}_stride": stride if matrix.shape[1] > 1 else 1,
    }


def rounds_of(blocks: int, row_tiles: int, processors: int) -> list[tuple[int, int]]:
    """Return (first, blocks) of rounds that double, the first of which fills part of the device."""
    size = max(1, processors // (4 * row_tiles))
    rounds, first = [], 0
    while first < blocks:
        size = min(size, blocks - first)
        rounds.append((first, size))
        first += size
        size = first
    return rounds
