"""Entries of a batch that an envelope decides without a tensor wider than theirs."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rskernels import Envelope


@pytest.mark.parametrize("name", ["accept", "verify"])
def test_entries_are_decided_without_a_float64_of_each(name):
    class Widest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
                made.append(result.numel())
            return result

    made = []
    logits, density = torch.randn(16, 300), torch.rand(16, 300) / 300
    plain, logs = Envelope("max"), Envelope("max")
    for envelope in (plain, logs):
        envelope.update(torch.tensor([2.1234567891]))
    with Widest():
        seen = getattr(plain, name)(logits, density, seed=0)
    assert max(made) < 16 * 300
    expected = getattr(logs, name)(logits, density.double().log(), log_space=True, seed=0)
    assert torch.equal(seen.mask, expected.mask)
    assert torch.equal(seen.counts, expected.counts)
    assert 0 < seen.counts[0] < seen.mask.numel()
    torch.testing.assert_close(seen.excess, expected.excess, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plain.log_M(), logs.log_M(), rtol=1e-6, atol=0)
    # One that is no float64: as logarithms.
    large = Envelope("max")
    large.update(torch.tensor([800.0]))
    assert getattr(large, name)(logits, density, seed=0).counts.tolist() == [0, 0, 0, 0]
