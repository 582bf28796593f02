"""Settings of Numba, torch and the processor: an error that says so, or the same decisions."""

import threading
import time
from queue import SimpleQueue

import llvmlite.binding as llvm
import numpy as np
import pytest
import torch
from llvmlite import ir

import rskernels
from rskernels.kernels.cpu import launch, ratios
from rskernels.kernels.cpu import threads as threads_module
from rskernels.kernels.cpu.simd.subnormals import emit_keep, emit_restore

from ...support.bits import same_bits
from ...support.processes import run_python

UNCOMPILED = """
import torch, rskernels
logits, targets = torch.zeros(2, 3), torch.tensor([0, 1])
for call in (
    lambda: rskernels.accept_mask(logits, 0.1, 1.0, targets=targets, seed=1),
    lambda: rskernels.bernoulli_mask(logits, seed=1),
    lambda: rskernels.target_log_prob(logits, targets),
) * 2:
    try:
        print(call())
    except RuntimeError as error:
        print(error)
"""


@pytest.mark.process
def test_without_compilation_every_operation_says_what_to_unset():
    lines = run_python(UNCOMPILED, NUMBA_DISABLE_JIT="1").splitlines()
    assert len(lines) == 6
    assert all("NUMBA_DISABLE_JIT is set" in line and "unset it" in line for line in lines)


def decisions_on_subnormals(N):
    """Return what decides on numbers that are made before torch flushes."""
    logits, targets = torch.zeros(N, 10), torch.zeros(N, dtype=torch.long)
    tiny, M = torch.full((N,), 1e-40), torch.full((N,), 1e-39)
    return lambda: (
        *rskernels.accept(logits, tiny, 1e-38, targets=targets, seed=1),
        *rskernels.accept(logits, tiny[:, None], 1e-38, seed=1),
        *rskernels.accept(logits.double(), 1e-309, 3e-308, targets=targets, seed=1),
        rskernels.bernoulli_mask(logits[:, 0], M, seed=1),
        *rskernels.bernoulli(logits[:, 0], M, seed=1),
    )


@pytest.fixture
def flush():
    """Set what torch does about subnormal numbers, for one test and in this thread only."""
    yield torch.set_flush_denormal
    torch.set_flush_denormal(False)


def test_subnormal_numbers_count_whatever_torch_flushes(flush):
    # A decision would depend on the thread that makes it.
    decide = decisions_on_subnormals(400)
    want = decide()
    assert 0 < want[0].sum() < 400
    flush(True)
    got = decide()
    # The setting is put back.
    assert torch.tensor(1e-39) * 0.5 == 0.0
    flush(False)
    assert same_bits(got, want)


def test_subnormal_numbers_count_on_a_team_that_flushes(flush, threads, monkeypatch):
    decide = decisions_on_subnormals(4000)
    want = decide()
    monkeypatch.setattr(threads_module, "SERIAL_WORK", 0)
    threads(2)
    flush(True)
    torch.ones(1 << 20).sum()  # torch hands the setting on to its threads
    got = decide()
    flush(False)
    assert same_bits(got, want)


class Flushing:
    """A kernel that is left out of the thread that calls: the other, which flushes, has all."""

    def __init__(self, kernel, flushed):
        self.kernel, self.flushed = kernel, flushed

    def __call__(self, share, arguments):
        if threading.current_thread() is threading.main_thread():
            return 0
        product = np.float32(1e-39) * np.float32(0.5)
        self.flushed.append(bool(product == 0))
        return self.kernel(share, arguments)


def test_subnormal_numbers_count_in_a_thread_that_flushes(flush, threads, monkeypatch):
    decide = decisions_on_subnormals(4000)
    want = decide()
    flushed = []

    def run(kernel, *arguments):
        return threads_module.run_units(Flushing(kernel, flushed), *arguments)

    threads(2)
    monkeypatch.setattr(threads_module, "SERIAL_WORK", 0)
    for module in (launch, ratios):
        monkeypatch.setattr(module, "run_units", run)
    # A worker that is started by a thread that flushes does so too.
    monkeypatch.setattr(threads_module, "_jobs", SimpleQueue())
    monkeypatch.setattr(threads_module, "_workers", 0)
    monkeypatch.setattr(threads_module._Job, "finish", wait_for)
    flush(True)
    got = decide()
    flush(False)
    assert flushed == [True] * 5
    assert same_bits(got, want)


def wait_for(job):
    while not job.is_over:
        time.sleep(0.001)


def test_what_is_emitted_for_aarch64():
    module = ir.Module()
    module.triple = "aarch64-unknown-linux-gnu"
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "kernel")
    builder = ir.IRBuilder(function.append_basic_block())
    emit_restore(builder, emit_keep(builder))
    builder.ret_void()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(module.triple).create_target_machine()
    assembly = machine.emit_assembly(llvm.parse_assembly(str(module))).lower()
    assert assembly.count("mrs\t") == 1
    assert assembly.count("msr\tfpcr") == 2
