"""Compile, for a GPU that need not be present, every kernel of ``gpu/linear`` as it is launched.

    python tests/kernels/gpu/compile_linear.py sm_90

prints a JSON list as ``compile_ahead.py`` does: an object a launch, with its resources, and which
instructions multiply its tiles.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import torch
from compile_ahead import TARGETS, Launch, compiling, resources
from triton.backends.compiler import GPUTarget

from rskernels.kernels.gpu import linear
from rskernels.kernels.gpu.linear.tiles import Machine
from rskernels.kernels.layout import ORDER_BLOCK
from rskernels.kernels.product import Lora, Product, Wanted
from rskernels.law.decision import Law

N, V = 1000, 50257
EVEN, UNEVEN, NARROW = 4096, 4112, 4100  # D: whole tiles, whole vectors, and neither
PRODUCTS = {
    "wgmma": r"\bwgmma\.mma_async\S*",
    "tcgen05": r"\btcgen05\.mma\S*",
    "mma": r"(?<!w)\bmma\.sync\S*",
    "mfma": r"\bv_mfma_\w+",
}
COPY = re.compile(r"\bcp\.async\.c[ag]\.shared\.global \[[^]]*\], \[[^]]*\], (0x[0-9a-f]+|\d+)")
LAYOUT = re.compile(r"#(\w+) = (#ttg\.(?:nvidia_mma|amd_mfma|linear)<.*>)")
ROW_SUM = re.compile(
    r'"tt\.reduce"\(%\w+\) <\{axis = 1 : i32[^}]*\}> \(\{[^{}]*?arith\.addf.*?'
    r"\}\) : \(tensor<[\dx]+xf\d+, #(\w+)>",
    re.DOTALL,
)


def product_of(dtype: torch.dtype, D: int, *parts: str) -> Product:
    """Return a product of empty parts: "bias", "softcap", "lora"."""
    empty = partial(torch.empty, dtype=dtype)
    return Product(
        empty(N, D),
        empty(V, D),
        empty(V) if "bias" in parts else None,
        1.0,
        30.0 if "softcap" in parts else 0.0,
        Lora(empty(16, D), empty(V, 16), 2.0) if "lora" in parts else None,
    )


def calls() -> Iterator[tuple[str, torch.dtype, Callable[[], Any]]]:
    """Yield what is compiled: a name, the dtype, the call."""
    targets, seed = torch.empty(N, dtype=torch.int64), torch.empty(1, dtype=torch.int64)
    order = torch.empty(-(-V // ORDER_BLOCK), dtype=torch.int64)
    every = ("bias", "softcap", "lora")
    numbers = Law(0.5, 2.0, 7)
    value, wide = torch.empty(N), torch.empty(N, dtype=torch.float64)
    tensors = Law(value, value, seed, 0, value, True, True)
    for dtype in (torch.bfloat16, torch.float32):
        plain, whole = product_of(dtype, EVEN), product_of(dtype, UNEVEN, *every)
        yield "target_log_prob", dtype, partial(linear.target_log_prob, plain, targets, 1.0, -100)
        yield (
            "lazy mask in order",
            dtype,
            partial(linear.mask, whole, targets, tensors, True, order),
        )
    doubles = tensors._replace(density=wide, M=wide, temperature=wide)
    whole = product_of(torch.float64, UNEVEN, *every)
    yield "decide", torch.float64, partial(linear.decide, whole, targets, doubles)
    bfloat16 = partial(product_of, torch.bfloat16)
    yield "lazy mask", torch.bfloat16, partial(linear.mask, bfloat16(EVEN), targets, numbers, True)
    capped = bfloat16(EVEN, "bias", "softcap")
    yield "decide", torch.bfloat16, partial(linear.decide, capped, targets, tensors)
    lora = bfloat16(EVEN, "lora", "softcap")
    yield (
        "target_log_prob at temperatures",
        torch.bfloat16,
        partial(linear.target_log_prob, lora, targets, value, -100),
    )
    narrow = bfloat16(NARROW, *every)
    yield "decide, narrow", torch.bfloat16, partial(linear.decide, narrow, targets, numbers)
    half = product_of(torch.float16, EVEN, "bias")
    yield "mask", torch.float16, partial(linear.mask, half, targets, numbers)
    totals, seldom = torch.empty(N, 2, dtype=torch.float64), (True, False, True, False, True)
    for name, product, T, wanted in (
        ("gradient", bfloat16(EVEN, "bias"), 1.0, (True, True, True, False, False)),
        ("gradient at temperatures", bfloat16(UNEVEN, *every), value, (True,) * 5),
        ("gradient", product_of(torch.float32, EVEN, *every), 1.0, seldom),
        ("gradient", product_of(torch.float64, EVEN), 1.0, (True, True, False, False, False)),
    ):
        upstream = wide if product.weight.dtype == torch.float64 else value
        yield (
            name,
            product.weight.dtype,
            partial(
                linear.target_log_prob_backward,
                upstream,
                product,
                targets,
                totals,
                T,
                -100,
                Wanted(*wanted),
            ),
        )


def describe(launch: Launch, target: GPUTarget) -> dict[str, Any]:
    """Return a launch's resources, its products and how wide its tiles are loaded."""
    loads, facts = resources(launch, target)
    asm = launch.result.asm
    text = asm.get("ptx") or asm["amdgcn"]
    products = {
        name: dict(Counter(re.findall(pattern, text))) for name, pattern in PRODUCTS.items()
    }
    layouts = dict(LAYOUT.findall(asm["ttgir"]))
    return {
        "kernel": launch.kernel.__name__.removesuffix("_kernel"),
        **facts,
        "shared": launch.result.metadata.shared,
        "tensor_memory": getattr(launch.result.metadata, "tmem_size", None) or 0,
        "loads": {str(bits): count for bits, count in loads.items()},
        "copies": dict(Counter(str(int(size, 0)) for size in COPY.findall(text))),
        "products": {name: found for name, found in products.items() if found},
        "row_sums": sorted({layouts.get(name, name) for name in ROW_SUM.findall(asm["ttgir"])}),
        "is_fused": launch.result.metadata.enable_fp_fusion,
        "flags": launch.flags,
    }


def describe_calls(
    target: GPUTarget,
    calls: Iterable[tuple[str, torch.dtype, Callable[[], Any]]],
    describe: Callable[[Launch, GPUTarget], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return what each launch of some calls came to, compiled for a target."""
    machine = Machine(0 if target.backend == "hip" else target.arch, 132)
    described = []
    launch = "rskernels.kernels.gpu.linear.launch"
    with (
        compiling(target) as seen,
        mock.patch(f"{launch}.machine_of", return_value=machine),
    ):
        for name, dtype, call in calls:
            seen.clear()
            call()
            case = {"launch": name, "dtype": str(dtype).removeprefix("torch.")}
            described += [{**case, **describe(launch, target)} for launch in seen]
    return described


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    print(json.dumps(describe_calls(TARGETS[parser.parse_args().target], calls(), describe)))


if __name__ == "__main__":
    main()
