"""FSDP2 over real processes; what each of them checks is fsdp_ranks.py."""

from pathlib import Path

import pytest
import torch.distributed as dist

from ..support.ranks import run_script

RANKS = Path(__file__).with_name("fsdp_ranks.py")


@pytest.mark.process
@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
def test_a_sharded_model_learns_from_hidden_states_as_one_process_does():
    run_script(RANKS, 2)
