"""Collectives in a group of one process; between several they are part of Envelope.all_reduce."""

import pytest
import torch
import torch.distributed as dist

from rskernels.distributed import all_gather, all_max, collective_device

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch lacks distributed")


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_row_is_filled_up_with_zeros(alone):
    gathered = all_gather(torch.tensor([3.0, -1.0], dtype=torch.float64), 4, None)
    assert gathered.dtype == torch.float64
    assert gathered.tolist() == [[3.0, -1.0, 0.0, 0.0]]


def test_numbers_keep_their_bits(alone):
    numbers = [2.0**47 + 1, -(2.0**47 + 1), 0.1]
    assert all_max(numbers, None) == numbers


def test_gloo_communicates_on_the_host(alone):
    assert collective_device(None) == torch.device("cpu")


def test_no_group_is_an_error():
    with pytest.raises(ValueError, match="process group has not been initialized"):
        all_max([1.0], None)
