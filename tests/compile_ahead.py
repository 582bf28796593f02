"""Compile every Triton kernel for a GPU that need not be present.

    python tests/compile_ahead.py cuda:90 [--dtype bf16]

prints a line a kernel. It is a script of its own because the interpreter, which the other tests
run kernels with, replaces the compiler for a whole process.
"""

import argparse
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from rskernels.kernels import gpu_kernels

INTEGERS = {"inner", "V", "N"}
LONG = {"seed", "row_offset", "ignore_index", "stream"}
DOUBLES = {"log_density", "log_M", "temperature", "scale"}
POINTERS = {
    "targets_ptr": "*i64",
    "seed_ptr": "*i64",
    "counter_ptr": "*i64",
    "key_ptr": "*i64",
    "words_ptr": "*i64",
    "mask_ptr": "*i1",
    "summary_ptr": "*fp64",
    "totals_ptr": "*fp64",
}
FLAGS = ("HAS_DENSITY", "HAS_M", "HAS_SEED", "HAS_OUTPUTS", "HAS_TARGETS")


def signature(kernel, dtype):
    """Return the kernel's argument types for logits of a dtype, strides of 64 bits."""
    wide = "fp64" if dtype == "fp64" else "fp32"
    types = {}
    for parameter in kernel.params:
        name = parameter.name
        if parameter.is_constexpr:
            types[name] = "constexpr"
        elif name == "stride":
            types[name] = "constexpr"  # 1: the classes of a row lie side by side
        elif name.endswith("_ptr"):
            given = dtype if name in ("logits_ptr", "gradient_ptr") else wide
            types[name] = POINTERS.get(name, f"*{given}")
        elif name in DOUBLES:
            types[name] = "fp64"
        elif name in INTEGERS:
            types[name] = "i32"
        else:
            types[name] = "i64"
    return types


def constants(kernel, dtype, **chosen):
    """Return the compile-time constants: everything on, unless chosen otherwise."""
    wide = triton.language.float64 if dtype == "fp64" else triton.language.float32
    values = {"CHUNK": 4096, "BLOCK": 1024, "WIDE": wide, "stride": 1}
    values |= dict.fromkeys(FLAGS, True)
    values |= {"LOG_SPACE": False, "MODEL_IS_TARGET": False, "HAS_PARTIALS": False}
    values |= chosen
    return {p.name: values[p.name] for p in kernel.params if p.name in values}


def aligned(kernel, types):
    """Say that pointers and the strides of rows are multiples of 16, as for aligned rows."""
    return {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(types)
        if name.endswith("_ptr") or name in ("outer_stride", "inner_stride", "V")
    }


def compile_kernel(kernel, target, dtype, **chosen):
    """Compile one kernel ahead of time; raises where the compiler does."""
    types = signature(kernel, dtype)
    source = ASTSource(kernel, types, constants(kernel, dtype, **chosen), aligned(kernel, types))
    return triton.compile(source, target=target, options={"num_warps": 8})


def kernels():
    """Return every kernel of the module by name."""
    return {name: value for name, value in vars(gpu_kernels).items() if name.endswith("_kernel")}


def main():
    """Compile and report; any failure ends the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="cuda:80, cuda:90, cuda:100 or hip:gfx942")
    parser.add_argument("--dtype", default="bf16", choices=("fp32", "fp64", "bf16", "fp16"))
    given = parser.parse_args()
    backend, architecture = given.target.split(":")
    wave = 64 if backend == "hip" else 32
    target = GPUTarget(backend, architecture if backend == "hip" else int(architecture), wave)
    for name, kernel in kernels().items():
        for partials in (False, True) if "HAS_PARTIALS" in kernel.arg_names else (False,):
            compiled = compile_kernel(kernel, target, given.dtype, HAS_PARTIALS=partials)
            kind = "hsaco" if backend == "hip" else "cubin"
            print(name, given.dtype, f"partials={partials}", len(compiled.asm[kind]), "bytes")


if __name__ == "__main__":
    sys.exit(main())
