"""Settings of Numba, torch and the processor: an error that says so, or the same decisions."""

import pytest
import torch

import rskernels

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


def test_subnormal_numbers_count_whatever_torch_flushes():
    # Set in this thread only: a decision would depend on the thread that makes it.
    logits, targets = torch.zeros(400, 10), torch.zeros(400, dtype=torch.long)
    tiny, M = torch.full((400,), 1e-40), torch.full((400,), 1e-39)

    def decide():
        return (
            *rskernels.accept(logits, tiny, 1e-38, targets=targets, seed=1),
            *rskernels.accept(logits, tiny[:, None], 1e-38, seed=1),
            *rskernels.accept(logits.double(), 1e-309, 3e-308, targets=targets, seed=1),
            rskernels.bernoulli_mask(logits[:, 0], M, seed=1),
        )

    want = decide()
    assert 0 < want[0].sum() < 400
    torch.set_flush_denormal(True)
    try:
        got = decide()
        # The setting is put back.
        assert torch.tensor(1e-39) * 0.5 == 0.0
    finally:
        torch.set_flush_denormal(False)
    assert same_bits(got, want)
