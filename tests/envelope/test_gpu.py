"""Envelope on a real GPU; test_device.py runs the same path on CPU tensors."""

import pytest
import torch

from rskernels.envelope import Envelope

from ..support.states import columns

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device"),
]

POLICIES = ["max", "fixed:1.5", "quantile:0.9", "budget:0.5", "decayed:100", "leave_one_out"]


def batches(groups):
    generator = torch.Generator().manual_seed(groups)
    for _ in range(4):
        log_ratio = torch.randn(50_000, generator=generator, dtype=torch.float64)
        log_ratio[:3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
        ids = torch.randint(groups, (50_000,), generator=generator)
        yield log_ratio, ids, torch.rand(50_000, generator=generator) < 0.5


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("groups", [1, 5, 100_000])
def test_the_state_is_that_of_cpu_rows(policy, groups):
    want, got = Envelope.parse(policy, groups=groups), Envelope.parse(policy, groups=groups)
    for log_ratio, ids, accepted in batches(groups):
        want.update(log_ratio, ids, accepted=accepted)
        got.update(log_ratio.cuda(), ids.cuda(), accepted=accepted.cuda())
    ours, theirs = columns(got), columns(want)
    for name, value in ours.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            torch.testing.assert_close(value, theirs[name], rtol=1e-12, atol=0, equal_nan=True)
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("groups", [1, 5])
def test_updates_do_not_wait_for_the_device(policy, groups):
    envelope = Envelope.parse(policy, groups=groups)
    rows = [tuple(x.cuda() for x in batch) for batch in batches(groups)]
    envelope.update(*rows[0][:2])
    at_hand = envelope.policy in ("max", "fixed")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for log_ratio, ids, accepted in rows * 10:
            envelope.update(log_ratio, ids, accepted=accepted)
            if at_hand:
                assert envelope.M(ids).is_cuda
                assert envelope.log_M(device="cuda").is_cuda
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert envelope.seen.sum() == 41 * 50_000


def test_rows_of_no_group_are_left_out_and_told():
    envelope = Envelope(groups=2)
    ids = torch.tensor([0, 2, -1, 2**40], device="cuda")
    envelope.update(torch.zeros(4, device="cuda"), ids)
    assert envelope.log_M(ids).isnan().tolist() == [False, True, True, True]
    with pytest.raises(IndexError, match=r"3 rows that came on cuda:0 had group ids outside"):
        envelope.report()
    assert envelope.seen.tolist() == [1, 0]


def test_control_weights_stay_on_the_device():
    envelope = Envelope("fixed", M=1.0, on_violation="control")
    weights = envelope.update(torch.tensor([-1.0, 1.0], device="cuda"))
    assert weights.is_cuda
    assert weights.tolist() == pytest.approx([1.0, torch.e])


def test_all_reduce_on_the_device(tmp_path):
    dist = torch.distributed
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("nccl", store=store, rank=0, world_size=1)
    try:
        envelope, before = Envelope(groups=5), Envelope(groups=5)
        for log_ratio, ids, _ in batches(5):
            envelope.update(log_ratio.cuda(), ids.cuda())
            before.update(log_ratio.cuda(), ids.cuda())
        assert envelope.all_reduce().to_bytes() == before.to_bytes()
    finally:
        dist.destroy_process_group()
