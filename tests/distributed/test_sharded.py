"""DTensors between real processes; what each of them checks is sharded_ranks.py."""

from pathlib import Path

import pytest
import torch.distributed as dist

from ..support.processes import run_python
from ..support.ranks import run_script

RANKS = Path(__file__).with_name("sharded_ranks.py")


@pytest.mark.process
@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
def test_ranks_decide_their_rows_as_one_process_decides_all():
    run_script(RANKS, 4)


@pytest.mark.process
def test_calls_on_plain_tensors_do_not_load_dtensors():
    run_python(
        "import sys, torch, rskernels\n"
        "logits = torch.nn.Parameter(torch.randn(2, 3))\n"
        "rskernels.accept_mask(logits, 0.2, 1.0, targets=torch.tensor([0, 1]), seed=0)\n"
        "rskernels.target_log_prob(logits, torch.tensor([0, 1])).sum().backward()\n"
        "rskernels.accepted_mean(logits[0], torch.ones(3).bool(), torch.ones(3)).backward()\n"
        "assert 'torch.distributed.tensor' not in sys.modules\n"
    )
