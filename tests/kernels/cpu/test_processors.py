"""Processors of other levels than this one: the kernels run on each and decide alike.

NUMBA_CPU_NAME has the instructions of a lower processor compiled, which this one can run too, and
NUMBA_CPU_FEATURES leaves those out that only this one has.
"""

import platform

import llvmlite.binding as llvm
import pytest
import torch
from numba import njit, types

from rskernels.kernels.cpu.simd.halves import narrow_by_bits, widen_by_bits
from rskernels.kernels.cpu.simd.vectors import FLOAT, I16, LANES, lanes, wide

from ...support.processes import run_python

NEEDS = {"generic": "sse2", "x86-64-v3": "f16c", "x86-64-v4": "avx512vl"}

RUN = """
import hashlib, torch, rskernels
from rskernels.kernels import reference
from rskernels.kernels.cpu.simd.halves import converts_float16
from rskernels.law.decision import Law

decided = hashlib.sha256()

def decide(logits, targets):
    law = Law(0.02, 1.5, 5)
    got = rskernels.accept(logits, 0.02, 1.5, targets=targets, seed=5)
    want = reference.decide(logits, targets, law)
    assert torch.equal(got.mask, want[0])
    assert torch.allclose(got.log_prob.double(), want[1], atol=1e-5, rtol=1e-5)
    masks = [got.mask, rskernels.accept_mask(logits, 0.02, 1.5, targets=targets, seed=5)]
    masks.append(rskernels.bernoulli_mask(got.log_ratio, seed=2))
    if targets is not None:
        masks.append(rskernels.verify_mask(logits, 0.02, 1.5, targets=targets, seed=5))
    for mask in masks:
        decided.update(mask.numpy().tobytes())

for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for N, V in ((40, 10), (33, 700), (3, 20000)):
        logits = 3 * torch.randn(N, V, generator=torch.Generator().manual_seed(N))
        logits, targets = logits.to(dtype), torch.arange(N) % V
        if {decides}:
            decide(logits, targets)
            decide(logits, None)
        leaf, wide = logits.clone().requires_grad_(), logits.double().requires_grad_()
        got = rskernels.target_log_prob(leaf, targets)
        want = torch.log_softmax(wide, -1).gather(-1, targets[:, None])[:, 0]
        assert torch.allclose(got.double(), want, atol=1e-5, rtol=1e-5)
        got, want = (torch.autograd.grad(y.sum(), x)[0] for y, x in ((got, leaf), (want, wide)))
        near = {torch.bfloat16: 1e-2, torch.float16: 1e-3}.get(dtype, 1e-6)
        assert torch.allclose(got.double(), want, atol=near, rtol=near)
print(converts_float16(), decided.hexdigest())
"""


def run_on(processor, decides):
    return run_python(
        RUN.replace("{decides}", str(decides)),
        timeout=600,
        NUMBA_CPU_NAME=processor,
        NUMBA_CPU_FEATURES="",
    ).split()


@pytest.mark.process
@pytest.mark.skipif(platform.machine() != "x86_64", reason="of the levels of x86-64")
def test_a_processor_without_float16_serves_every_dtype():
    assert run_on("generic", decides=False)[0] == "False"


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(platform.machine() != "x86_64", reason="of the levels of x86-64")
def test_every_level_decides_alike():
    here = llvm.get_host_cpu_features()
    levels = [level for level, feature in NEEDS.items() if here.get(feature)]
    decisions = {level: run_on(level, decides=True)[1] for level in levels}
    assert len(set(decisions.values())) == 1, decisions


def converter(convert, stored, result):
    """Return a function of two addresses that converts sixteen numbers."""

    @lanes(lambda source, place: types.void)
    def through(builder, source, place):
        values = builder.load(builder.inttoptr(source, wide(stored).as_pointer()), align=2)
        pointer = builder.inttoptr(place, wide(result).as_pointer())
        builder.store(convert(builder, values), pointer, align=2)

    @njit
    def run(source, place, count, source_step, step):
        for i in range(0, count, LANES):
            through(source + i * source_step, place + i * step)

    def call(values, dtype):
        out = torch.empty_like(values, dtype=dtype)
        run(values.data_ptr(), out.data_ptr(), len(values), values.itemsize, out.itemsize)
        return out

    return call


def same_numbers(a, b):
    bits = torch.int16 if a.itemsize == 2 else torch.int32
    return bool(((a.view(bits) == b.view(bits)) | (a.isnan() & b.isnan())).all())


def test_float16_without_its_instructions():
    every = torch.arange(1 << 16).to(torch.int16).view(torch.float16)
    wide_values = converter(widen_by_bits, I16, FLOAT)(every, torch.float32)
    assert same_numbers(wide_values, every.float())
    # Each number, what lies halfway to the next, and the float32 on either side of both.
    halfway = (wide_values.double() + wide_values.roll(-1).double()).div(2).float()
    numbers = torch.cat([wide_values, halfway, torch.tensor([65519.0, 65520.0, 1e38, 1e-40] * 4)])
    for step in (-1, 0, 1):
        near = (numbers.view(torch.int32) + step).view(torch.float32)
        assert same_numbers(converter(narrow_by_bits, FLOAT, I16)(near, torch.float16), near.half())
