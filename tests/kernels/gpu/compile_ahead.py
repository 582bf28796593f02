"""Compile, for a GPU that need not be present, every kernel as ``gpu/launch.py`` launches it.

    python tests/kernels/gpu/compile_ahead.py sm_90 [--dtype bfloat16]

prints a JSON list: an object a launch, with what the compiler made of it. The host code runs on
CPU tensors, and Triton's argument specialisation sees their addresses and strides; only the
launch itself is left out. It is a script of its own because the interpreter, which the other
tests run kernels with, replaces the compiler for a whole process.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from machine_code import Loop, main_loop, reading_loop, writing_loop
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from rskernels.kernels import gpu
from rskernels.kernels.gpu.launch import FEW_ROWS, LANES, STEPS
from rskernels.kernels.layout import ORDER_BLOCK, wide_dtype
from rskernels.law.decision import Law

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
DTYPES = ("bfloat16", "float16", "float32", "float64")
EACH_LAYOUT = ("sm_90", "gfx942")  # what a layout compiles to differs by the warp's size only
# Of float16, which is widened otherwise than bfloat16, and of float64 where not each layout is.
OF_RARE = ("mask", "lazy mask", "target_log_prob", "dense mask", "gradient")
MANY, FEW = FEW_ROWS, 3
PART = LANES * STEPS
EVEN, ODD = 2 * PART, 2 * PART + 1  # columns: whole vectors, and not

PTX_LOAD = re.compile(r"\bld\.global(?:\.[\w:]+?)*?(?:\.v(\d))?\.[bfsu](\d+)\b")
AMD_LOAD = re.compile(r"\b(?:global|buffer)_load_([a-z0-9_]+)")
AMD_WORDS = {"dword": 32, "dwordx2": 64, "dwordx3": 96, "dwordx4": 128}
SUM = re.compile(
    r'"tt\.reduce"\(%\w+\) <\{axis = \d+ : i32[^}]*\}> \(\{[^{}]*?arith\.addf.*?'
    r"\}\) : \(tensor<([\dx]+)xf\d+",
    re.DOTALL,
)


class Driver:
    """Stands in for a device's driver: it knows the target, and has nothing to launch on."""

    def __init__(self, target: GPUTarget):
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class Launch(NamedTuple):
    """A launch that was compiled, and what the assembler said of it."""

    kernel: JITFunction
    result: Any  # triton.compiler.CompiledKernel
    flags: dict[str, bool]
    log: str


@contextlib.contextmanager
def compiling(target: GPUTarget) -> Iterator[list[Launch]]:
    """Compile launches instead of making them, and collect what came of them."""
    seen: list[Launch] = []
    logs: dict[str, str] = {}
    run = JITFunction.run

    def compile_only(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **keywords: Any):
        with contextlib.redirect_stdout(io.StringIO()) as log:
            result = run(kernel, *args, grid=grid, warmup=True, **keywords)
        flags = {k: v for k, v in keywords.items() if isinstance(v, bool) and k in kernel.arg_names}
        # What was compiled for an earlier launch is not compiled again.
        seen.append(Launch(kernel, result, flags, logs.setdefault(result.hash, log.getvalue())))

    triton.runtime.driver.set_active(Driver(target))
    triton.knobs.compilation.always_compile = True
    triton.knobs.nvidia.dump_ptxas_log = True
    with (
        mock.patch.object(JITFunction, "run", compile_only),
        mock.patch("rskernels.kernels.gpu.launch.WARP", target.warp_size),
    ):
        yield seen


def of_logits(logits: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Return the calls that read logits, by name."""
    N, V = logits.shape
    wide = wide_dtype(logits)
    targets, seed = torch.empty(N, dtype=torch.int64), torch.empty(1, dtype=torch.int64)
    value, entry = torch.empty(N, dtype=wide), torch.empty(V, dtype=wide).expand(N, V)
    totals = torch.empty(N, 2, dtype=torch.float64)
    numbers, tensors = Law(0.5, 2.0, 7), Law(value, value, seed)
    verify = Law(value, value, seed, log_space=True, model_is_target=True)
    verify_entries = Law(
        entry, entry, seed, temperature=value, log_space=True, model_is_target=True
    )
    order = torch.empty(-(-V // ORDER_BLOCK), dtype=torch.int64)
    in_order = tensors._replace(model_is_target=True, temperature=value)
    return {
        "mask": partial(gpu.mask, logits, targets, numbers),
        "lazy mask": partial(gpu.mask, logits, targets, tensors, is_lazy=True),
        "lazy mask in order": partial(
            gpu.mask, logits, targets, in_order, is_lazy=True, order=order
        ),
        "decide": partial(gpu.decide, logits, targets, verify),
        "decide with totals": partial(gpu.decide_with_totals, logits, targets, verify),
        "target_log_prob": partial(gpu.target_log_prob, logits, targets, 1.0, -100),
        "dense mask": partial(gpu.mask, logits, None, numbers),
        "dense decide": partial(gpu.decide, logits, None, verify_entries),
        "gradient": partial(
            gpu.target_log_prob_backward, value, logits, targets, totals, 1.0, -100
        ),
        "target_log_prob at temperatures": partial(
            gpu.target_log_prob, logits, targets, value, -100
        ),
        "gradient at temperatures": partial(
            gpu.target_log_prob_backward, value, logits, targets, totals, value, -100
        ),
    }


def of_ratios(log_ratio: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Return the calls that read no logits, by name."""
    seed = torch.empty(1, dtype=torch.int64)
    words = torch.empty(*log_ratio.shape, 4, dtype=torch.int64)
    return {
        "bernoulli": partial(gpu.bernoulli, log_ratio, 2.0, 7, 0, 0, False),
        "bernoulli of tensors": partial(gpu.bernoulli, log_ratio, log_ratio, seed, 0, 0, True),
        "bernoulli with counts": partial(
            gpu.decide_ratios, log_ratio, log_ratio, seed, 0, 0, False
        ),
        "bernoulli of ids": partial(
            gpu.bernoulli, log_ratio, log_ratio, 7, 0, 9, True, log_ratio.long()
        ),
        "philox": partial(gpu.philox, words, words[:, :2]),
    }


def of_sequences(log_ratio: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Return the calls that take sequences, padded and packed, by name."""
    B, packed = len(log_ratio), log_ratio.reshape(-1)
    mask, starts = torch.empty(log_ratio.shape, dtype=torch.bool), torch.zeros(B + 1).long()
    M, seed = torch.empty(B, dtype=log_ratio.dtype), torch.empty(1, dtype=torch.int64)
    numbers, tensors = (2.0, 7, 0, 5, False), (M, seed, 0, 5, True)
    flat = mask.reshape(-1)
    accept, prefix = gpu.decide_sequences, gpu.accept_prefix
    return {
        "sequences": partial(accept, log_ratio, *numbers, None, None, "sum"),
        "sequences of a mask": partial(accept, log_ratio, *tensors, mask, None, "max"),
        "sequences packed": partial(accept, packed, *numbers, None, starts, "mean_k2"),
        "sequences packed, of a mask": partial(accept, packed, *numbers, flat, starts, "mean_k3"),
        "prefixes": partial(prefix, log_ratio, *numbers, None, None),
        "prefixes packed, of a mask": partial(prefix, packed, *tensors, flat, starts, starts[1:]),
    }


def layouts(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return logits in layouts that the compiler tells apart, of two numbers of columns."""
    empty = partial(torch.empty, dtype=dtype)
    return {
        "sliced": empty(MANY, EVEN + 2)[:, 1:-1],
        "sliced, few rows": empty(FEW, EVEN + 2)[:, 1:-1],
        "transposed": empty(EVEN, MANY).T,
        "one row": empty(1, EVEN),
        "odd": empty(MANY, ODD),
        "odd, few rows": empty(FEW, ODD),
        "odd, padded": empty(MANY, ODD + 15)[:, :ODD],
        "odd, transposed": empty(ODD, MANY).T,
        "odd, one row": empty(1, ODD),
    }


def calls(dtype: str, target: str) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """Yield what is compiled for a dtype: a name, the columns, the call."""
    empty = partial(torch.empty, dtype=getattr(torch, dtype))
    is_common = dtype in ("float32", "bfloat16") or (dtype == "float64" and target in EACH_LAYOUT)
    for name, call in of_logits(empty(MANY, EVEN)).items():
        if is_common or name in OF_RARE:
            yield name, EVEN, call
    few = of_logits(empty(FEW, EVEN))
    if is_common:
        for name in ("mask", "lazy mask in order", "dense mask"):
            yield f"{name}, few rows", EVEN, few[name]
    if dtype in ("float32", "float64"):
        for name, call in of_ratios(empty(MANY)).items():
            yield name, 1, call
        for name, call in of_sequences(empty(FEW, 100)).items():
            yield name, 1, call
    if dtype != "bfloat16":
        return
    yield "decide, few rows", EVEN, few["decide"]
    yield "target_log_prob, few rows", EVEN, few["target_log_prob"]
    if target not in EACH_LAYOUT:
        return
    for layout, view in layouts(getattr(torch, dtype)).items():
        yield f"mask, {layout}", view.shape[1], of_logits(view)["mask"]
        if layout in ("sliced", "odd"):
            yield f"target_log_prob, {layout}", view.shape[1], of_logits(view)["target_log_prob"]
    # Triton compiles a size or step of 1 as a constant.
    for name, call in {**of_logits(empty(1, 1)), **of_ratios(torch.empty(1))}.items():
        yield f"{name}, one logit", 1, call


def describe(launch: Launch, target: GPUTarget, itemsize: int, has_loops: bool) -> dict[str, Any]:
    """Return the resources of a compiled launch, how wide it loads the logits, and its loops."""
    kernel, result, flags, _ = launch
    loads, facts = resources(launch, target)
    threads = result.metadata.num_warps * target.warp_size
    logits = _logits_a_trip(launch)
    needed = _bytes_a_trip(launch, logits, itemsize) / threads
    return {
        "kernel": kernel.__name__.removesuffix("_kernel"),
        **facts,
        "shared": result.metadata.shared,
        "threads": threads,
        "load_bits": _load_bits(loads, needed) if needed else None,
        "other_loads": sum(count for bits, count in loads.items() if bits < 128),
        "sums": _sums(result.asm["ttgir"]),
        "loops": [
            {**loop._asdict(), "logits": logits / threads}
            for loop, logits in (_row_loops(launch, logits) if has_loops else ())
        ],
        "is_fused": result.metadata.enable_fp_fusion,
        "flags": flags,
    }


def resources(launch: Launch, target: GPUTarget) -> tuple[Counter[int], dict[str, int]]:
    """Return how many loads there are of each width, and what registers the launch needs."""
    return (_amd if target.backend == "hip" else _nvidia)(launch.result, launch.log)


def _row_loops(launch: Launch, logits: int) -> list[tuple[Loop, int]]:
    """Return the loops over a row, and the logits that a program takes in a trip of each."""
    if not logits:
        return []
    asm = launch.result.asm
    if launch.kernel.__name__ == "dense_kernel":
        # It reads a row in parts, and decides it a sum of each lane at a time.
        decided = logits // _constant(launch, "STEPS")
        found = [(reading_loop(asm), logits), (writing_loop(asm), decided)]
    else:
        found = [(main_loop(asm), logits)]
    # A row of one logit has no loop.
    return [(loop, each) for loop, each in found if loop is not None]


def _nvidia(result: Any, log: str) -> tuple[Counter[int], dict[str, int]]:
    spilled = re.findall(r"(\d+) bytes spill (?:stores|loads)", log)
    registers = re.search(r"Used (\d+) registers", log)
    loads = Counter(int(n or 1) * int(bits) for n, bits in PTX_LOAD.findall(result.asm["ptx"]))
    return loads, {
        "code": len(result.asm["cubin"]),
        "registers": int(registers[1]),
        "spills": sum(map(int, spilled)),
    }


def _amd(result: Any, log: str) -> tuple[Counter[int], dict[str, int]]:
    text = result.asm["amdgcn"]

    def count(field: str) -> int:
        return int(re.search(rf"\.{field}:\s+(\d+)", text)[1])

    # Whatever is not counted in words is narrower: a byte or a short, in one of many forms.
    return Counter(AMD_WORDS.get(name, 16) for name in AMD_LOAD.findall(text)), {
        "code": len(result.asm["hsaco"]),
        "registers": count("vgpr_count"),
        # Scalar registers are spilled into lanes of a vector register, not into memory.
        "spills": count("vgpr_spill_count") + count("private_segment_fixed_size"),
    }


def _logits_a_trip(launch: Launch) -> int:
    """Return how many logits a program takes at once, 0 where it reads none."""
    if "logits_ptr" not in launch.kernel.arg_names or launch.flags.get("HAS_PARTIALS"):
        return 0
    return _constant(launch, "LANES") * _constant(launch, "STEPS")


def _constant(launch: Launch, name: str) -> int:
    return launch.result.src.constants[(launch.kernel.arg_names.index(name),)]


def _bytes_a_trip(launch: Launch, logits: int, itemsize: int) -> int:
    """Return how many bytes a program loads for so many logits."""
    is_dense = "density_inner" in launch.kernel.arg_names
    tensors = launch.flags["HAS_DENSITY"] + launch.flags["HAS_M"] if is_dense else 0
    return logits * (itemsize + tensors * max(4, itemsize))


def _load_bits(loads: Counter[int], needed: float) -> int:
    """Return the narrowest load among the widest that together read so many bytes a thread."""
    for bits in sorted(loads, reverse=True):
        needed -= loads[bits] * bits / 8
        if needed <= 0:
            return bits
    raise ValueError(f"{dict(loads)} loads leave {needed} bytes of a chunk unread")


def _sums(ir: str) -> list[int]:
    """Return of how many terms the floating sums are, whose order the compiler chooses."""
    return sorted({int(shape.split("x")[-1]) for shape in SUM.findall(ir)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="all four, unless given")
    arguments = parser.parse_args()
    target = TARGETS[arguments.target]
    described = []
    with compiling(target) as seen:
        for dtype in arguments.dtype or DTYPES:
            itemsize = getattr(torch, dtype).itemsize
            for name, columns, call in calls(dtype, arguments.target):
                seen.clear()
                call()
                case = {"launch": name, "dtype": dtype, "columns": columns}
                # Slow to take apart: what a logit costs is of aligned rows, and not of float64.
                sizes = (itemsize, "," not in name and dtype != "float64")
                described += [{**case, **describe(launch, target, *sizes)} for launch in seen]
    print(json.dumps(described))


if __name__ == "__main__":
    main()
