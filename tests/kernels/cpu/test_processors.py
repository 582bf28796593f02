"""Processors of other levels than this one: the kernels run on each and decide alike.

NUMBA_CPU_NAME has a lower processor's instructions compiled, which this one can run too.
"""

import platform

import llvmlite.binding as llvm
import pytest
import torch
from llvmlite import ir
from numba import carray, njit

from rskernels.kernels.cpu.dtypes import as_i32
from rskernels.kernels.cpu.simd import halves, memory
from rskernels.kernels.cpu.simd.vectors import I16, first_lanes, lanes, f32x16, wide
from numba import types

from ...support.processes import run_python

NEEDS = {"generic": "sse2", "x86-64-v2": "sse4.2", "x86-64-v3": "f16c", "x86-64-v4": "avx512vl"}
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86-64")
