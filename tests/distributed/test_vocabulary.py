"""A vocabulary over real processes; what each of them checks is vocabulary_ranks.py."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from rskernels import LinearLogits

from ..support.ranks import run_script

RANKS = Path(__file__).with_name("vocabulary_ranks.py")


@pytest.mark.process
@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_decide_as_one_process_that_has_all_columns(ranks):
    run_script(RANKS, ranks)


def test_what_a_group_must_be():
    hidden, weight = torch.randn(3, 4), torch.randn(5, 4)
    with pytest.raises(TypeError, match=r"group must be a torch\.distributed\.ProcessGroup"):
        LinearLogits(hidden, weight, group="tp")
    with pytest.raises(ValueError, match="offset must be 0 without a group, got 5"):
        LinearLogits(hidden, weight, offset=5)
    with pytest.raises(TypeError, match="offset must be an int"):
        LinearLogits(hidden, weight, offset=0.5)
