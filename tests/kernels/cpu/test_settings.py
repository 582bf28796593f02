"""Settings of Numba under which the kernels cannot run: said, and never a wrong result."""

import pytest

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
